"""The noise of a scan, told from its air or from the scan itself: right for what it knows, and silent otherwise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from brgm_med.noise_level import NoiseLevel, noise_in_air, noise_of_scan


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


PIXELS, SLICES = 128, 12


@cache
def head() -> Tensor:
    """Slices [X, Y, Z] of a disc in air that holds smaller discs and a slow shading, up to 100."""
    x, y = torch.meshgrid(torch.arange(PIXELS) - 63.5, torch.arange(PIXELS) - 63.5, indexing="ij")
    draw = torch.rand(SLICES, 12, 4, generator=torch.Generator().manual_seed(2))
    planes = []
    for discs in draw:
        plane = 60 * (54 - (x.square() + y.square()).sqrt()).clamp(0, 1)
        for a, b, radius, level in discs.tolist():
            distance = ((x - 70 * (a - 0.5)).square() + (y - 70 * (b - 0.5)).square()).sqrt()
            inside = (4 + 8 * radius - distance).clamp(0, 1)
            plane = plane + inside * (40 + 60 * level - plane)
        planes.append(plane * (1 + 0.001 * x))
    return torch.stack(planes, 2)


def magnitude(scan: Tensor, deviation: float) -> Tensor:
    real, imaginary = randn(*scan.shape), randn(*scan.shape, seed=1)
    return ((scan + deviation * real).square() + (deviation * imaginary).square()).sqrt()


def normal(scan: Tensor, deviation: float) -> Tensor:
    return scan + deviation * randn(*scan.shape)


NOISES = {
    "gaussian": normal,
    "rician": magnitude,
    "clipped at 0": lambda scan, deviation: normal(scan, deviation).clamp(min=0),
    "air set to 0": lambda scan, deviation: torch.where(scan > 20, magnitude(scan, deviation), 0.0),
    "half of the air set to 0": lambda scan, deviation: torch.where(
        (scan > 20) | (torch.arange(PIXELS) < 50)[:, None], magnitude(scan, deviation), 0.0
    ),
    "no air": lambda scan, deviation: normal(scan[30:98, 30:98], deviation),
    "8 bits": lambda scan, deviation: normal(scan, deviation).clamp(min=0).round(),
}


@pytest.mark.parametrize("name", list(NOISES))
@pytest.mark.parametrize("deviation", [2.0, 5.0, 10.0])
def test_noise_of_a_scan_is_estimated_without_a_mask(name: str, deviation: float) -> None:
    level = noise_of_scan(NOISES[name](head(), deviation), 2)
    assert level.deviation == pytest.approx(deviation, rel=0.15)
    assert level.kind == ("rician" if name in ("rician", "half of the air set to 0") else "gaussian")


DISTANCE = torch.stack(torch.meshgrid(torch.arange(PIXELS) - 63.5, torch.arange(PIXELS) - 63.5, indexing="ij")).norm(
    dim=0
)
DRAWN = torch.rand(16, 16, generator=torch.Generator().manual_seed(5))
ZEROED = {
    "far from the head": DISTANCE > 60,
    "in squares": (DISTANCE > 54) & (DRAWN < 0.5).repeat_interleave(8, 0).repeat_interleave(8, 1),
    "in most squares": (DISTANCE > 54) & (DRAWN < 0.8).repeat_interleave(8, 0).repeat_interleave(8, 1),
    "in the corners": DISTANCE > 75,
}


@pytest.mark.parametrize("zeroed", list(ZEROED))
@pytest.mark.parametrize("noise", [magnitude, normal, lambda scan, deviation: normal(scan, deviation).clamp(min=0)])
def test_air_that_is_partly_set_to_0_does_not_count(noise: Callable[[Tensor, float], Tensor], zeroed: str) -> None:
    """Neither for the scan as a whole nor for its air alone, which may also say that it cannot be told."""
    scan = noise(head(), 10.0)
    scan[ZEROED[zeroed]] = 0
    assert noise_of_scan(scan, 2).deviation == pytest.approx(10, rel=0.1)
    air = noise_in_air(scan[DISTANCE > 56])
    assert air.kind == "unidentified" or air.deviation == pytest.approx(10, rel=0.1)


def test_thresholded_air_and_single_pixels_of_it_are_not_taken_for_noise() -> None:
    dropped = torch.rand(head().shape, generator=torch.Generator().manual_seed(6)) < 0.5
    for noise in (magnitude, normal):
        scan = noise(head(), 10.0)
        for touched in (scan < 15, dropped & (DISTANCE > 54)[..., None]):
            again = torch.where(touched, 0.0, scan)
            assert noise_of_scan(again, 2).deviation == pytest.approx(10, rel=0.1)
            air = noise_in_air(again[DISTANCE > 56])
            assert air.kind == "unidentified" or air.deviation == pytest.approx(10, rel=0.1)


def test_what_was_not_measured_tells_no_noise() -> None:
    """Such as the nearest values in the place of padding."""
    scan, measured = normal(head(), 10.0), (DISTANCE < 60)[..., None].expand_as(head())
    smooth = torch.where(measured, scan, 3 + 0.01 * head().mean())
    assert noise_of_scan(smooth, 2, measured).deviation == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("name", ["gaussian", "air set to 0", "no air", "8 bits"])
def test_anatomy_is_not_taken_for_noise(name: str) -> None:
    assert noise_of_scan(NOISES[name](head(), 0.0), 2) == NoiseLevel(0.0, "negligible")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_may_lie_along_any_axis(axis: int) -> None:
    scan = normal(head(), 3.0)
    assert noise_of_scan(scan.movedim(2, axis), axis) == noise_of_scan(scan, 2)


def test_interpolated_noise_in_air_is_not_identified() -> None:
    """Zero-filled k-space: half of the frequencies along each in-plane axis were never acquired."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(normal(head(), 5.0).double(), dim=(0, 1)), dim=(0, 1))
    acquired = torch.zeros(PIXELS, PIXELS, 1, dtype=torch.float64)
    acquired[32:96, 32:96] = 1
    smooth = torch.fft.ifft2(torch.fft.ifftshift(spectrum * acquired, dim=(0, 1)), dim=(0, 1)).abs()
    assert noise_of_scan(smooth, 2) == NoiseLevel(0.0, "unidentified")


@pytest.mark.parametrize("scan", [torch.zeros(64, 64, 8), torch.full((64, 64, 8), 7.0), randn(12, 64, 8)])
def test_a_scan_that_tells_nothing_is_unidentified_or_without_noise(scan: Tensor) -> None:
    assert noise_of_scan(scan, 2) == NoiseLevel(0.0, "unidentified")


def test_air_of_few_levels_around_a_constant_is_unidentified() -> None:
    """Two thirds of it 0, the rest of two values: its quartiles coincide."""
    air = torch.cat([torch.zeros(6000), torch.full((2900,), -3.0), torch.full((100,), 5.0)])
    assert noise_in_air(air) == NoiseLevel(0.0, "unidentified")
