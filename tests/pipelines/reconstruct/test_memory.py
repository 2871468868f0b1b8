"""A reconstruction that would not fit into memory is refused before it begins, with the number."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import numpy as np
import pytest

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines import reconstruct_volume
from brgm_med.pipelines.reconstruct.memory import MOST, estimate, free
from brgm_med.priors.bundle import load
from brgm_med.transforms.geometry import Grid
from tests.spheres import QUICK, scan_of, spheres


def unreachable(name: str, steps: int) -> NoReturn:
    raise AssertionError(name)


def test_a_grid_that_is_too_fine_is_refused() -> None:
    with pytest.raises(InputRefusedError, match=r"the scan: a result of 4000 x 4000 x 4000 voxels of 0\.01 mm .* GB"):
        reconstruct_volume(scan_of(spheres(), 2), spacing=0.01, phases=unreachable)


def test_voxels_of_50_mm_in_a_small_file_are_refused_where_a_prior_is_finer() -> None:
    scan = scan_of(spheres(), 2)
    large = dataclasses.replace(scan, grid=Grid(scan.grid.shape, scan.grid.affine @ np.diag([50.0, 50.0, 50.0, 1.0])))
    with pytest.raises(InputRefusedError, match="--max-memory"):
        reconstruct_volume(large, load(), phases=unreachable)


def test_a_limit_that_is_stated_holds() -> None:
    scan = scan_of(spheres(), 2)
    with pytest.raises(InputRefusedError, match=r"would take about 1\.2. GB of memory, and 1 GB are allowed"):
        reconstruct_volume(scan, max_memory=1e9, phases=unreachable)
    assert reconstruct_volume(scan, max_memory=1.3e9, search=QUICK).image.shape == spheres().shape


def test_the_estimate_grows_with_grid_scans_and_prior() -> None:
    scan, grid = scan_of(spheres(), 2), Grid((400, 400, 300), np.eye(4))
    alone = estimate([scan], grid, False)
    assert 5e9 < alone < 8e9
    assert estimate([scan], grid, True) > alone + 1e8
    assert estimate([scan, scan], grid, False) > 2 * alone
    assert MOST * free() > 0
