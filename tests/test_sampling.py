"""Perturb and optimise: exact where a generator is linear and everything Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from brgm_med.energies import Colinear, Gaussian, GaussMarkov, Pixel
from brgm_med.networks.noise import Noise
from brgm_med.posterior import Posterior
from brgm_med.sampling import chain, perturbed
from brgm_med.solvers import fit_lbfgs

LATENT, SIDE, NOISE = 3, 4, 0.3


@dataclass(frozen=True)
class Linear:
    """G(w) = W w, images of one row."""

    weight: Tensor
    z_dim: int = LATENT
    num_ws: int = 1
    w_dim: int = LATENT
    image_shape: tuple[int, int] = (1, SIDE)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        return (ws[:, 0] @ self.weight.T)[:, None, None]


class Halved(nn.Module):
    """Means of two neighbours."""

    def forward(self, image: Tensor) -> Tensor:
        return image.unflatten(-1, (SIDE // 2, 2)).mean(-1)


def weight() -> Tensor:
    return torch.randn(SIDE, LATENT, generator=torch.Generator().manual_seed(3))


def posterior(measured: Tensor) -> Posterior:
    prior = Gaussian(torch.zeros(LATENT), torch.ones(()), 0.5)
    return Posterior(Linear(weight()), Halved(), measured, (Pixel(0.5 / NOISE**2),), (prior,))


def samples(measured: Tensor, seed: int) -> Tensor:
    """A sample of w for each measurement [N, 1, 1, SIDE / 2], [N, LATENT]."""
    random = torch.Generator().manual_seed(seed)
    noise = NOISE * torch.randn(measured.shape, generator=random)
    offset = torch.randn(len(measured), 1, LATENT, generator=random)
    start = torch.zeros(len(measured), 1, LATENT)
    return fit_lbfgs(perturbed(posterior(measured), noise, offset), start, steps=60).ws[:, 0]


def closed_form(measured: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [LATENT] and covariance of the posterior of w given one measurement."""
    forward = weight().unflatten(0, (SIDE // 2, 2)).mean(1).double()
    covariance = torch.linalg.inv(torch.eye(LATENT, dtype=torch.float64) + forward.T @ forward / NOISE**2)
    return covariance @ forward.T @ measured.flatten().double() / NOISE**2, covariance


def test_samples_have_the_posteriors_mean_and_covariance() -> None:
    one = torch.tensor([0.7, -0.4]).reshape(1, 1, 1, 2)
    drawn = samples(one.expand(4000, 1, 1, 2), seed=0).double()
    mean, covariance = closed_form(one)
    error = covariance.diagonal().sqrt() / 4000**0.5
    assert ((drawn.mean(0) - mean).abs() < 4 * error).all()
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0, atol=0.05 * float(covariance.max()))


def test_ranks_of_the_truth_among_samples_are_uniform() -> None:
    """Simulation-based calibration (Talts et al. 2018): 200 truths drawn from the prior, 19 samples each."""
    random = torch.Generator().manual_seed(5)
    truths = torch.randn(200, LATENT, generator=random)
    clean = Halved()(Linear(weight()).synthesis(truths[:, None]))
    measured = clean + NOISE * torch.randn(clean.shape, generator=random)
    drawn = torch.stack([samples(measured, seed) for seed in range(19)])
    ranks = (drawn < truths).sum(0)
    for dimension in range(LATENT):
        counts = torch.histc(ranks[:, dimension].float(), bins=5, min=-0.5, max=19.5)
        assert float(((counts - 40) ** 2 / 40).sum()) < 18.5  # chi-square of 4 degrees of freedom, p = 0.001


def test_ranks_show_a_spread_that_is_too_small() -> None:
    """The check above can fail: without the perturbation of the prior's mean, samples lie too close together."""
    random = torch.Generator().manual_seed(5)
    truths = torch.randn(200, LATENT, generator=random)
    clean = Halved()(Linear(weight()).synthesis(truths[:, None]))
    measured = clean + NOISE * torch.randn(clean.shape, generator=random)
    nothing = torch.zeros(200, 1, LATENT)
    drawn = []
    for seed in range(19):
        noise = NOISE * torch.randn(measured.shape, generator=torch.Generator().manual_seed(seed))
        drawn.append(fit_lbfgs(perturbed(posterior(measured), noise, nothing), nothing, steps=60).ws[:, 0])
    ranks = (torch.stack(drawn) < truths).sum(0)
    counts = torch.stack([torch.histc(r.float(), bins=5, min=-0.5, max=19.5) for r in ranks.T])
    assert float(((counts - 40) ** 2 / 40).sum(1).max()) > 100


def test_a_chain_has_unit_variance_and_its_correlation() -> None:
    rho = torch.tensor([0.0, 0.5, 0.9])
    drawn = chain(GaussMarkov(rho), 20_000, torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 1, 3)
    torch.testing.assert_close(drawn.square().mean((0, 1)), torch.ones(3), rtol=0.1, atol=0)
    torch.testing.assert_close((drawn[1:] * drawn[:-1]).mean((0, 1)), rho, rtol=0, atol=0.06)


def test_one_prior_is_perturbed() -> None:
    both = (Gaussian(torch.zeros(LATENT), torch.ones(()), 0.5), Colinear(1.0))
    several = Posterior(Linear(weight()), Halved(), torch.zeros(1, 1, 1, 2), (Pixel(1.0),), both)
    with pytest.raises(ValueError, match="one Gaussian prior"):
        perturbed(several, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, LATENT))
