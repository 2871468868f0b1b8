"""The noise of a scan, told from its air: right within a few per cent for what it knows, and silent otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brgm_med.noise_level import noise_in_air


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("deviation", [0.5, 20.0])
def test_gaussian_noise_is_found(deviation: float) -> None:
    found = noise_in_air(7 + deviation * randn(200_000))
    assert found.kind == "gaussian"
    assert found.deviation == pytest.approx(deviation, rel=0.01)


def test_magnitudes_are_told_by_their_distribution() -> None:
    """The magnitude of complex noise, each part of deviation 5, is Rayleigh-distributed in air."""
    found = noise_in_air((5 * torch.complex(randn(200_000), randn(200_000, seed=1))).abs())
    assert found.kind == "rician"
    assert found.deviation == pytest.approx(5, rel=0.01)


def test_some_signal_in_the_air_hardly_counts() -> None:
    values = 5 * randn(100_000)
    values[:5000] += 300
    assert noise_in_air(values).deviation == pytest.approx(5, rel=0.1)


def test_what_cannot_be_told_is_not() -> None:
    for air in (torch.zeros(10_000), torch.full((10_000,), 3.0), randn(499)):
        found = noise_in_air(air)
        assert (found.deviation, found.kind) == (0.0, "unidentified")


def test_the_order_and_shape_of_the_values_do_not_matter() -> None:
    values = randn(30, 40, 50)
    assert noise_in_air(values) == noise_in_air(values.flatten().flip(0))
