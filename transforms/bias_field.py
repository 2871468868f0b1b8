"""The bias field of a coil: the smooth factor between a scan's intensities and those of the head alone."""

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
class LogBiasField:
    """exp(sum_k coefficients_k P_k(u)), a log-polynomial of degree 2; u: position in template space over `REACH_MM`.

    `coefficients` [10] in the order of `TERMS`; all 0 is no bias. It multiplies intensities that are 0 in air.
    """

    coefficients: NDArray[np.float64]

    @classmethod
    def none(cls) -> LogBiasField:
        return cls(np.zeros(len(TERMS)))

    def at(self, positions: Tensor) -> Tensor:
        """The factor at positions [..., 3], template RAS mm."""
        return (terms(positions) @ torch.from_numpy(self.coefficients).to(positions)).exp()

    def on(self, grid: Grid, pose: NDArray[np.float64]) -> Tensor:
        """The factor on `grid`, [1, X, Y, Z] float32; `pose` [4, 4] maps template world to the grid's."""
        to_template = torch.from_numpy(np.linalg.inv(pose) @ grid.affine)
        index = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
        y, z = torch.meshgrid(index[1], index[2], indexing="ij")
        planes = (torch.stack([torch.full_like(y, float(x)), y, z], -1) for x in index[0])  # one by one, for the memory
        return torch.stack([self.at(p @ to_template[:3, :3].T + to_template[:3, 3]).float() for p in planes])[None]


def terms(positions: Tensor) -> Tensor:
    """The ten polynomials P_k at positions [..., 3] (template RAS mm): [..., 10]."""
    u = positions / REACH_MM
    r, a, s = u.unbind(-1)
    return torch.stack([torch.ones_like(r), r, a, s, r * r, a * a, s * s, r * a, r * s, a * s], -1)
