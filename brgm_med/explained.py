"""What any linear measurement explains of each voxel, where no closed form is at hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from brgm_med.consistency import project

WINDOW = 5


def explained_estimate(
    corruption: nn.Module,
    covariance: Callable[[Tensor], Tensor],
    noise: float,
    shape: tuple[int, int, int, int],
    seed: int = 0,
) -> tuple[Tensor, float]:
    """[C A' (A C A' + noise^2 I)^-1 A C]_ii / C_ii of images of `shape` [1, X, Y, Z], about, and its standard error.

    C has unit variance, noise > 0. Hutchinson's estimator of a diagonal (Bekas et al. 2007): v * (M v) for random signs
    v, where M v is minus what `project` adds to C v when nothing was measured. It is averaged over `WINDOW`^3 voxels,
    since the part explained changes slowly; the error is that of such an average, from the spread inside the windows.
    Deterministic for a seed.
    """
    v = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    spread = covariance(v)
    nothing = torch.zeros_like(corruption(spread))
    found = v * (spread - project(spread, corruption, nothing, covariance, noise, tol=2e-2))
    mean = _averaged(found)
    within = (_averaged(found.square()) - mean.square()).clamp(min=0).mean()
    return mean.clamp(0, 1).float(), math.sqrt(float(within) / WINDOW**3)


def _averaged(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool3d(x[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]
