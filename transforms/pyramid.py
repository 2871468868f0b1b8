"""Coarser versions of a scan, and the middle of the head in it: the starting points of registration."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi
import SimpleITK as sitk
from numpy.typing import NDArray

from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.mutual_information import to_sitk


def shrink(values: NDArray[np.float32], grid: Grid, spacing: float, sigma: float) -> tuple[NDArray, Grid]:
    """Block means to at most `spacing` mm along each axis, then a Gaussian of `sigma` mm."""
    factors = [max(1, min(int(spacing / s + 0.01), n // 4)) for s, n in zip(grid.spacing, grid.shape, strict=True)]
    for axis, f in enumerate(factors):
        n = values.shape[axis] // f
        values = np.moveaxis(values, axis, 0)[: n * f]
        values = np.moveaxis(values.reshape(n, f, *values.shape[1:]).mean(1), 0, axis)
    scale = make_affine(np.diag(factors), (np.asarray(factors) - 1) / 2)
    small = Grid.of(values, grid.affine @ scale)
    return ndi.gaussian_filter(values, sigma / np.asarray(small.spacing), mode="nearest"), small


def bright_points(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """[N, 3], world (RAS mm): the voxels brighter than Otsu's threshold, without specks."""
    head = sitk.GetArrayFromImage(sitk.OtsuThreshold(to_sitk(values, grid), 0, 1)).transpose(2, 1, 0)
    head = ndi.binary_opening(head, iterations=1) if min(head.shape) > 8 else head
    index = np.argwhere(head if head.any() else np.ones_like(head))
    return np.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])


def upper_centre(points: NDArray[np.float64], depth: float = 140.0) -> NDArray[np.float64]:
    """The mean of the `points` [N, 3] (RAS mm) that lie in the upper `depth` mm, so that the length of the neck in view
    does not matter."""
    top = np.percentile(points[:, 2], 99.5)
    return np.asarray(points[points[:, 2] > top - depth].mean(0))


def head_centre(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """World point (RAS mm): the centre of what is bright in the upper 140 mm of a head."""
    return upper_centre(bright_points(values, grid))


def clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the darkest and the brightest half per cent."""
    low, high = np.percentile(values, [0.5, 99.5])
    return np.clip(values, low, max(high, low + 1e-6)).astype(np.float32)
