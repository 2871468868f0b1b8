"""The linear-Gaussian prior: its covariance, its mirror symmetry, and the posterior mean in closed form."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from brgm_med.corruptions import AxisBlur, Downsample, Mask, SliceProfile, profile_kernel, profile_matrix
from brgm_med.errors import BrgmError
from brgm_med.gaussian import LinearGaussian, folded, unfolded

ROWS, COLUMNS, RANK = 4, 6, 7
SIZE = ROWS * COLUMNS


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prior(positions: int = 3, nugget: float = 0.2) -> LinearGaussian:
    basis, _ = torch.linalg.qr(randn(SIZE, RANK, seed=1))
    return LinearGaussian(randn(positions, 1, ROWS, COLUMNS, seed=2), basis, torch.linspace(2, 0.5, RANK), nugget)


def dense_covariance(p: LinearGaussian) -> Tensor:
    scaled = p.basis * p.deviation
    return scaled @ scaled.T + p.nugget**2 * torch.eye(len(p.basis)).double()


def mirrored_stacks(heads: int, seed: int = 3) -> Tensor:
    """[heads, 2, 1, H, W]: correlated slices about a mean of their position's own."""
    mixing = randn(SIZE, SIZE, seed=seed) * torch.logspace(0, -2, SIZE).double()
    deviations = randn(heads, 2, SIZE, seed=seed + 1) @ mixing.T
    return (deviations + 3 * randn(1, 2, SIZE, seed=seed + 2)).reshape(heads, 2, 1, ROWS, COLUMNS)


thick = SliceProfile((None, profile_matrix(ROWS, 1.0, 2, 2.0, 2.0), None))
across = nn.Sequential(AxisBlur((profile_kernel(2.0, 6.0), None, None)), Downsample(2))
hidden = torch.rand(3, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(4)) > 0.4


@pytest.mark.parametrize("noise", [0.1, 1.0])
@pytest.mark.parametrize(
    "corruption", [Downsample(2), thick, nn.Identity(), Mask(hidden[0]), Mask(hidden), Mask(hidden[:1]), across]
)
def test_the_estimate_is_the_dense_formula_over_the_whole_stack(corruption: nn.Module, noise: float) -> None:
    """m + C A' (A C A' + noise^2 I)^-1 (y - A m) with dense matrices, whether or not A couples slices."""
    p = prior()
    n = p.mean.numel()
    a = torch.stack([corruption(e.reshape(p.mean.shape)).flatten() for e in torch.eye(n).double()], 1)
    c = torch.block_diag(*[dense_covariance(p)] * len(p.mean))
    y = randn(*corruption(p.mean).shape, seed=5)
    system = a @ c @ a.T + noise**2 * torch.eye(len(a))
    expected = p.mean.flatten() + c @ a.T @ torch.linalg.solve(system, y.flatten() - a @ p.mean.flatten())
    found = p.estimate(corruption, y, noise)
    torch.testing.assert_close(found, expected.reshape(p.mean.shape), atol=2e-6, rtol=0)


def test_the_estimate_is_nearest_in_energy() -> None:
    """It minimises |y - A x|^2 / noise^2 + (x - m)' C^-1 (x - m): the gradient there is 0."""
    p, y = prior(), randn(3, 1, 2, 3, seed=5)
    x = p.estimate(Downsample(2), y, 0.3).requires_grad_(True)
    rest = (x - p.mean).flatten(1)
    energy = (y - Downsample(2)(x)).square().sum() / 0.3**2 + (rest @ dense_covariance(p).inverse() * rest).sum()
    (gradient,) = torch.autograd.grad(energy, x)
    assert float(gradient.abs().max()) < 1e-8


def test_without_noise_the_estimate_is_consistent() -> None:
    p, y = prior(), randn(3, 1, 2, 3, seed=5)
    torch.testing.assert_close(Downsample(2)(p.estimate(Downsample(2), y, 0.0)), y, atol=1e-9, rtol=0)


