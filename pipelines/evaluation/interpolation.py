"""Interpolation between the samples of a `SliceProfile`, axis by axis, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from brgm_med.corruptions import SliceProfile, along
from brgm_med.corruptions import sampling as kernels
from brgm_med.errors import UsageError
from brgm_med.pipelines.evaluation.setting import Method, Setting

Kernel = Literal["nearest", "cubic", "lanczos"]


def interpolation_matrix(positions: Tensor, targets: Tensor, kernel: Kernel) -> Tensor:
    """Weights [n, m] of evenly spaced samples at `positions` [m] for values at `targets` [n]: float64, rows sum to 1.

    "cubic": Keys 1981, a = -1/2; "lanczos": three lobes, normalised. The first and last sample are repeated outside.
    """
    count, step = len(positions), float(positions[-1] - positions[0]) / max(1, len(positions) - 1) or 1.0
    u = ((targets - positions[0]) / step).double()
    weights = torch.zeros(len(u), count, dtype=torch.float64)
    if kernel == "nearest":
        nearest = (u - 1e-9).round().long().clamp(0, count - 1)
        return weights.scatter_(1, nearest[:, None], 1.0)
    reach = 3 if kernel == "lanczos" else 2
    taps = u.floor().long()[:, None] + torch.arange(1 - reach, reach + 1)
    values = (kernels.lanczos if kernel == "lanczos" else kernels.keys_cubic)(u[:, None] - taps)
    return weights.scatter_add_(1, taps.clamp(0, count - 1), values / values.sum(1, keepdim=True))


def sample_positions(matrix: Tensor) -> Tensor:
    """Centres of the samples of an acquisition matrix [m, n], in pixels of the image: [m]."""
    return matrix @ torch.arange(matrix.shape[1], dtype=matrix.dtype)


def resampled(y: Tensor, corruption: nn.Module, targets: tuple[Tensor | None, Tensor | None], kernel: Kernel) -> Tensor:
    """y [N, C, h, w], what a `SliceProfile` measured, at `targets` (pixels of the image) along rows and columns; an
    axis without (None), or that was measured as it is, stays. Raises UsageError for another corruption."""
    if not isinstance(corruption, SliceProfile) or corruption.matrices[0] is not None:
        raise UsageError(f"{kernel}: interpolates averages along rows and columns; for a hole name another method")
    for axis, (matrix, wanted) in enumerate(zip(corruption.matrices[1:], targets, strict=True)):
        if matrix is not None and wanted is not None:
            y = along(y, interpolation_matrix(sample_positions(matrix), wanted, kernel), axis - 2)
    return y


def interpolated(y: Tensor, corruption: nn.Module, shape: tuple[int, ...], kernel: Kernel) -> Tensor:
    """y at every pixel of images of `shape` (..., rows, columns). Raises as `resampled`."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in shape[-2:])
    return resampled(y, corruption, (rows, columns), kernel)


def _method(kernel: Kernel) -> Callable[[Setting], Method]:
    return lambda setting: lambda y, corruption: interpolated(y, corruption, setting.shape, kernel)


nearest, cubic, lanczos = _method("nearest"), _method("cubic"), _method("lanczos")
