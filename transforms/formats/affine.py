"""An affine, index -> world millimetres: checked, compared, and between the two conventions of the world's axes.

Needs numpy only, so that a refusal comes at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]

RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS (NIfTI, and everything here) <-> LPS (DICOM, SimpleITK), its own inverse."""

TOLERANCE_MM = 0.1
"""The largest distance between the corners of a volume under two affines that count as the same."""

SMALLEST_MM, LARGEST_MM = 1e-3, 1e3
"""Voxel sizes outside this range are refused as damage."""


class AffineProblem(ValueError):
    """The problem with an affine, as the end of the sentence "its sform ..."."""


def make_affine(linear: ArrayLike, origin: ArrayLike) -> Affine:
    """The affine [4, 4] of a linear map [3, 3] and the image [3] of index 0."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, origin
    return affine


def corners(affine: Affine, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The 8 outer corners (voxel edges, not centres) of a volume of `shape`, [8, 3], world mm."""
    index = np.stack(np.meshgrid(*((-0.5, n - 0.5) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    return index @ affine[:3, :3].T + affine[:3, 3]


def corner_distance(a: Affine, b: Affine, shape: tuple[int, ...]) -> float:
    """The largest distance, mm, between where `a` and `b` put an outer corner of a volume of `shape`."""
    return float(np.linalg.norm(corners(a - b, shape), axis=1).max())


def without_shear(affine: Affine) -> Affine:
    """`affine` with its axes replaced by the nearest orthogonal ones (polar factor), voxel sizes kept."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(affine[:3, :3] / size)
    result = affine.copy()
    result[:3, :3] = (u @ vt) * size
    return result


def check(affine: Affine, shape: tuple[int, ...]) -> None:
    """Raise AffineProblem for an affine that is not finite, singular, absurd in voxel size, or sheared.

    Sheared: the nearest affine with orthogonal axes puts a corner more than 0.1 mm elsewhere.
    """
    if not np.isfinite(affine).all():
        raise AffineProblem("holds NaN or infinite numbers")
    size = np.linalg.norm(affine[:3, :3], axis=0)
    if not size.all() or abs(np.linalg.det(affine[:3, :3] / size)) < 1e-3:
        raise AffineProblem("is singular: its axes do not span space")
    if size.min() < SMALLEST_MM or size.max() > LARGEST_MM:
        raise AffineProblem(f"has an absurd voxel size, {' x '.join(f'{s:g}' for s in size)} mm")
    shift = corner_distance(affine, without_shear(affine), shape)
    if shift > TOLERANCE_MM:
        raise AffineProblem(f"is sheared: orthogonal axes would move a corner by {shift:.3g} mm")