def test_more_noise_leaves_it_nearer_to_the_mean() -> None:
    p, y = prior(), randn(3, 1, 2, 3, seed=5)
    away = [float((p.estimate(Downsample(2), y, noise) - p.mean).norm()) for noise in (0.0, 0.1, 1.0, 1e4)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 1e-6 * away[0]


def test_one_mean_serves_any_number_of_slices() -> None:
    p, y = prior(positions=1), randn(5, 1, 2, 3, seed=5)
    alone = torch.cat([p.estimate(Downsample(2), one, 0.3) for one in y.split(1)])
    torch.testing.assert_close(p.estimate(Downsample(2), y, 0.3), alone)


def test_the_prior_of_chosen_positions_is_theirs() -> None:
    p, y = prior(), randn(3, 1, 2, 3, seed=5)
    every = p.estimate(Downsample(2), y, 0.3)
    assert torch.equal(p.at([2, 0]).estimate(Downsample(2), y[[2, 0]], 0.3), every[[2, 0]])


def test_an_ill_posed_measurement_is_refused() -> None:
    with pytest.raises(BrgmError, match="state a noise level"):
        prior(nugget=0.0).estimate(nn.Identity(), randn(3, 1, ROWS, COLUMNS), 0.0)


def test_what_is_not_linear_is_refused() -> None:
    with pytest.raises(ValueError, match="not linear"):
        prior().estimate(nn.ReLU(), randn(3, 1, ROWS, COLUMNS), 0.1)


def test_the_covariance_is_its_matrix() -> None:
    p, x = prior(), randn(3, 1, ROWS, COLUMNS, seed=6)
    expected = (x.flatten(1) @ dense_covariance(p)).reshape(x.shape)
    torch.testing.assert_close(p.covariance(x), expected)


def test_samples_have_the_mean_and_are_white_in_the_priors_coordinates() -> None:
    p = dataclasses.replace(prior(positions=1), mean=prior(positions=1).mean.expand(40_000, -1, -1, -1))
    rest = (p.sample(torch.Generator().manual_seed(0)) - p.mean).flatten(1)
    white = rest @ p.basis / (p.deviation.double().square() + p.nugget**2).sqrt()
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(RANK).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(RANK).double(), atol=0.02, rtol=0)
    outside = rest - rest @ p.basis @ p.basis.T
    assert float(outside.square().sum(1).mean()) == pytest.approx(p.nugget**2 * (SIZE - RANK), rel=0.01)


@pytest.mark.parametrize("heads", [4, 60])
def test_all_components_are_the_covariance_of_the_slices_and_their_mirror_images(heads: int) -> None:
    """About the symmetric mean of each position; with fewer slices than pixels, and with more."""
    stacks = mirrored_stacks(heads)
    both = torch.cat([stacks, stacks.flip(4)])
    mean = both.mean(0)
    rest = (both - mean).reshape(-1, SIZE)
    p = LinearGaussian.fit(stacks, SIZE)
    torch.testing.assert_close(p.mean, mean.float())
    torch.testing.assert_close(dense_covariance(p).float(), (rest.T @ rest / len(rest)).float(), atol=3e-5, rtol=1e-4)


def test_a_few_components_are_the_most_probable_model() -> None:
    """Tipping & Bishop: the largest components; the nugget is the root of the mean of the other eigenvalues."""
    stacks = mirrored_stacks(60)
    both = torch.cat([stacks, stacks.flip(4)])
    rest = (both - both.mean(0)).reshape(-1, SIZE)
    values = torch.linalg.eigvalsh(rest.T @ rest / len(rest)).flip(0)
    p = LinearGaussian.fit(stacks, RANK)
    assert p.nugget**2 == pytest.approx(float(values[RANK:].mean()), rel=1e-6)
    torch.testing.assert_close(p.deviation.double().square(), values[:RANK] - values[RANK:].mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(p.basis.T @ p.basis, torch.eye(RANK), atol=1e-6, rtol=0)


def test_a_gaussians_covariance_is_recovered_from_its_samples() -> None:
    """Samples of a mirror-symmetric Gaussian: fitted covariance and mean come near to the true ones."""
    true = LinearGaussian.fit(mirrored_stacks(60), RANK)
    random = torch.Generator().manual_seed(7)
    found = LinearGaussian.fit([true.sample(random) for _ in range(8000)], RANK)
    error = (dense_covariance(found) - dense_covariance(true)).norm() / dense_covariance(true).norm()
    assert float(error) < 0.03
    assert found.nugget == pytest.approx(true.nugget, rel=0.02)
    torch.testing.assert_close(found.mean, true.mean, atol=0.1, rtol=0)


def test_components_are_even_or_odd_and_half_of_them_is_enough() -> None:
    p = LinearGaussian.fit(mirrored_stacks(60), SIZE)
    half, parity = p.half()
    assert half.shape == (SIZE, ROWS, COLUMNS // 2)
    assert int((parity == 1).sum()) == int((parity == -1).sum()) == SIZE // 2
    images = p.basis.T.reshape(SIZE, ROWS, COLUMNS)
    assert torch.equal(images.flip(2), images * parity[:, None, None])
    assert torch.equal(unfolded(half, parity), p.basis)


def test_a_mirrored_measurement_gives_the_mirrored_estimate() -> None:
    p = LinearGaussian.fit(mirrored_stacks(60), RANK)
    y = randn(2, 1, 2, 3, seed=5)
    found, mirrored = (p.estimate(Downsample(2), m, 0.1) for m in (y, y.flip(3)))
    torch.testing.assert_close(mirrored, found.flip(3), atol=1e-5, rtol=0)


def test_folding_keeps_lengths() -> None:
    x = randn(3, 1, ROWS, COLUMNS)
    squares = folded(x, 1).square().sum(1) + folded(x, -1).square().sum(1)
    torch.testing.assert_close(squares, x.square().sum((1, 2, 3)))


def test_what_has_no_symmetry_is_refused() -> None:
    with pytest.raises(ValueError, match="neither even nor odd"):
        prior().half()
    with pytest.raises(ValueError, match="two halves"):
        LinearGaussian.fit(torch.zeros(2, 2, 1, 4, 5), 1)
