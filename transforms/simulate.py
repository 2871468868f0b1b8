"""A simulated acquisition of a volume along its own axes: thick slices, or larger voxels in the coronal plane."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.errors import UsageError
from brgm_med.transforms.acquire import SAME, AcquisitionModel, index_axis, replaced, respaced
from brgm_med.transforms.geometry import Grid


def thick_slices(
    grid: Grid, world: str, thickness: float, gap: float = 0.0, profile: Profile = "box"
) -> tuple[Grid, AcquisitionModel]:
    """Slices of `thickness` mm every `thickness + gap` mm along R, A or S: the coarse grid, its model.

    As many whole slices as the field of view holds, from its first edge on. Raises UsageError when that is
    none, or when the slices would be finer than the scan's voxels.
    """
    axis, spacing = index_axis(grid, world), list(grid.spacing)
    if not (thickness > 0 and gap >= 0):
        raise UsageError(f"slice thickness {thickness:g} mm, gap {gap:g} mm: positive and at least 0, please")
    if thickness + gap < spacing[axis] * (1 - SAME):
        raise UsageError(f"slices every {thickness + gap:g} mm are finer than the scan's {spacing[axis]:g} mm")
    shape, extent = list(grid.shape), grid.shape[axis] * spacing[axis]
    shape[axis], spacing[axis] = int(np.floor(extent / (thickness + gap) + 1e-6)), thickness + gap
    if shape[axis] < 1:
        raise UsageError(f"no slice of {thickness + gap:g} mm fits into {extent:g} mm along {world}")
    coarse = respaced(grid, spacing, shape)
    return coarse, AcquisitionModel(replaced(coarse.spacing, axis, thickness), profile, axis, True)


def coarse_in_plane(grid: Grid, factor: int) -> tuple[Grid, AcquisitionModel]:
    """Voxels `factor` times as large in the coronal plane (R and S): the coarse grid, its box model."""
    if factor < 1:
        raise UsageError(f"factor {factor}: it must be at least 1")
    spacing, shape = list(grid.spacing), list(grid.shape)
    for world in "RS":
        axis = index_axis(grid, world)
        spacing[axis], shape[axis] = spacing[axis] * factor, shape[axis] // factor
    if min(shape) < 1:
        raise UsageError(f"factor {factor}: it leaves no voxel of {grid.shape}")
    coarse = respaced(grid, spacing, shape)
    return coarse, AcquisitionModel(coarse.spacing, stated=True)


def degrade(image: Tensor, grid: Grid, coarse: Grid, model: AcquisitionModel) -> Tensor:
    """Simulate an acquisition of `image` [C, X, Y, Z] on `grid`: [C, X', Y', Z'] on `coarse`, same dtype."""
    return model.corruption(grid, coarse)(image.as_subclass(Tensor).double()).to(image.dtype)
