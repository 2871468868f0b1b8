"""A coil's shading: the smooth factor between what a scanner measured and what a head alone would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.transforms.geometry import Grid

REACH_MM = 80.0
"""The polynomials' unit of length: about the head's half width."""

TERMS = ("constant", "R", "A", "S", "RR", "AA", "SS", "RA", "RS", "AS")


@dataclass(frozen=True)
class Shading:
    """exp(sum_k coefficients_k P_k(u)), a log-polynomial of degree 2; u: the place in template space over `REACH_MM`.

    `coefficients` [10] in the order of `TERMS`; all 0 is no shading. It multiplies intensities that are 0 in air.
    """

    coefficients: NDArray[np.float64]

    @classmethod
    def none(cls) -> Shading:
        return cls(np.zeros(len(TERMS)))

    def at(self, places: Tensor) -> Tensor:
        """The factor at places [..., 3], template RAS mm."""
        return (terms(places) @ torch.from_numpy(self.coefficients).to(places)).exp()

    def on(self, grid: Grid, pose: NDArray[np.float64]) -> Tensor:
        """The factor on `grid`, [1, X, Y, Z] float32; `pose` [4, 4] maps template world to the grid's."""
        to_template = torch.from_numpy(np.linalg.inv(pose) @ grid.affine)
        index = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
        whole = torch.empty(grid.shape)
        for i, x in enumerate(index[0]):  # plane by plane, for the memory
            y, z = torch.meshgrid(index[1], index[2], indexing="ij")
            at = torch.stack([torch.full_like(y, float(x)), y, z], -1)
            whole[i] = self.at(at @ to_template[:3, :3].T + to_template[:3, 3])
        return whole[None]


def terms(places: Tensor) -> Tensor:
    """The ten polynomials P_k at places [..., 3] (template RAS mm): [..., 10]."""
    u = places / REACH_MM
    r, a, s = u.unbind(-1)
    return torch.stack([torch.ones_like(r), r, a, s, r * r, a * a, s * s, r * a, r * s, a * s], -1)
