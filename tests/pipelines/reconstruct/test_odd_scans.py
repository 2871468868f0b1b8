"""Scans that nobody expects: noise above the signal, mirrored axes, CT, no overlap, a thousand slices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines import Reconstruction, Scan, reconstruct_volume
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from tests.spheres import SIZE, STEP, scan_of, spheres

ONCE = VOLUME.limited_to(1)


def largest_residual(result: Reconstruction) -> float:
    first = result.measurements[0]
    return float((first.operator(result.image.double()) - first.values)[:, first.inside].abs().max())


def randn(scan: Scan) -> torch.Tensor:
    return torch.randn(scan.values.shape, generator=torch.Generator().manual_seed(0))


def test_noise_above_the_signal_is_told_and_kept() -> None:
    scan = scan_of(spheres(), 2)
    loud = dataclasses.replace(scan, values=0.05 * scan.values + 80 * randn(scan), noise=None)
    result = reconstruct_volume(loud, search=ONCE)
    assert result.noise[0].deviation == pytest.approx(80, rel=0.05)
    assert largest_residual(result) < 1e-3
    assert result.image.abs().max() < 2 * loud.values.abs().max()


def test_a_mirrored_scan_lies_where_it_did() -> None:
    scan = scan_of(spheres(), 2)
    last = [SIZE - 1, 0, SIZE // STEP - 1]
    mirror = np.diag([-1.0, 1.0, -1.0, 1.0])
    mirror[:3, 3] = last
    mirrored = dataclasses.replace(
        scan, values=scan.values.flip(1, 3), grid=Grid(scan.grid.shape, scan.grid.affine @ mirror)
    )
    one, other = (reconstruct_volume(s, search=ONCE) for s in (scan, mirrored))
    assert np.allclose(one.grid.corners().min(0), other.grid.corners().min(0))
    again = other.image.flip(1, 3)
    assert (one.image - again).square().mean() < 0.05 * (one.image - spheres()).square().mean() + 1
    assert largest_residual(other) < 1e-3


def test_ct_keeps_its_air() -> None:
    scan = scan_of(spheres(), 2)
    values = (10 * (scan.values - 40) - 1000).clamp(min=-1000)
    lines: list[str] = []
    result = reconstruct_volume(dataclasses.replace(scan, values=values), search=ONCE, message=lines.append)
    assert largest_residual(result) < 1e-2
    assert not any("outside its field of view" in line for line in lines)
    assert result.image.min() > -1200


def test_scans_that_do_not_overlap_are_refused() -> None:
    other = scan_of(spheres(), 0, "the other")
    away = other.grid.affine.copy()
    away[0, 3] += 500
    other = dataclasses.replace(other, grid=Grid(other.grid.shape, away))
    with pytest.raises(InputRefusedError, match="the other: does not overlap with the first scan"):
        reconstruct_volume([scan_of(spheres(), 2), other], search=ONCE)


@pytest.mark.slow
def test_a_result_of_a_thousand_slices() -> None:
    values = torch.randn(1, 48, 48, 200, generator=torch.Generator().manual_seed(0)).cumsum(3) * 3 + 100
    grid = Grid((48, 48, 200), np.diag([1.0, 1.0, 5.0, 1.0]))
    result = reconstruct_volume(Scan(values, grid, AcquisitionModel(grid.spacing), 0.0), search=ONCE)
    assert result.image.shape == (1, 48, 48, 1000)
    assert largest_residual(result) < 1e-3
