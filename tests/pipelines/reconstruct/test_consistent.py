"""A scan with noise weighed against the prior's error, and the map of what it measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.noise_level import NoiseLevel
from brgm_med.pipelines.reconstruct.consistent import (
    RESIDUAL,
    WEIGHED,
    local_fraction,
    measurement_of,
    ratio_of,
    weighed,
)
from brgm_med.pipelines.reconstruct.measurement import LinearMeasurement, PosedScan
from brgm_med.pipelines.reconstruct.registration import NEGLIGIBLE, error_covariance
from brgm_med.separable import SeparableSystem
from brgm_med.transforms.acquire import fine_grid
from brgm_med.transforms.bias_field import LogBiasField
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import Normalisation
from tests.spheres import scan_of, spheres

NOISE = 5.0


def randn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def noisy() -> tuple[LinearMeasurement, Grid]:
    scan = scan_of(spheres(), 2)
    scan = dataclasses.replace(scan, values=scan.values + NOISE * randn(tuple(scan.values.shape), 0))
    grid = fine_grid(scan.grid, (1.0, 1.0, 1.0))
    return measurement_of(scan, scan.acquisition.corruption(grid, scan.grid), NOISE), grid


def test_the_residual_is_that_of_noise_and_the_work_is_seen() -> None:
    """A guess that is as far from the truth as the error says: the result keeps the scan up to its noise, and is
    nearer to the truth."""
    measurement, grid = noisy()
    covariance = error_covariance(grid, 3.0)
    guess = spheres() + 20 * covariance(randn(tuple(spheres().shape), 1).double()).float() / 15
    seen: list[tuple[str, int, int]] = []

    @contextmanager
    def phases(name: str, total: int) -> Iterator[Callable[[str], None]]:
        notes: list[str] = []
        yield notes.append
        seen.append((name, total, len(notes)))

    image, size = weighed(guess, measurement, torch.full_like(guess, 20.0), covariance, phases)
    residual = (measurement.operator(image.double()) - measurement.values).square().mean().sqrt() / NOISE
    assert RESIDUAL[0] < residual < RESIDUAL[1]
    assert (image - spheres()).square().mean() < 0.7 * (guess - spheres()).square().mean()
    assert size.min() == size.max() <= 20
    ((name, total, steps),) = seen
    assert name == "weighing the scan against its noise"
    assert 1 < steps <= total == WEIGHED


def test_the_measured_fraction_does_not_jump_where_noise_begins_to_be_told() -> None:
    """Nor where the prior's error is nothing: it falls from that without noise."""
    scan = scan_of(spheres(), 2)
    _, grid = noisy()
    system = SeparableSystem.of(scan.acquisition.corruption(grid, scan.grid), error_covariance(grid), grid.shape)
    used = torch.ones(scan.grid.shape, dtype=torch.bool)
    scale = Normalisation(0.0, 1000.0)
    posed = PosedScan(scan, np.eye(4), scale, NoiseLevel(1.0, "gaussian"), LogBiasField.none(), used)
    exact = float(system.measured_fraction(0.0).mean())
    least = NEGLIGIBLE * 1000
    for size in (0.0, 5.0):
        sizes = torch.full((1, *grid.shape), size)
        fractions = [
            float(local_fraction(system, ratio_of(deviation, sizes, posed)).mean())
            for deviation in (0.0, least, 1.001 * least, 1.5 * least, 3 * least, 10 * least)
        ]
        assert fractions[0] == fractions[1] == pytest.approx(exact, rel=0.02)
        assert fractions[2] == pytest.approx(exact, rel=0.02)
        assert fractions == sorted(fractions, reverse=True)
        assert fractions[-1] < fractions[0]
