"""Every energy is its formula, per image; the search finds what is to be found, and touches nothing else."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brgm_med.corruptions import Downsample
from brgm_med.energies import Colinear, Gaussian, GaussMarkov, Perceptual, Pixel
from brgm_med.networks.discriminator import Discriminator, DiscriminatorFeatures
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.posterior import (
    Posterior,
    Whitened,
    WStatistics,
    brgm_posterior,
    w_statistics,
    whitened_posterior,
)
from brgm_med.search import VOLUME
from brgm_med.solvers import fit_map


class Means:
    """Features that are quadrant means; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def features(self, images: Tensor) -> list[Tensor]:
        self.asked.append(images)
        return [nn.functional.adaptive_avg_pool2d(images, 2)]

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return (a[0] - b[0]).square().flatten(1).sum(1)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    torch.manual_seed(7)
    return StyleGAN2(z_dim=4, w_dim=2, base_shape=(4, 4), channels=(8, 6), mapping_layers=2)


@pytest.fixture(scope="module")
def true_ws(generator: StyleGAN2) -> Tensor:
    return 0.3 * torch.randn(3, generator.num_ws, 2, generator=torch.Generator().manual_seed(6))


def clean(generator: StyleGAN2, ws: Tensor) -> Tensor:
    with torch.no_grad():
        return generator.synthesis(ws)


# Energies.


def test_pixel_is_a_weighted_sum_of_squares_per_image() -> None:
    predicted, measured = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    found = Pixel(0.3)(predicted, measured)
    assert found.shape == (3,)
    for i in range(3):
        expected = 0.3 * ((predicted[i].double() - measured[i].double()) ** 2).sum()
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-5)
    assert Pixel().weight == 0.001


def test_gaussian_is_its_formula() -> None:
    ws, mean = torch.randn(2, 3, 4), torch.randn(4)
    for deviation in (torch.tensor(1.7), torch.rand(4) + 0.5):
        found = Gaussian(mean, deviation, 10.0)(ws)
        each = deviation.expand(4)
        for i in range(2):
            total = sum(((float(ws[i, j, k]) - float(mean[k])) / float(each[k])) ** 2 for j, k in np.ndindex(3, 4))
            assert float(found[i]) == pytest.approx(10 * total, rel=1e-5)
    assert torch.equal(Gaussian(mean, torch.tensor(1.0))(mean.expand(2, 3, 4)), torch.zeros(2))


def test_colinear_is_a_sum_over_pairs() -> None:
    ws = torch.randn(2, 5, 3, dtype=torch.float64)
    found = Colinear(3.0)(ws)
    for i in range(2):
        total = 0.0
        for a in range(5):
            for b in range(a + 1, 5):
                total += 1 - float(ws[i, a] @ ws[i, b] / ws[i, a].norm() / ws[i, b].norm())
        assert float(found[i]) == pytest.approx(3 * total)


def test_colinear_rewards_colinear_and_not_anti_parallel_layers() -> None:
    w = torch.randn(1, 1, 6, dtype=torch.float64)
    lengths = torch.tensor([0.5, 1.0, 3.0, 0.1], dtype=torch.float64)[None, :, None]
    colinear = Colinear(1.0)(w * lengths)
    assert float(colinear) == pytest.approx(0, abs=1e-12)
    opposed = Colinear(1.0)(w * lengths * torch.tensor([1.0, 1.0, -1.0, -1.0])[None, :, None])
    assert float(opposed) == pytest.approx(8)  # 4 of 6 pairs at 1 - cos = 2
    assert float(Colinear(1.0)(torch.cat([w, torch.randn_like(w)], 1))) > 0


def test_gauss_markov_is_the_gaussian_of_a_stack() -> None:
    """Summed over the stack: 1/2 a' T^-1 a for each coordinate, T_ij = rho^|i - j|; without correlation, Gaussian."""
    rho, a = torch.tensor([0.95, 0.4, 0.0], dtype=torch.float64), torch.randn(5, 1, 3, dtype=torch.float64)
    found = GaussMarkov(rho)(a)
    assert found.shape == (5,)
    lag = (torch.arange(5)[:, None] - torch.arange(5)).abs().double()
    expected = 0.0
    for r in range(3):
        covariance = rho[r] ** lag
        expected += 0.5 * float(a[:, 0, r] @ torch.linalg.solve(covariance, a[:, 0, r]))
    assert float(found.sum()) == pytest.approx(expected)
    assert float(found[0]) == pytest.approx(0.5 * float(a[0].square().sum()))
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(GaussMarkov(zero, 0.3)(a), Gaussian(zero, one, 0.3)(a))


