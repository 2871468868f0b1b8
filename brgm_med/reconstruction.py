"""Reconstruction of single slices on a prior's own grid, from any linear measurement of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.consistency import project, stationary_covariance
from brgm_med.energies import Gaussian, Pixel
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.solvers import fit_map

NOISE = 0.04
"""Standard deviation of what the generator leaves unexplained of a measurement, in units of the [-1, 1] range."""

TRUST = 0.6
"""Weight of the generator's MAP, the rest being the linear-Gaussian posterior mean. Their errors differ, so that their
mean is nearer to the truth than either; the MAP alone is the sharper one. Chosen on the choosing heads."""

STEPS, RATE = 50, 0.1
CORRELATION = 0.5
"""Correlation length, in pixels, of the error that the final projection corrects."""


def reconstruct_slices(
    prior: PriorBundle,
    index: Sequence[int],
    corruption: nn.Module,
    measured: Tensor,
    *,
    noise: float = NOISE,
    trust: float = TRUST,
    steps: int = STEPS,
) -> Tensor:
    """The slices [N, 1, H, W] at positions `index` of the prior's box that most probably caused `measured`.

    Normalised as the prior's slices are (air -1, brain 0). `corruption` is a linear module, `measured` [N, ...] what it
    makes of the slices, free of noise: the result gives `measured` back. Every slice is sought on its own: the MAP over
    all latent inputs of the generator, W+ and noise maps, N(0, 1) in whitened coordinates; blended by `trust` with the
    posterior mean of the linear-Gaussian prior of the same training slices; projected onto what was measured.
    Raises ValueError when the corruption is not linear.
    """
    whitened = prior.whitened(measured.device)
    whitened = dataclasses.replace(whitened, mean=whitened.mean[list(index)])
    normal = Gaussian(torch.zeros(whitened.w_dim, device=measured.device), torch.ones(()), 0.5)
    posterior = Posterior(whitened, corruption, measured, (Pixel(0.5 / noise**2),), (normal,), noise="none")
    start = torch.zeros(len(index), 1, whitened.w_dim, device=measured.device)
    image = fit_map(posterior, start, steps=steps, rate=RATE).image
    if trust < 1:
        image = trust * image + (1 - trust) * prior.linear.at(index).estimate(corruption, measured, noise).to(image)
    rows, columns = stationary_covariance(image.shape[2:], CORRELATION).matrices
    assert rows is not None
    assert columns is not None

    def covariance(x: Tensor) -> Tensor:
        return rows.to(x) @ x @ columns.to(x)

    return project(image, corruption, measured, covariance)
