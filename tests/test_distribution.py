"""Distances of distributions: closed forms, scipy's matrix root, invariances, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from brgm_med.distribution import frechet_distance, kernel_distance, pooled, precision_recall
from brgm_med.networks.discriminator import Discriminator, DiscriminatorFeatures
from brgm_med.perceptual import LPIPS
from brgm_med.weights import CONVOLUTIONS, lpips_heads


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(samples: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The samples moved so that their own mean and (unbiased) covariance are the given ones."""
    centred = samples - samples.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T))).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def rotation(k: int) -> Tensor:
    return torch.linalg.qr(normal(k, k, seed=9)).Q


# Frechet.


def test_frechet_of_commuting_gaussians_is_the_closed_form() -> None:
    """Covariances R diag(s^2) R^T and R diag(t^2) R^T: |m - m'|^2 + sum (s - t)^2."""
    r, s, t = rotation(4), torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([2.0, 2.0, 1.0, 0.1]).double()
    m, n = normal(1, 4, seed=1)[0], normal(1, 4, seed=2)[0]
    real = exactly(normal(50, 4), m, r @ torch.diag(s**2) @ r.T)
    fake = exactly(normal(30, 4, seed=3), n, r @ torch.diag(t**2) @ r.T)
    expected = float((m - n).square().sum() + (s - t).square().sum())
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(40, 25), (5, 25), (5, 4)])  # K = 8: full rank, one of low rank, both
def test_frechet_agrees_with_scipy(n: int, m: int) -> None:
    real, fake = normal(n, 8) @ normal(8, 8, seed=4), normal(m, 8, seed=5) + 0.3
    c, d = np.cov(real.numpy().T), np.cov(fake.numpy().T)
    half = scipy.linalg.sqrtm(c).real
    root = scipy.linalg.sqrtm(half @ d @ half)  # has the trace of (C D)^(1/2) and, unlike it, a stable root
    if min(n, m) > 8:
        assert np.trace(scipy.linalg.sqrtm(c @ d)) == pytest.approx(np.trace(root).real)
    expected = float((real.mean(0) - fake.mean(0)).square().sum()) + np.trace(c + d) - 2 * np.trace(root).real
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-5)


def test_frechet_of_equal_sets_is_zero_and_of_a_shifted_set_the_shift() -> None:
    x = normal(6, 10)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x[torch.randperm(6)]) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x + 0.5) == pytest.approx(10 * 0.25)


def test_frechet_is_symmetric_and_does_not_turn() -> None:
    x, y, r = normal(9, 6), 2 * normal(20, 6, seed=1), rotation(6)
    found = frechet_distance(x, y)
    assert found > 1
    assert frechet_distance(y, x) == pytest.approx(found)
    assert frechet_distance(x @ r, y @ r) == pytest.approx(found)
    assert frechet_distance(3 * x - 1, 3 * y - 1) == pytest.approx(9 * found)
    assert frechet_distance(x.float(), y.float()) == pytest.approx(found, rel=1e-5)


# Kernel.