def test_perceptual_is_the_distance_and_asks_for_the_measured_features_once() -> None:
    features = Means()
    energy = Perceptual(features, 2.0)
    first, second = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    predicted = torch.randn(2, 1, 4, 4)

    def expected(measured: Tensor) -> Tensor:
        means = Means()
        return 2 * means.distance(means.features(predicted), means.features(measured))

    for measured in (first, first, first, second, first):
        torch.testing.assert_close(energy(predicted, measured), expected(measured))
    assert sum(x is first for x in features.asked) == 2  # once, and again after another took its place
    assert sum(x is second for x in features.asked) == 1
    assert energy(predicted, first.clone()).shape == (2,)


def test_two_perceptual_terms_keep_their_own_features() -> None:
    a, b = Perceptual(Means(), 1.0), Perceptual(Means(), 1.0)
    x, y = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert torch.equal(a(x, y), b(x, y))
    assert torch.equal(a(x, x), torch.zeros(2))
    assert torch.equal(b(x, y), Perceptual(Means(), 1.0)(x, y))


# The posterior.


def test_paper_posterior_has_the_four_terms_and_weights_of_equation_5(generator: StyleGAN2, true_ws: Tensor) -> None:
    measured = clean(generator, true_ws)
    statistics = WStatistics(torch.zeros(2), torch.tensor(1.5))
    posterior = brgm_posterior(generator, nn.Identity(), measured, statistics, Means())
    ws = torch.randn_like(true_ws)
    energies = posterior.energies(ws)
    assert set(energies) == {"Perceptual", "Pixel", "Gaussian", "Colinear"}
    assert all(v.shape == (3,) for v in energies.values())
    image = generator.synthesis(ws)
    torch.testing.assert_close(energies["Pixel"], 0.001 * (image - measured).square().sum((1, 2, 3)))
    torch.testing.assert_close(energies["Gaussian"], 100 * (ws / 1.5).square().sum((1, 2)))
    torch.testing.assert_close(energies["Colinear"], 3 * Colinear(1.0)(ws))
    means = Means()
    torch.testing.assert_close(energies["Perceptual"], means.distance(means.features(image), means.features(measured)))
    assert "Perceptual" not in brgm_posterior(generator, nn.Identity(), measured, statistics, None).energies(ws)


def whitened(generator: StyleGAN2) -> Whitened:
    """Five of the eight directions of W+, each of three images with a mean of its own."""
    random = torch.Generator().manual_seed(8)
    basis = torch.linalg.qr(torch.randn(8, 5, generator=random)).Q
    mean = 0.1 * torch.randn(3, 8, generator=random)
    correlation = torch.tensor([0.9, 0.5, 0.2, 0.0, 0.0])
    return Whitened(generator, mean, basis, torch.tensor([0.8, 0.6, 0.4, 0.3, 0.2]), correlation)


def test_whitened_coordinates_are_the_gaussian_of_their_w(generator: StyleGAN2) -> None:
    """For w = mean + basis (deviation a), |a|^2 is the squared Mahalanobis distance of w."""
    g = whitened(generator)
    assert (g.num_ws, g.w_dim, g.z_dim, g.image_shape) == (1, 5, 4, (8, 8))
    a = torch.randn(3, 1, 5)
    ws = g.ws(a)
    assert ws.shape == (3, 4, 2)
    assert torch.equal(g.synthesis(a), generator.synthesis(ws))
    covariance = (g.basis * g.deviation.square()) @ g.basis.T
    centred = (ws.flatten(1) - g.mean).double()
    distance = ((centred @ torch.linalg.pinv(covariance.double(), rtol=1e-5)) * centred).sum(1)
    torch.testing.assert_close(a.square().sum((1, 2)), distance.float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(g.ws(torch.zeros(3, 1, 5)).flatten(1), g.mean)
    z = torch.randn(3, 4)
    w = generator.broadcast(generator.mapping(z)).flatten(1)
    nearest = g.mean + (w - g.mean) @ g.basis @ g.basis.T  # of what the directions reach
    torch.testing.assert_close(g.ws(g.mapping(z)[:, None]).flatten(1), nearest)


def test_default_posterior_is_gaussian_noise_and_the_prior_of_stacks(generator: StyleGAN2) -> None:
    g = whitened(generator)
    measured = Downsample(2)(clean(generator, g.ws(torch.randn(3, 1, 5))))
    a = torch.randn(3, 1, 5)
    search = dataclasses.replace(VOLUME, misfit=0.2, perceptual_weight=0.1, prior_weight=0.7)
    posterior = whitened_posterior(g, Downsample(2), measured, Means(), search)
    energies = posterior.energies(a)
    assert set(energies) == {"Pixel", "Perceptual", "GaussMarkov"}
    difference = Downsample(2)(generator.synthesis(g.ws(a), noise="none")) - measured
    torch.testing.assert_close(energies["Pixel"], difference.square().sum((1, 2, 3)) / (2 * 0.2**2))
    torch.testing.assert_close(energies["GaussMarkov"], GaussMarkov(g.correlation, 0.7)(a))
    assert isinstance(posterior.likelihood[1], Perceptual)
    assert posterior.likelihood[1].weight == pytest.approx(0.1 * 16)
    alone = whitened_posterior(g, Downsample(2), measured, Means(), dataclasses.replace(VOLUME, perceptual_weight=0.0))
    assert set(alone.energies(a)) == {"Pixel", "GaussMarkov"}


def test_map_recovers_known_whitened_coordinates(generator: StyleGAN2) -> None:
    g = whitened(generator)
    true = torch.randn(3, 1, 5)
    image = clean(generator, g.ws(true))
    search = dataclasses.replace(VOLUME, misfit=1e-3)
    posterior = whitened_posterior(g, nn.Identity(), image, None, search)
    found = fit_map(posterior, torch.zeros(3, 1, 5), steps=150, rate=0.1)
    assert float((found.ws - true).abs().max()) < 0.02
    torch.testing.assert_close(found.image, image, rtol=0, atol=5e-3)


def test_terms_that_share_a_name_are_refused(generator: StyleGAN2) -> None:
    measured = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="Pixel"):
        Posterior(generator, nn.Identity(), measured, (Pixel(1.0), Pixel(2.0)), ())


