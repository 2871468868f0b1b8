"""Slices are examined along their own axis; contradictions are clauses for a person, and numbers for a file."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import along, profile_matrix
from brgm_med.slice_checks import Stripes
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.examine import examine, levelled
from brgm_med.transforms.geometry import Grid
from tests.textures import texture

SIZE, STEP = 96, 4.0
GRID = Grid((SIZE, SIZE, SIZE // 4), np.diag([1.0, 1.0, STEP, 1.0]))


@cache
def scan() -> Tensor:
    """An isotropic texture of 1 mm in Gaussian slices of 7 mm every 4 mm, which overlap."""
    return along(texture(SIZE), profile_matrix(SIZE, 1.0, SIZE // 4, STEP, 7.0, "gaussian"), 2)


def model(thickness: float) -> AcquisitionModel:
    return AcquisitionModel((1.0, 1.0, thickness), "gaussian", 2, True)


def test_a_true_statement_is_not_contradicted() -> None:
    examination = examine(scan(), GRID, model(7.0))
    assert examination is not None
    assert examination.clauses(True) == []
    assert examination.identified is not None


def test_a_false_one_is_with_both_numbers() -> None:
    examination = examine(scan(), GRID, model(STEP))
    assert examination is not None
    (clause,) = examination.clauses(True)
    assert clause.startswith("stated 4 mm thick, its slices look like 7")
    assert "--slice-thickness estimate" in clause
    assert examination.clauses(False)[0].startswith("assumed 4 mm")


def test_stripes_odd_slices_and_ghosts_are_named_with_their_slices() -> None:
    values = scan().clone()
    values[..., 1::2] *= 1.06
    values[..., 9] *= 0.7
    examination = examine(values, GRID, model(7.0))
    assert examination is not None
    clauses = examination.clauses(True)
    assert any(clause.startswith("its even-numbered slices are 6.") for clause in clauses)
    assert any(clause.startswith("slice 10 is of another brightness than its neighbours: motion") for clause in clauses)
    record = examination.record()
    assert record["other_brightness"] == [9]
    assert record["even_odd_gain"] == pytest.approx(1 / 1.06 - 1, abs=0.01)
    assert json.loads(json.dumps(record)) == record


def test_what_one_scan_does_not_tell_is_in_the_record() -> None:
    examination = examine(scan(), GRID, AcquisitionModel((1.0, 1.0, STEP), "box", 2, True))
    assert examination is not None
    unknown = examination.record()["not_identified"]
    assert "position of the slices along their axis" in unknown
    assert ("width of their profile" in unknown) == (examination.identified is None)


def test_a_grid_without_slices_is_not_examined() -> None:
    grid = Grid((30, 30, 30), np.eye(4))
    assert examine(torch.rand(30, 30, 30), grid, AcquisitionModel.from_header(grid)) is None
    assert examine(torch.full((96, 96, 24), torch.nan), GRID, model(4.0)) is None


@pytest.mark.parametrize("axis", [0, 2])
def test_levelled_slices_are_of_one_level(axis: int) -> None:
    values = torch.ones(4, 4, 4)
    values.movedim(axis, 0)[0::2] *= 1.05
    level = levelled(values, axis, Stripes(0.05, 0.001))
    assert float(level.max() - level.min()) < 1e-6
