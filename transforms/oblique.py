"""A scan at any angle to the volume that it is taken of: the acquisition model as a linear map between two grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from brgm_med.corruptions import ObliqueProfile, profile_nodes, profile_reach
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.slices import stack_affine

BEYOND_MM = 4.0


def oblique_profile(
    model: AcquisitionModel,
    scan: Grid,
    source: Grid,
    pose: NDArray[np.float64] | None = None,
    chosen: Tensor | None = None,
    measured: Tensor | None = None,
) -> ObliqueProfile:
    """A: volumes on `source` [C, X, Y, Z] -> the scan's samples [C, X', Y', Z'], those that it covers wholly; else 0.

    `pose` [4, 4] maps the source's world to the scan's (identity when None), and may scale. The profile is sampled at
    points no farther apart than the source's voxels. `chosen` [X', Y', Z'] bool: these samples instead, covered
    or not. `measured` [X', Y', Z'] bool: of those that it covers only these.
    """
    pose = np.eye(4) if pose is None else pose
    to_source = np.linalg.inv(source.affine) @ np.linalg.inv(pose) @ scan.affine
    finest = max(source.spacing) * float(np.cbrt(np.linalg.det(pose[:3, :3])))
    nodes = []
    for axis, (thickness, spacing) in enumerate(zip(model.thickness, scan.spacing, strict=True)):
        places, weights = profile_nodes(thickness, model.profile_along(axis), finest)
        nodes.append((places / spacing, weights))
    shifts = None
    if model.offsets and model.axis is not None:
        shifts = torch.zeros(3, max(scan.shape), dtype=torch.float64)
        shifts[model.axis, : len(model.offsets)] = torch.tensor(model.offsets) / scan.spacing[model.axis]
    if chosen is None:
        chosen = ObliqueProfile(to_source, source.shape, scan.shape, nodes, shifts=shifts).covered()
        chosen = chosen if measured is None else chosen & measured
    return ObliqueProfile(to_source, source.shape, scan.shape, nodes, use=chosen, shifts=shifts)


def acquire_turned(volume: Tensor, grid: Grid, scan: Grid, model: AcquisitionModel) -> Tensor:
    """Simulate a scan of `volume` [C, X, Y, Z] on `grid` at any angle: [C, X', Y', Z'] on `scan`, same dtype.

    Beyond its field of view the volume goes on as at its edge, as far as a slice profile reaches; samples farther out
    are 0.
    """
    reach = max(t * profile_reach(model.profile_along(a)) for a, t in enumerate(model.thickness))
    pad = [math.ceil((reach + BEYOND_MM) / s) for s in grid.spacing]
    around = [p for axis in (2, 1, 0) for p in (pad[axis], pad[axis])]
    wider = torch.nn.functional.pad(volume[None].float(), around, mode="replicate")[0]
    linear, origin = grid.affine[:3, :3], grid.affine[:3, 3]
    affine = make_affine(linear, origin - linear @ np.asarray(pad))
    return oblique_profile(model, scan, Grid.of(wider, affine))(wider).to(volume.dtype)


def stack_grid(box: Grid) -> Grid:
    """The grid of a box's coronal slices as a volume, index (slice, row, column), in the box's world."""
    x, y, z = box.shape
    return Grid((y, z, x), stack_affine(torch.from_numpy(box.affine), z).numpy())


def turned(grid: Grid, degrees: Sequence[float]) -> Grid:
    """`grid` turned about its middle: about world R, then A, then S, by three angles in degrees (right-handed)."""
    rotation, middle = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(), grid.corners().mean(0)
    return Grid(grid.shape, make_affine(rotation, middle - rotation @ middle) @ grid.affine)