def test_w_statistics_are_those_of_mapped_samples(generator: StyleGAN2) -> None:
    found = w_statistics(generator, samples=500, seed=3)
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(3))
    w = generator.mapping(z).detach().double().numpy()
    np.testing.assert_allclose(found.mean.numpy(), w.mean(0), atol=1e-6)
    deviation = math.sqrt(((w - w.mean(0)) ** 2).sum(1).mean())
    assert float(found.deviation) == pytest.approx(deviation, rel=1e-5)
    again = w_statistics(generator, samples=500, seed=3)
    assert torch.equal(found.mean, again.mean)
    assert not torch.equal(found.mean, w_statistics(generator, samples=500, seed=4).mean)


def test_w_statistics_of_a_condition() -> None:
    g = StyleGAN2(z_dim=4, w_dim=3, c_dim=2, base_shape=(3, 3), channels=(4, 4), mapping_layers=1)
    a = w_statistics(g, samples=50, c=torch.tensor([[1.0, 0.0]]))
    assert not torch.allclose(a.mean, w_statistics(g, samples=50, c=torch.tensor([[0.0, 1.0]])).mean)


# The search.


@pytest.mark.parametrize("corruption", [nn.Identity(), Downsample(2)])
def test_map_recovers_a_known_w(generator: StyleGAN2, true_ws: Tensor, corruption: nn.Module) -> None:
    image = clean(generator, true_ws)
    posterior = Posterior(generator, corruption, corruption(image), (Pixel(1.0),), ())
    found = fit_map(posterior, torch.zeros_like(true_ws), steps=250, rate=0.1)
    assert found.ws.shape == true_ws.shape
    assert float((found.ws - true_ws).abs().max()) < 5e-3
    torch.testing.assert_close(found.image, image, rtol=0, atol=5e-3)


def test_map_of_a_prior_alone_is_its_mean(generator: StyleGAN2) -> None:
    mean = torch.tensor([0.3, -0.2])
    prior = (Gaussian(mean, torch.tensor(1.0), 1.0), Colinear(1.0))
    posterior = Posterior(generator, nn.Identity(), torch.zeros(1, 1, 8, 8), (), prior)
    found = fit_map(posterior, 0.5 * torch.randn(1, 4, 2), steps=150, rate=0.1)
    torch.testing.assert_close(found.ws, mean.expand(1, 4, 2), rtol=0, atol=1e-2)


def problem(generator: StyleGAN2, measured: Tensor) -> Posterior:
    d = Discriminator(base_shape=(4, 4), channels=(6, 4))
    d.load_state_dict(
        {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) for k, v in d.state_dict().items()}
    )
    likelihood = (Pixel(1.0), Perceptual(DiscriminatorFeatures(d, 1)))
    prior = (Gaussian(torch.zeros(2), torch.tensor(1.5), 0.1), Colinear(0.1))
    return Posterior(generator, nn.Identity(), measured, likelihood, prior)


def test_map_is_deterministic_and_independent_of_batch_mates(generator: StyleGAN2, true_ws: Tensor) -> None:
    image = clean(generator, true_ws)
    start = torch.full_like(true_ws, 0.1)
    found = fit_map(problem(generator, image), start, steps=25)
    torch.manual_seed(99)
    again = fit_map(problem(generator, image), start, steps=25)
    for a, b in ((found.ws, again.ws), (found.image, again.image), (found.history, again.history)):
        assert torch.equal(a, b)
    other = image.clone()
    other[[0, 2]] = 3 * torch.randn(2, 1, 8, 8)
    alone = fit_map(problem(generator, other), start, steps=25)
    assert torch.equal(alone.ws[1], found.ws[1])
    assert torch.equal(alone.image[1], found.image[1])
    assert torch.equal(alone.history[:, 1], found.history[:, 1])
    assert not torch.equal(alone.ws[0], found.ws[0])


