"""One axis of an image as thick slices sample it: acquisition, base reconstruction, null space, sub-slice phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from brgm_med.corruptions import Profile, profile_matrix
from brgm_med.corruptions.profile import profile_kernel

COSINES = 8
"""Coefficients of the cosine series that describes an image over the width of one slice."""


def cubic_matrix(slices: int, positions: Tensor) -> Tensor:
    """Cubic B-spline interpolation as a matrix, [len(positions), slices] float64, the image mirrored at its edges.

    `positions` [n]: where to interpolate, in slices, slice i being centred at i + 1/2. The spline passes through the
    samples (Unser et al. 1993). Mirrored about the outer edges of the first and last slice.
    """

    def weights(at: Tensor) -> Tensor:
        first = at.floor().long() - 1
        t = (at - at.floor())[:, None]
        pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        matrix = torch.zeros(len(at), slices, dtype=torch.float64)
        for offset, piece in enumerate(pieces):
            index = (first + offset) % (2 * slices)
            index = torch.where(index >= slices, 2 * slices - 1 - index, index)
            matrix.scatter_add_(1, index[:, None], piece / 6)
        return matrix

    centres = torch.arange(slices, dtype=torch.float64)
    return torch.linalg.solve(weights(centres), weights(positions.double() - 0.5), left=False)


@dataclass(frozen=True)
class ThickAxis:
    """`thin` pixels that are seen as `slices` slices, the first edges of both together.

    `step`: spacing of the slices, `thickness`: width of their profile (full width at half maximum), both in pixels and
    real numbers; thickness below step is a gap, above it an overlap.
    """

    thin: int
    slices: int
    step: float
    thickness: float
    profile: Profile = "box"

    @classmethod
    def inside(cls, pixels: int, step: float, thickness: float, profile: Profile) -> ThickAxis:
        """As many whole slices as `pixels` pixels hold, and the pixels that they cover."""
        slices = max(1, math.floor(pixels / step + 1e-6))
        return cls(min(pixels, math.ceil(slices * step - 1e-6)), slices, step, thickness, profile)

    @cached_property
    def matrix(self) -> Tensor:
        """A, the acquisition, [slices, thin] float64."""
        return profile_matrix(self.thin, 1.0, self.slices, self.step, self.thickness, self.profile)

    @cached_property
    def inverse(self) -> Tensor:
        """A' (A A')^-1, [thin, slices] float64."""
        return torch.linalg.solve(self.matrix @ self.matrix.T, self.matrix).T.contiguous()

    @cached_property
    def base(self) -> Tensor:
        """Cubic interpolation made consistent, C + A' (A A')^-1 (I - A C), [thin, slices] float64."""
        cubic = cubic_matrix(self.slices, (torch.arange(self.thin, dtype=torch.float64) + 0.5) / self.step)
        return cubic + self.inverse @ (torch.eye(self.slices, dtype=torch.float64) - self.matrix @ cubic)

    @cached_property
    def null(self) -> Tensor:
        """I - A' (A A')^-1 A, [thin, thin] float64: the part of an image that the slices do not see."""
        return torch.eye(self.thin, dtype=torch.float64) - self.inverse @ self.matrix

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the profile in units of that of a box as wide as the step."""
        kernel = profile_kernel(self.thickness / 64, self.thickness, self.profile)
        offsets = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
        return float((kernel @ offsets.square()).sqrt()) * self.thickness / 64 / self.step * math.sqrt(12)

    @cached_property
    def _phases(self) -> tuple[Tensor, Tensor]:
        """Cosines [slices, rows, COSINES] at the pixels of each slice, and each pixel's row in them, [thin]."""
        position = (torch.arange(self.thin, dtype=torch.float64) + 0.5) / self.step
        index = position.floor().long().clamp(max=self.slices - 1)
        phase = (position - index).clamp(max=1.0)
        counts = torch.bincount(index, minlength=self.slices)
        row = torch.arange(self.thin) - (counts.cumsum(0) - counts)[index]
        rows = int(counts.max())
        basis = torch.zeros(self.slices, rows, COSINES)
        basis[index, row] = torch.cos(math.pi * phase[:, None] * torch.arange(COSINES)).float()
        return basis, index * rows + row

    def expand(self, coefficients: Tensor) -> Tensor:
        """Cosine series over the slices' width [N, COSINES, slices, U] -> their values at the pixels, [N, thin, U]."""
        basis, pixels = self._phases
        values = torch.einsum("irk,nkiu->niru", basis.to(coefficients), coefficients)
        return values.flatten(1, 2).index_select(1, pixels.to(values.device))
