"""Geometry as a value: a voxel grid in world space (RAS, millimetres), and resampling between grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from brgm_med.transforms.formats.affine import corners


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid: `shape` (3 ints) and `affine` [4, 4], float64, voxel index -> world RAS mm.

    Index (0, 0, 0) is the centre of the first voxel; the grid's edges lie half a voxel outside it.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @classmethod
    def of(cls, values: Tensor | NDArray[Any], affine: NDArray[np.float64]) -> Grid:
        """The grid of `values` [..., X, Y, Z]."""
        x, y, z = (int(n) for n in values.shape[-3:])
        return cls((x, y, z), affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each index axis, mm."""
        sx, sy, sz = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(sx), float(sy), float(sz)

    def corners(self) -> NDArray[np.float64]:
        """The 8 outer corners (voxel edges, not centres), [8, 3], world mm."""
        return corners(self.affine, self.shape)

    def world_axis(self, axis: int) -> int:
        """The world axis (0 = R, 1 = A, 2 = S) that index axis `axis` runs along most nearly.

        One-to-one over the three axes: the assignment that maximises the sum of the direction cosines.
        """
        cosines = np.abs(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))
        rows, columns = linear_sum_assignment(-cosines.T)
        return int(columns[list(rows).index(axis)])

    def index_axis(self, world: int) -> int:
        """The index axis that runs along world axis `world` (0 = R, 1 = A, 2 = S) most nearly."""
        return next(a for a in range(3) if self.world_axis(a) == world)


def resample(
    image: Tensor,
    source: Grid,
    target: Grid,
    pose: NDArray[np.float64] | None = None,
    mode: str = "bilinear",
    padding: str = "zeros",
) -> Tensor:
    """Sample `image` [C, X, Y, Z] on grid `source` at the voxel centres of `target`; [C, X', Y', Z'].

    `pose` [4, 4] maps the target's world to the source's world (identity when None). `mode` is "bilinear" or
    "nearest"; `padding` is "zeros" or "border": names of torch's grid_sample. Differentiable in `image`.
    """
    to_world = target.affine if pose is None else pose @ target.affine
    matrix = np.linalg.inv(source.affine) @ to_world
    # Voxel index i of n samples is -1 + (2 i + 1) / n in grid_sample's units (align_corners=False).
    i, j, k = (torch.arange(n, dtype=torch.float64) for n in target.shape)
    unit = []
    for row, n in zip(matrix[:3], source.shape, strict=True):
        position = (row[0] * i)[:, None, None] + (row[1] * j)[None, :, None] + (row[2] * k + row[3])[None, None, :]
        unit.append((2 * position + 1) / n - 1)
    grid = torch.stack(unit[::-1], -1).to(image.dtype)[None]
    sampled = torch.nn.functional.grid_sample(
        image[None].contiguous(), grid.to(image.device), mode=mode, padding_mode=padding, align_corners=False
    )
    return sampled[0]
