"""Stripped skulls, padding and fill values: they stay what they are, and nothing is made of them."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.pipelines import Reconstruction, Scan, reconstruct_volume
from brgm_med.pipelines.reconstruct.registration import skull_removed
from brgm_med.pipelines.reconstruct.surroundings import taken_out
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.surroundings import surroundings
from tests.phantom import head, inside_brain, template
from tests.spheres import QUICK, SIZE, STEP, scan_of, spheres


@cache
def ball() -> Tensor:
    """[SIZE, SIZE, SIZE / STEP] bool: the samples of an axial scan within a ball, which leave the corners out."""
    index = np.stack(
        np.meshgrid(np.arange(SIZE), np.arange(SIZE), np.arange(SIZE // STEP) * STEP + 1.5, indexing="ij"), -1
    )
    return torch.from_numpy(np.linalg.norm(index - SIZE / 2, axis=-1) < 0.45 * SIZE)


def set_to(level: float, scan: Scan) -> Scan:
    return dataclasses.replace(scan, values=torch.where(ball(), scan.values, level))


def outside() -> Tensor:
    """The voxels of the result that no sample of the ball reaches."""
    return ~ball().repeat_interleave(STEP, 2)


@cache
def result_of(level: float) -> Reconstruction:
    return reconstruct_volume(set_to(level, scan_of(spheres(), 2)), search=QUICK)


@pytest.mark.parametrize("level", [0.0, -1000.0, 9000.0])
def test_surroundings_stay_constant_and_what_was_measured_is_kept(level: float) -> None:
    result = result_of(level)
    assert (result.image[0][outside()] == level).all()
    assert (result.measured[0][outside()] == 0).all()
    (measurement,) = result.measurements
    error = (measurement.operator(result.image) - scan_of(spheres(), 2).values)[0]
    assert error[ball()].abs().max() < 1e-2
    assert not (measurement.inside & ~ball()).any()


@pytest.mark.parametrize("level", [-1000.0, 9000.0])
def test_padding_does_not_ring_into_the_scan(level: float) -> None:
    """Its edge is no edge of the object: the result is that of a scan that goes on beyond it."""
    image, truth = result_of(level).image[0][~outside()], spheres()[0][~outside()]
    assert image.min() > truth.min() - 40
    assert image.max() < truth.max() + 40
    whole = reconstruct_volume(scan_of(spheres(), 2), search=QUICK).image[0][~outside()]
    assert (image - truth).square().mean() < 1.6 * (whole - truth).square().mean()


def test_holes_of_a_stripped_head_are_surroundings_too() -> None:
    scan = set_to(0.0, scan_of(spheres(), 2)).values[0]
    scan[18:22, 18:22, 4:6] = 0
    found = surroundings(scan.numpy())
    assert found is not None
    assert not found.measured[18:22, 18:22, 4:6].any()
    scan[0, 0, 0] = -1  # no magnitudes
    found = surroundings(scan.numpy())
    assert found is None or found.measured[18:22, 18:22, 4:6].all()


def test_spacings_that_a_header_rounded_reach_no_further() -> None:
    scan = set_to(0.0, scan_of(spheres(), 2))
    rounded = scan.grid.affine @ np.diag([1.0, 1.0, 1 - 3e-8, 1.0])
    result = reconstruct_volume(dataclasses.replace(scan, grid=Grid(scan.grid.shape, rounded)), search=QUICK)
    assert (result.image[0][outside()] == 0).all()


def test_it_is_said() -> None:
    lines: list[str] = []
    reconstruct_volume(set_to(-1000.0, scan_of(spheres(), 2)), search=QUICK, message=lines.append)
    assert "a constant of -1000 that reaches its border; taken as outside its field of view" in lines[0]
    assert lines[0].startswith("warning: the scan: ")


def test_another_scan_takes_the_place_of_padding() -> None:
    scans = [set_to(-1000.0, scan_of(spheres(), 2)), scan_of(spheres(), 0)]
    result = reconstruct_volume(scans, search=QUICK)
    there = outside()
    there[:8], there[-8:] = False, False  # the edge of the other's field of view
    there[:, :8], there[:, -8:] = False, False
    there[..., :8], there[..., -8:] = False, False
    error = (result.image - spheres())[0]
    assert error[there].square().mean().sqrt() < 2 * error[~outside()].square().mean().sqrt()


def test_what_is_no_padding() -> None:
    """Air of CT, which tissue reaches down to; a scan that is noise up to its border; a constant patch within."""
    ct = -1000 + 10 * (spheres() - spheres().min())[0]
    ct[:6], ct[-6:] = -1000, -1000
    found = surroundings(ct.numpy())
    assert found is not None
    assert (found.level, found.padding) == (None, 0.0)
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    assert surroundings(noise) is None
    noise[5:15, 5:15, 5:15] = 0
    assert surroundings(noise) is None
    noise[:, :, 0] = -7
    assert surroundings(noise) is not None
    noise[0, :6, 0], noise[1:, :, 0], noise[0, 6:, 0] = -7, 1 + np.arange(380).reshape(19, 20), 500 + np.arange(14)
    assert surroundings(noise) is None
    assert surroundings(noise, stripped=True) is not None


def test_a_head_without_its_skull_is_told_from_one_in_air_that_is_0() -> None:
    model, grid = template(), template().grid
    brain = torch.from_numpy(inside_brain(grid))
    acquisition = AcquisitionModel.from_header(grid)
    for values, removed in ((head(grid) * brain, True), (torch.where(head(grid) > 0.05, head(grid), 0.0), False)):
        scan = taken_out(Scan(values, grid, acquisition), lambda line: None)
        assert scan.surroundings is not None
        assert not scan.padded
        assert skull_removed(scan, np.eye(4), model) == removed
    assert not skull_removed(Scan(head(grid), grid, acquisition), np.eye(4), model)