def test_the_best_iterate_of_each_image_is_returned(generator: StyleGAN2, true_ws: Tensor) -> None:
    posterior = Posterior(generator, nn.Identity(), clean(generator, true_ws), (Pixel(1.0),), (Colinear(0.1),))
    seen: list[Tensor] = []

    def callback(step: int, energies: dict[str, Tensor]) -> None:
        assert step == len(seen)
        assert set(energies) == {"Pixel", "Colinear"}
        assert not any(v.requires_grad for v in energies.values())
        seen.append(torch.stack(list(energies.values())).sum(0))

    found = fit_map(posterior, torch.zeros_like(true_ws) + 0.05, steps=30, rate=2.0, callback=callback)  # too fast
    assert torch.equal(found.history, torch.stack(seen))
    assert found.history.shape == (30, 3)
    assert bool((found.history[-1] > found.history.min(0).values).any())
    energy = torch.stack(list(posterior.energies(found.ws).values())).sum(0)
    torch.testing.assert_close(energy, found.history.min(0).values)
    torch.testing.assert_close(found.image, generator.synthesis(found.ws))
    assert not found.image.requires_grad


def test_the_best_iterate_of_a_coupled_stack_is_one_iterate(generator: StyleGAN2) -> None:
    """Neighbours from different steps do not fit each other, so what is returned must be one step's stack."""
    g = whitened(generator)
    measured = clean(generator, g.ws(torch.randn(3, 1, 5)))
    posterior = whitened_posterior(g, nn.Identity(), measured, None, dataclasses.replace(VOLUME, misfit=0.3))
    found = fit_map(posterior, torch.zeros(3, 1, 5), steps=40, rate=1.5)
    energy = sum(float(v.sum().detach()) for v in posterior.energies(found.ws).values())
    assert energy == pytest.approx(float(found.history.sum(1).min()), rel=1e-5)
    assert len(set(found.history.argmin(0).tolist())) > 1  # each slice alone would have chosen another step


def test_the_search_ends_once_nothing_falls(generator: StyleGAN2, true_ws: Tensor) -> None:
    posterior = Posterior(generator, nn.Identity(), clean(generator, true_ws), (Pixel(1.0),), ())
    start = torch.zeros_like(true_ws) + 0.05
    assert len(fit_map(posterior, start, steps=60).history) == 60
    early = fit_map(posterior, start, steps=60, tolerance=0.9999).history
    assert len(early) < 60
    assert bool((early[-21] - early[-1] <= 0.9999 * early[-21]).all())
    for step in range(20, len(early) - 1):
        assert not bool((early[step - 20] - early[step] <= 0.9999 * early[step - 20]).all())
    settled = Posterior(generator, nn.Identity(), posterior.measured, (), (Gaussian(torch.zeros(2), torch.ones(1)),))
    assert len(fit_map(settled, torch.zeros_like(true_ws), steps=60, tolerance=1e-3).history) == 21


def test_nothing_but_w_changes(generator: StyleGAN2, true_ws: Tensor) -> None:
    before = copy.deepcopy(generator.state_dict())
    start = torch.zeros(1, 1, 2).expand(true_ws.shape)
    posterior = Posterior(generator, nn.Identity(), clean(generator, true_ws), (Pixel(1.0),), ())
    fit_map(posterior, start, steps=5)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in generator.parameters())
    assert not bool(start.any())
    assert not start.requires_grad


def test_a_frozen_generator_will_do(generator: StyleGAN2, true_ws: Tensor) -> None:
    frozen = copy.deepcopy(generator).eval().requires_grad_(False)
    measured = clean(generator, true_ws)
    start = torch.zeros_like(true_ws)
    a = fit_map(Posterior(frozen, nn.Identity(), measured, (Pixel(1.0),), ()), start, steps=4)
    b = fit_map(Posterior(generator, nn.Identity(), measured, (Pixel(1.0),), ()), start, steps=4)
    assert torch.equal(a.ws, b.ws)


def test_no_steps_give_the_start(generator: StyleGAN2, true_ws: Tensor) -> None:
    posterior = Posterior(generator, nn.Identity(), clean(generator, true_ws), (Pixel(1.0),), ())
    found = fit_map(posterior, true_ws, steps=0)
    assert torch.equal(found.ws, true_ws)
    assert found.history.shape == (0, 3)
