"""A second hole, where the scan's values are known: it measures how well a hole of that shape can be filled."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import Pose

APART_MM = 6.0
"""Least distance of the two holes."""

WHOLE = 0.8
"""Part of the hole's voxels that the second one must have."""

LARGEST_ML = 100.0
"""Beside a larger hole, a second one would leave too little that is known."""


def decoy_of(hole: Tensor, grid: Grid, pose: Pose) -> Tensor | None:
    """A hole of the same shape [X, Y, Z] (bool) elsewhere in the head; None where there is no room for it.

    Mirrored at the template's middle (x = 0) in the scan's `pose`; where that is too near, moved forwards, backwards,
    up or down by the hole's own extent.
    """
    if not hole.any() or float(hole.sum()) * abs(np.linalg.det(grid.affine[:3, :3])) > 1000 * LARGEST_ML:
        return None
    voxels = np.argwhere(hole.numpy())
    world = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    inverse = np.linalg.inv(pose)
    extent = np.ptp(world @ inverse[:3, :3].T + inverse[:3, 3], axis=0) + 2 * APART_MM
    far = torch.from_numpy(ndi.distance_transform_edt(~hole.numpy(), grid.spacing) > APART_MM)
    for motion in _motions(extent):
        second = _moved(hole, grid, pose @ motion @ inverse) & far
        if int(second.sum()) >= WHOLE * len(voxels):
            return second
    return None


def _motions(extent: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Maps of the template's world to itself, in the order of preference."""
    motions = [np.diag([-1.0, 1.0, 1.0, 1.0])]
    for axis in (1, 2):
        for sign in (1, -1):
            motion = np.eye(4)
            motion[axis, 3] = sign * extent[axis]
            motions.append(motion)
    return motions


def _moved(hole: Tensor, grid: Grid, motion: NDArray[np.float64]) -> Tensor:
    """The hole [X, Y, Z] carried along by a map of the scan's world to itself, on the scan's grid."""
    back = np.linalg.inv(grid.affine) @ np.linalg.inv(motion) @ grid.affine
    moved = ndi.affine_transform(hole.numpy().astype(np.uint8), back[:3, :3], back[:3, 3], order=0, mode="constant")
    return torch.from_numpy(moved > 0)


def explained(truth: Tensor, base: Tensor, answer: Tensor, where: Tensor) -> float:
    """The weight b in [0, 1] for which base + b (answer - base) is nearest to the truth `where` (bool)."""
    step, error = (answer - base)[where].double(), (truth - base)[where].double()
    size = float(step @ step)
    return min(1.0, max(0.0, float(step @ error) / size)) if size > 0 else 0.0
