"""The error that a self prior has on the scan's own planes: its size, its correlations, fields that are drawn alike."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from brgm_med.self_prior import Acquisition, SelfPrior, ThickScan, learn
from brgm_med.self_prior.draws import field, root, roots
from brgm_med.self_prior.error_model import ErrorModel, autocovariance, fitted
from tests.spheres import STEP, scan_of, spheres


@cache
def model(slope: float = 1.0, offset: float = 0.0, noise: float = 0.0) -> tuple[SelfPrior, Tensor, ErrorModel]:
    """Of the spheres in thick slices: prior, scan, errors."""
    scan = slope * scan_of(spheres(), 2).values[0] + offset
    scan = scan + noise * torch.randn(scan.shape, generator=torch.Generator().manual_seed(0))
    acquisition = Acquisition.of(scan.shape, (1.0, 1.0, float(STEP)), 2)
    (prior,) = learn([ThickScan(scan, acquisition, noise)], iterations=20)
    return prior, scan, ErrorModel.of(prior, scan)


def deviation(slope: float = 1.0, offset: float = 0.0) -> Tensor:
    prior, scan, errors = model(slope, offset)
    return errors.deviation(prior.base(scan), prior.detail(scan), 2, STEP)


def test_the_deviation_is_large_where_errors_are() -> None:
    prior, scan, _ = model()
    error, size = (prior.reconstruct(scan) - spheres()[0]).abs(), deviation()
    assert size.shape == error.shape
    assert (size > 0).all()
    low, high = size.quantile(0.3), size.quantile(0.7)
    assert error[size > high].mean() > 2 * error[size < low].mean()


def test_the_deviation_has_the_units_of_the_scan() -> None:
    torch.testing.assert_close(deviation(3.0, 70.0), 3 * deviation(), rtol=0.05, atol=0.05)


def test_quantiles_rise_with_the_level() -> None:
    errors = model()[2]
    assert 0 < errors.quantile(0.5) < errors.quantile(0.9) < errors.quantile(0.95) < errors.quantile(0.99)
    assert errors.count > 10_000


def test_errors_of_one_slice_cancel_and_neighbours_are_alike() -> None:
    errors = model()[2]
    assert errors.along[0] == errors.across[0] == 1
    assert errors.along.min() < -0.1  # the mean over a slice is measured: no error there
    assert errors.across[1] > 0.2
    assert len(errors.along) == 2 * STEP + 1


def test_noise_of_the_planes_is_no_error_of_the_prior() -> None:
    """The planes are noisy truths: their noise is told apart, and not counted as detail that was missed."""
    noise = 6.0
    clean, noisy = model()[2], model(noise=noise)[2]
    scale = noisy.normalisation.scale
    assert (noisy.rms * scale) ** 2 > (clean.rms * clean.normalisation.scale) ** 2 + 0.3 * noise**2
    prior, scan, _ = model(noise=noise)
    without = noisy.deviation(prior.base(scan), prior.detail(scan), 2, STEP)
    assert without.square().mean() < (noisy.rms * scale) ** 2 - 0.2 * noise**2


def test_weights_of_local_variances_are_fitted() -> None:
    random = torch.Generator().manual_seed(0)
    local = torch.rand(3, 60_000, generator=random) ** 2
    truth = torch.tensor([0.5, 0.0, 2.0])
    uniform = torch.rand(60_000, generator=random) - 0.5
    laplace = -uniform.sign() * (1 - 2 * uniform.abs()).log() / 2**0.5  # of variance 1
    error = laplace * (truth @ local + 0.1).sqrt()
    torch.testing.assert_close(fitted(error, local, torch.full((60_000,), 0.1)), truth, rtol=0.1, atol=0.03)


def test_the_autocovariance_of_a_moving_average() -> None:
    white = torch.randn(4, 200, 300, generator=torch.Generator().manual_seed(0))
    mean = (white[:, :-1] + white[:, 1:]) / 2
    everywhere = torch.ones_like(mean, dtype=torch.bool)
    along = autocovariance(mean, everywhere, 2, 1)
    torch.testing.assert_close(along, torch.tensor([0.5, 0.25, 0.0]), rtol=0, atol=0.01)
    nowhere = torch.zeros_like(everywhere)
    assert autocovariance(mean, nowhere, 2, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("voxel", [1.0, 0.5])
def test_fields_have_the_correlations_of_errors(voxel: float) -> None:
    correlation = torch.tensor([1.0, 0.5, 0.0])
    factor = root(correlation, 12, voxel)
    expected = torch.tensor([1.0, 0.5, 0.0]) if voxel == 1 else torch.tensor([1.0, 0.75, 0.5])
    covariance = factor @ factor.T
    torch.testing.assert_close(covariance[5, 5:8].float(), expected, rtol=0, atol=0.12 if voxel != 1 else 1e-6)
    torch.testing.assert_close(covariance.diagonal(), torch.ones(12, dtype=torch.float64))
    errors = model()[2]
    factors = roots(errors, (20, 30, 40), 2, 1.0)
    drawn = torch.cat([field(factors, torch.Generator().manual_seed(seed)) for seed in range(8)])
    assert drawn.shape == (8, 20, 30, 40)
    torch.testing.assert_close(drawn.square().mean(), torch.ones(()), rtol=0.03, atol=0)
    lag = (drawn[:, :, 1:] * drawn[:, :, :-1]).mean()
    torch.testing.assert_close(lag, errors.across[1], rtol=0, atol=0.08)