def test_kernel_distance_is_its_sum_over_pairs() -> None:
    x, y = normal(4, 3), normal(5, 3, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    expected = sum(k(x[i], x[j]) for i in range(4) for j in range(4) if i != j) / 12
    expected += sum(k(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    expected -= 2 * sum(k(a, b) for a in x for b in y) / 20
    assert kernel_distance(x, y) == pytest.approx(expected)
    assert kernel_distance(y, x) == pytest.approx(expected)
    r = rotation(3)
    assert kernel_distance(x @ r, y @ r) == pytest.approx(expected)


def test_kernel_distance_of_one_distribution_is_zero_on_average_at_any_size() -> None:
    """Unbiased: the mean over many small pairs of sets is 0 within its own error, and it takes both signs."""
    found = torch.tensor([kernel_distance(normal(6, 4, 2 * i), normal(9, 4, 2 * i + 1)) for i in range(400)])
    assert abs(float(found.mean())) < 4 * float(found.std()) / 20
    assert (found > 0).any()
    assert (found < 0).any()


def test_kernel_distance_of_shifted_gaussians_is_the_closed_form() -> None:
    """In one dimension E (x y + 1)^3 = 1 + 3 E[x]E[y] + 3 E[x^2]E[y^2] + E[x^3]E[y^3], so N(0, 1) against N(m, 1)
    has 3 m^2 + 3 m^4 + (m^3 + 3 m)^2."""
    m = 0.7
    expected = 3 * m**2 + 3 * m**4 + (m**3 + 3 * m) ** 2
    found = kernel_distance(normal(1500, 1), normal(1500, 1, seed=1) + m)
    assert found == pytest.approx(expected, rel=0.15)


# Precision and recall.


def test_equal_sets_are_precise_and_covered() -> None:
    x = normal(12, 5)
    assert precision_recall(x, x) == (1.0, 1.0)


def test_sets_far_apart_are_neither() -> None:
    assert precision_recall(normal(20, 5), normal(30, 5, seed=1) + 100) == (0.0, 0.0)


def test_one_mode_of_two_is_precise_but_covers_half() -> None:
    mode, other = normal(20, 3), normal(20, 3, seed=1) + 50
    assert precision_recall(torch.cat([mode, other]), mode[::2]) == pytest.approx((1.0, 0.5), abs=0.2)
    precision, recall = precision_recall(torch.cat([mode, other]), mode)
    assert (precision, recall) == (1.0, 0.5)
    assert precision_recall(mode, torch.cat([mode, other])) == (0.5, 1.0)  # the roles exchanged


def test_the_balls_reach_to_the_kth_neighbour() -> None:
    real = torch.tensor([0.0, 1.0, 3.0, 7.0])[:, None]
    inside, outside = torch.tensor([8.0, 8.1, 8.2, 8.3])[:, None], torch.tensor([12.0, 12.1, 12.2, 12.3])[:, None]
    assert precision_recall(real, inside, k=1)[0] == 1.0  # 7's neighbour is 3: up to 11
    assert precision_recall(real, outside, k=1)[0] == 0.0
    assert precision_recall(real, outside, k=2)[0] == 1.0  # 7's second is 1: up to 13


def test_precision_and_recall_do_not_turn_or_scale() -> None:
    x, y, r = normal(30, 4), 0.7 * normal(40, 4, seed=1), rotation(4)
    found = precision_recall(x, y)
    assert 0 < found[1] < found[0] <= 1
    assert precision_recall(5 * x @ r + 2, 5 * y @ r + 2) == found
    assert precision_recall(y, x) == found[::-1]


# Features.


class Levels:
    """Two levels of known maps."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def features(self, images: Tensor) -> list[Tensor]:
        self.sizes.append(len(images))
        return [torch.cat([images, 2 * images], 1), images[..., ::2, ::2] ** 2]

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        raise AssertionError("not asked for")


def test_pooled_is_the_mean_over_positions_of_every_map() -> None:
    images, features = torch.randn(5, 1, 4, 6, requires_grad=True), Levels()
    found = pooled(features, images, batch=2)
    mean, square = images.mean((2, 3)), (images[..., ::2, ::2] ** 2).mean((2, 3))
    torch.testing.assert_close(found, torch.cat([mean, 2 * mean, square], 1).detach())
    assert not found.requires_grad
    assert features.sizes == [2, 2, 1]


def test_pooled_takes_lpips_and_a_discriminator() -> None:
    spread = {i: 1 / np.sqrt(np.prod(shape[1:])) for i, shape in CONVOLUTIONS["alex"].items()}
    weights = {f"features.{i}.weight": torch.randn(shape) * spread[i] for i, shape in CONVOLUTIONS["alex"].items()}
    weights |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in CONVOLUTIONS["alex"].items()}
    alex = LPIPS("alex", weights, lpips_heads("alex"))
    assert pooled(alex, torch.randn(3, 1, 40, 48)).shape == (3, 64 + 192 + 384 + 256 + 256)
    critic = DiscriminatorFeatures(Discriminator(base_shape=(4, 4), channels=(6, 5, 4), group=4))
    images = torch.randn(6, 1, 16, 16)
    whole = pooled(critic, images)
    assert whole.shape == (6, 5 + 6)
    torch.testing.assert_close(pooled(critic, images, batch=4), whole)  # no image's features depend on the others


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, precision_recall])
def test_what_is_no_pair_of_sets_is_refused(distance: Callable[[Tensor, Tensor], object]) -> None:
    x = normal(8, 3)
    with pytest.raises(ValueError, match=r"\[N, K\] and \[M, K\], not \[8, 3\] and \[8, 2\]"):
        distance(x, x[:, :2])
    with pytest.raises(ValueError, match="not"):
        distance(x[0], x)
    with pytest.raises(ValueError, match="vectors a set, not 8 and 1"):
        distance(x, x[:1])
    with pytest.raises(ValueError, match="not finite"):
        distance(torch.full_like(x, torch.nan), x)


def test_precision_needs_neighbours() -> None:
    with pytest.raises(ValueError, match="at least 4 vectors a set, not 8 and 3"):
        precision_recall(normal(8, 3), normal(3, 3))
    with pytest.raises(ValueError, match="k is at least 1"):
        precision_recall(normal(8, 3), normal(8, 3), k=0)
