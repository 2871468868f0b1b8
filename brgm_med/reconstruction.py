"""Reconstruction of single slices on a prior's own grid, from any linear measurement of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Mask, SliceProfile
from brgm_med.energies import Gaussian, Pixel
from brgm_med.posterior import Posterior, Whitened
from brgm_med.priors.bundle import PriorBundle
from brgm_med.seams import blend_seamless
from brgm_med.separable import stationary_covariance
from brgm_med.solvers import fit_lbfgs

NOISE = 0.08
"""Standard deviation of what the generator leaves unexplained of a measurement, in units of the [-1, 1] range."""

TRUST = 0.7
"""Weight of the generator's MAP, the rest being the linear-Gaussian posterior mean. Their errors differ, so that their
mean is nearer to the truth than either; the MAP alone is the sharper one. Chosen on the choosing heads."""

STEPS = 25
TOLERANCE = 2e-3
"""Steps at most, and the relative fall of the energy below which a slice is settled. Steps: on the choosing heads."""

CORRELATION = 0.5
"""Correlation length, in pixels, of the error that the final projection corrects."""

HOLE = 0.3
"""`NOISE` beside a hole: neighbouring pixels err alike, so that all of them together tell less. On three choosing
heads, of 0.08 to 0.8."""

ERROR = 0.2
"""Its standard deviation, against which a measurement's noise is weighed: what is left on the choosing heads."""


def slices_posterior(
    prior: PriorBundle, index: Sequence[int], corruption: nn.Module, measured: Tensor, noise: float = NOISE
) -> tuple[Posterior, Whitened]:
    """The posterior of every slice on its own, and its generator: whitened, with the means at positions `index`.

    Arguments as those of `reconstruct_slices`; `corruption` need not be linear.
    """
    whitened = prior.whitened(measured.device)
    whitened = dataclasses.replace(whitened, mean=whitened.mean[list(index)])
    normal = Gaussian(torch.zeros(whitened.w_dim, device=measured.device), torch.ones(()), 0.5)
    return Posterior(whitened, corruption, measured, (Pixel(0.5 / noise**2),), (normal,), noise="none"), whitened


def map_slices(
    prior: PriorBundle,
    index: Sequence[int],
    corruption: nn.Module,
    measured: Tensor,
    *,
    noise: float = NOISE,
    steps: int = STEPS,
) -> Tensor:
    """G at the MAP of all its latent inputs, W+ and noise maps, N(0, 1) in whitened coordinates: [N, 1, H, W].

    Arguments as those of `reconstruct_slices`; `corruption` need not be linear. Every slice is sought on its own.
    """
    posterior, whitened = slices_posterior(prior, index, corruption, measured, noise)
    start = torch.zeros(len(measured), 1, whitened.w_dim, device=measured.device)
    return fit_lbfgs(posterior, start, steps=steps, curvature=whitened.curvature, tolerance=TOLERANCE).image


def consistent(image: Tensor, corruption: nn.Module, measured: Tensor, deviation: float = 0.0) -> Tensor:
    """The most probable correction of `image` that gives back `measured`, for errors that are correlated over
    `CORRELATION` pixels; up to noise of that standard `deviation`. Of a `Mask` [H, W], the known pixels stay and the
    image meets them in the gradient domain (`seams.blend_seamless`). Raises ValueError for one that is not linear.
    """
    if isinstance(corruption, Mask):
        return blend_seamless(measured, image, ~corruption.mask)
    covariance = stationary_covariance(image.shape[1:], [0, CORRELATION, CORRELATION])
    if isinstance(corruption, SliceProfile):
        return project(image, corruption, measured, covariance, deviation / ERROR)
    _, rows, columns = covariance.matrices
    assert rows is not None
    assert columns is not None
    return project(image, corruption, measured, lambda x: rows.to(x) @ x @ columns.to(x), deviation / ERROR)


def reconstruct_slices(
    prior: PriorBundle,
    index: Sequence[int],
    corruption: nn.Module,
    measured: Tensor,
    *,
    noise: float | None = None,
    trust: float = TRUST,
    steps: int = STEPS,
    deviation: float = 0.0,
) -> Tensor:
    """The slices [N, 1, H, W] at positions `index` of the prior's box that most probably caused `measured`.

    Normalised as the prior's slices are (air -1, brain 0). `corruption` is a linear module, `measured` [N, ...] what it
    makes of the slices: the result gives it back, up to noise of that standard `deviation` in these units. The
    generator's MAP is blended, by `trust`, with the posterior mean of the linear-Gaussian prior of the same training
    slices, and the blend is projected onto what was measured. `noise`: standard deviation of what the priors leave
    unexplained of a measurement (default: `NOISE`, or `HOLE` for a `Mask` [H, W] of known pixels). Raises
    ValueError when the corruption is not linear.
    """
    noise = unexplained(corruption, deviation) if noise is None else math.hypot(noise, deviation)
    image = map_slices(prior, index, corruption, measured, noise=noise, steps=steps)
    if trust < 1:
        image = trust * image + (1 - trust) * linear_mean(prior, index, corruption, measured, noise).to(image)
    return consistent(image, corruption, measured, deviation)


def unexplained(corruption: nn.Module, deviation: float = 0.0) -> float:
    """The standard deviation, noise of that `deviation` included, that a measurement has around what the priors say."""
    return math.hypot(HOLE if isinstance(corruption, Mask) else NOISE, deviation)


def linear_mean(
    prior: PriorBundle, index: Sequence[int], corruption: nn.Module, measured: Tensor, noise: float
) -> Tensor:
    """The posterior mean of the linear-Gaussian prior of the same slices. Arguments as `reconstruct_slices`."""
    linear = prior.linear.at(list(index))
    if isinstance(corruption, Mask):
        return linear.fill(corruption.mask, measured, noise)
    return linear.estimate(corruption, measured, noise)
