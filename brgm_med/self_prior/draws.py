"""Random fields that are correlated as the errors of a self prior are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from brgm_med.corruptions import along_axes
from brgm_med.self_prior.error_model import ErrorModel


def roots(model: ErrorModel, shape: Sequence[int], axis: int, voxel: float) -> tuple[Tensor, ...]:
    """R_i of each axis of an image of that `shape`, [n, n] float64: R_i R_i' has a diagonal of 1 and the correlations
    of standardised errors. Slices lie along `axis`; `voxel`: size of the image's voxels, in the planes' pixels."""
    return tuple(root(model.along if a == axis else model.across, n, voxel) for a, n in enumerate(shape))


def root(autocorrelation: Tensor, n: int, voxel: float) -> Tensor:
    """R [n, n] float64, for which R R' is the Toeplitz matrix of `autocorrelation` (at lags of 0, 1, 2 ...; 0 beyond)
    at lags of 0, `voxel`, 2 `voxel` ..., or the nearest to it that has no negative eigenvalue; its diagonal is 1."""
    index = torch.arange(n, dtype=torch.float64)
    lag = (index[:, None] - index).abs() * voxel
    values = torch.cat([autocorrelation.double(), torch.zeros(2, dtype=torch.float64)])
    below = lag.floor().clamp(max=len(values) - 2).long()
    matrix = torch.lerp(values[below], values[below + 1], (lag - below).clamp(max=1))
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    result = vectors * eigenvalues.clamp(min=0).sqrt()
    return result / result.square().sum(1, keepdim=True).sqrt()


def field(factors: Sequence[Tensor], random: torch.Generator) -> Tensor:
    """A Gaussian field of `roots`, [1, X, Y, Z] float32: mean 0, variance 1."""
    white = torch.randn([1, *(len(f) for f in factors)], generator=random)
    return along_axes(white, [f.float() for f in factors])
