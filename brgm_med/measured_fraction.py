"""The measured fraction of each voxel by any linear measurement, where no closed form is at hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from brgm_med.consistency import project

WINDOW = 5


def measured_fraction(
    corruption: nn.Module,
    covariance: Callable[[Tensor], Tensor],
    ratio: float,
    shape: tuple[int, int, int, int],
    seed: int = 0,
) -> tuple[Tensor, float]:
    """[C A' (A C A' + ratio^2 I)^-1 A C]_ii / C_ii of images of `shape` [1, X, Y, Z], about, and its standard error.

    C has unit variance; `ratio` > 0 is that of the noise to the deviation of C. Hutchinson's estimator of a diagonal
    (Bekas et al. 2007): v * (M v) for random signs v, where M v is minus the change of C v by `project` when 0 was
    measured. It is averaged over `WINDOW`^3 voxels, since the fraction changes slowly; the error is that of such an
    average, from the spread inside the windows. Deterministic for a seed.
    """
    v = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    spread = covariance(v)
    nothing = torch.zeros_like(corruption(spread))
    samples = v * (spread - project(spread, corruption, nothing, covariance, ratio, tol=2e-2))
    mean = _averaged(samples)
    within = (_averaged(samples.square()) - mean.square()).clamp(min=0).mean()
    return mean.clamp(0, 1).float(), math.sqrt(float(within) / WINDOW**3)


def _averaged(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool3d(x[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]
