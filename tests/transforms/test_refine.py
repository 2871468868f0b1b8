"""Pose and bias field are found back where the head itself is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.bias_field import TERMS, LogBiasField, terms
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile, stack_grid
from brgm_med.transforms.refine import moved, refine
from brgm_med.transforms.slices import coronal_stack
from tests.phantom import head, rigid, template

BOX = template().box
MODEL = AcquisitionModel((2.0, 2.0, 6.0), "gaussian", 2)
POSE = rigid(8, -5, 3, (4, -6, 10))


@pytest.fixture(autouse=True)
def fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brgm_med.transforms.refine.SAMPLES", 5000)


def scan_grid() -> Grid:
    affine = POSE @ np.diag([2.0, 2.0, 6.0, 1.0])
    affine[:3, 3] = (POSE @ [-90, -60, -75, 1])[:3]
    return Grid((90, 60, 26), affine)


def test_a_moved_and_shaded_scan_is_found_back() -> None:
    stack = coronal_stack(head(BOX) / 1.0 - 1)
    change = np.asarray([1.5, -1.0, 2.0, 1.2, -0.8, 1.0])
    true = POSE @ moved(change)
    coefficients = np.asarray([0.05, 0.08, -0.04, 0.1, -0.06, 0, 0.03, 0, 0.02, 0])
    grid = scan_grid()
    intensity = oblique_profile(MODEL, grid, stack_grid(BOX), true)(stack.movedim(1, 0).double() + 1)
    measured = (intensity * LogBiasField(coefficients).on(grid, true) - 1).float()
    found = refine(stack, BOX, measured, grid, MODEL, POSE, LogBiasField.none(), 0.05)
    off = np.linalg.inv(true) @ found.pose
    assert np.linalg.norm(off[:3, 3]) < 0.1
    assert np.degrees(np.arccos(np.clip((np.trace(off[:3, :3]) - 1) / 2, -1, 1))) < 0.1
    np.testing.assert_allclose(found.bias_field.coefficients, coefficients, atol=0.01)
    assert found.moved_mm == pytest.approx(np.linalg.norm(change[:3]), abs=0.1)
    assert found.turned_degrees == pytest.approx(np.linalg.norm(change[3:]), abs=0.1)
    assert found.residual[1] < 0.2 * found.residual[0]
    assert found.unidentified == ()
    again = refine(stack, BOX, measured, grid, MODEL, POSE, LogBiasField.none(), 0.05)
    assert np.array_equal(again.pose, found.pose)


def test_a_scan_that_fits_stays_where_it_is() -> None:
    stack = coronal_stack(head(BOX) - 1)
    grid = scan_grid()
    measured = (oblique_profile(MODEL, grid, stack_grid(BOX), POSE)(stack.movedim(1, 0).double())).float()
    found = refine(stack, BOX, measured, grid, MODEL, POSE, LogBiasField.none(), 0.05)
    assert found.moved_mm < 0.01
    assert found.residual[1] <= found.residual[0] < 1e-5


def test_what_the_scan_says_nothing_of_is_named() -> None:
    """With noise a hundred times the head's intensities nothing is identified, and nothing moves."""
    stack = coronal_stack(head(BOX) - 1)
    grid = scan_grid()
    measured = (oblique_profile(MODEL, grid, stack_grid(BOX), POSE)(stack.movedim(1, 0).double())).float()
    found = refine(
        stack, BOX, measured, grid, MODEL, POSE @ moved(np.asarray([1.0, 0, 0, 0, 0, 0])), LogBiasField.none(), 100
    )
    assert len(found.unidentified) == 6 + len(TERMS)
    assert found.moved_mm < 0.5


def test_a_bias_field_is_what_its_polynomials_say() -> None:
    grid = scan_grid()
    bias_field = LogBiasField(np.linspace(-0.1, 0.1, len(TERMS)))
    index = torch.tensor([3.0, 30.0, 20.0], dtype=torch.float64)
    world = torch.from_numpy(np.linalg.inv(POSE) @ grid.affine) @ torch.cat([index, torch.ones(1)])
    expected = (terms(world[:3]) @ torch.from_numpy(bias_field.coefficients)).exp()
    assert float(bias_field.on(grid, POSE)[0, 3, 30, 20]) == pytest.approx(float(expected), rel=1e-6)
    assert bool((LogBiasField.none().on(grid, POSE) == 1).all())
