"""Slices that do not fit their neighbours are named, and only these: gains, motion, lost signal, ghosts."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from brgm_med.slice_checks import Stripes, autocorrelation, ghosts, neighbours, one_based

SLICES, SIZE = 24, 80


@cache
def scan() -> Tensor:
    """A textured ball, wider than the slices reach, in air with a little noise, [SIZE, SIZE, SLICES]."""
    random = torch.Generator().manual_seed(0)
    x, y, z = torch.meshgrid(
        torch.arange(SIZE) - SIZE / 2, torch.arange(SIZE) - SIZE / 2, 2.0 * (torch.arange(SLICES) - 12), indexing="ij"
    )
    coarse = torch.rand(1, 1, 12, 12, 6, generator=random)
    texture = torch.nn.functional.interpolate(coarse, (SIZE, SIZE, SLICES), mode="trilinear")[0, 0]
    inside = ((34 - (x**2 + y**2 + 0.3 * z**2).sqrt()) / 2).sigmoid()
    return 100 * inside * (0.6 + texture) + torch.randn(SIZE, SIZE, SLICES, generator=random)


def changed(slices: slice | int, factor: float = 1.0, shift: int = 0, axis: int = 0) -> Tensor:
    values = scan().clone()
    values[..., slices] = factor * values[..., slices].roll(shift, axis)
    return values


def test_nothing_is_named_in_a_scan_as_it_was_made() -> None:
    beside = neighbours(scan(), 2)
    assert beside.outliers == ((), ())
    assert beside.stripes is not None
    assert not beside.stripes.significant
    assert ghosts(scan(), 2) == []


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2])
@pytest.mark.parametrize("number", [6, 13])
def test_a_slice_of_another_brightness_is_named_alone(number: int, factor: float) -> None:
    assert neighbours(changed(number, factor), 2).outliers == ((number,), ())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [2, -2])
def test_a_slice_that_moved_is_named_alone(shift: int, axis: int) -> None:
    beside = neighbours(changed(9, shift=shift, axis=axis), 2)
    assert beside.outliers == ((), (9,))
    assert float(beside.shift[9, axis]) == pytest.approx(shift, abs=0.7)


def test_the_slice_axis_may_be_any() -> None:
    assert neighbours(changed(9, 1.2).permute(2, 0, 1), 0).outliers == ((9,), ())


@pytest.mark.parametrize("gain", [0.05, -0.05, 0.1])
def test_the_gain_of_every_second_slice_is_found_within_a_percent(gain: float) -> None:
    striped = changed(slice(0, None, 2), 1 + gain)
    beside = neighbours(striped, 2)
    assert beside.stripes is not None
    assert beside.stripes.gain == pytest.approx(gain, abs=0.01)
    assert beside.stripes.significant
    assert beside.outliers == ((), ())
    level = neighbours(striped * beside.stripes.factors(SLICES), 2).stripes
    assert level is not None
    assert abs(level.gain) < 0.002
    assert not level.significant


def test_factors_keep_the_mean_of_logarithms() -> None:
    factors = Stripes(0.05, 0.001).factors(4)
    assert float(factors.prod()) == pytest.approx(1)
    assert float(factors[1] / factors[0]) == pytest.approx(1.05)


@pytest.mark.parametrize("part", [2, 3])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ghost_is_named_with_its_strength_and_slices(axis: int, part: int) -> None:
    values = scan() + 0.1 * scan().roll(SIZE // part, axis)
    (ghost,) = [g for g in ghosts(values, 2) if g.part == part]
    assert (ghost.axis, ghost.part) == (axis, part)
    assert ghost.strength == pytest.approx(0.1, abs=0.035)
    assert 12 in ghost.slices


def test_a_ghost_in_a_single_slice_is_not_taken_for_one() -> None:
    values = scan().clone()
    values[..., 12] += 0.1 * values[..., 12].roll(SIZE // 2, 0)
    assert ghosts(values, 2) == []


def test_noise_has_no_autocorrelation_and_structure_has() -> None:
    noise = torch.randn(20, 20, 20, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(20, 20, 20, dtype=torch.bool)
    assert abs(autocorrelation(noise, inside)) < 0.02
    assert autocorrelation(noise.cumsum(0), inside) > 0.2
    inside[10:] = False
    beyond = noise.clone()
    beyond[10:] = 1e6
    assert abs(autocorrelation(beyond, inside)) < 0.03
    assert autocorrelation(torch.zeros(4, 4, 4), torch.ones(4, 4, 4, dtype=torch.bool)) == 0.0


@pytest.mark.parametrize("shape", [(1, 400, 30), (2, 3, 4), (40, 40, 2), (40, 40, 5)])
def test_scans_that_are_too_small_tell_nothing(shape: tuple[int, int, int]) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    beside = neighbours(values, 2)
    assert beside.outliers == ((), ())
    assert beside.stripes is None
    assert ghosts(values, 2) == []


def test_slices_are_counted_from_one() -> None:
    assert one_based((0, 4)) == "1, 5"
    assert one_based(range(20)) == "1, 2, 3, 4, 5, 6 and 14 more"
