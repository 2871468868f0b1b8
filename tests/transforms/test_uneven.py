"""Slices that lie unevenly are placed where each was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.reading import acquisition_of, read_scan
from brgm_med.pipelines.steps.convert import convert
from brgm_med.transforms.acquire import AcquisitionModel, fine_grid
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.formats.dicom.series import the_series
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile
from tests.mr_series import mr_series

OFFSETS = (0.2, -0.3, 0.0, 0.1, -0.2, 0.2)
COARSE = Grid((8, 9, 6), make_affine(np.diag([2.0, 2.0, 6.0]), [0, 0, 2]))
FINE = fine_grid(COARSE, (1.0, 1.0, 1.0))


def ramp() -> torch.Tensor:
    """[1, X, Y, Z]: the height in mm above the centre of the first slice."""
    return (torch.arange(FINE.shape[2]) + 0.5 - 3.0).expand(1, *FINE.shape).double()


def test_a_sample_is_taken_at_its_offset() -> None:
    """Of a ramp, the mean over a slice is the height of its centre; without offsets the centres are even."""
    even = AcquisitionModel((2.0, 2.0, 4.0), "box", 2)
    uneven = AcquisitionModel((2.0, 2.0, 4.0), "box", 2, offsets=OFFSETS)
    heights = torch.arange(6.0).double() * 6
    for model, expected in ((even, heights), (uneven, heights + torch.tensor(OFFSETS).double())):
        operator = model.corruption(FINE, COARSE)
        torch.testing.assert_close(operator(ramp())[0, 3, 3], expected)
        assert operator.inside(COARSE.shape).all()
        seen = oblique_profile(model, COARSE, FINE)
        samples = seen(ramp())[0, 3, 3][1:-1]
        torch.testing.assert_close(samples, expected[1:-1], rtol=0, atol=1e-4)  # a spline's edges


def test_slices_as_thick_as_voxels_are_no_identity_where_they_are_uneven() -> None:
    model = AcquisitionModel(FINE.spacing, "box", 2, offsets=(0.05,) * FINE.shape[2])
    assert model.corruption(FINE, FINE).matrices[2] is not None


@pytest.mark.parametrize("flipped", [False, True])
def test_a_sidecar_keeps_them_in_the_order_of_the_slices(flipped: bool) -> None:
    model = AcquisitionModel((2.0, 2.0, 4.0), "box", 2, True, OFFSETS)
    sidecar = json.loads(json.dumps(model.to_sidecar(COARSE)))
    assert AcquisitionModel.from_sidecar(sidecar, COARSE) == model
    if flipped:
        affine = COARSE.affine @ np.diag([1.0, 1, -1, 1])
        again = AcquisitionModel.from_sidecar(sidecar, Grid(COARSE.shape, affine))
        assert again is not None
        assert again.offsets == tuple(-offset for offset in reversed(OFFSETS))
    sidecar["BrgmMedAcquisition"]["Offsets"].pop()
    with pytest.raises(InputRefusedError, match="5 offsets"):
        AcquisitionModel.from_sidecar(sidecar, COARSE)


def uneven_series(folder: Path) -> Path:
    """A series whose slices lie 3 mm apart, each off by a part of `OFFSETS`."""
    from pydicom import dcmread

    mr_series(folder, lps=np.diag([0.9, 1.1, 3.0, 1.0]))
    for file, offset in zip(sorted(folder.iterdir()), OFFSETS, strict=True):
        image = dcmread(file)
        image.ImagePositionPatient[2] = float(image.ImagePositionPatient[2]) + 0.5 * offset
        image.save_as(file)
    return folder


def test_dicom_says_where_each_slice_was_measured(tmp_path: Path) -> None:
    """In `sr` and in `run` alike: their sum with the even places is what the files say, to a thousandth of a mm."""
    folder = uneven_series(tmp_path / "in")
    series = the_series(folder)
    depths = series.affine[2, 3] + series.affine[2, 2] * np.arange(6)
    measured = 3.0 * np.arange(6) + 0.5 * np.asarray(OFFSETS)
    assert depths + np.asarray(series.offsets) == pytest.approx(measured, abs=1e-3)
    model = read_scan(folder).scan.acquisition
    assert model.offsets == series.offsets
    (tmp_path / "out").mkdir()
    again = read_scan(convert(folder, tmp_path / "out")[0]).scan.acquisition
    assert again.offsets == pytest.approx(model.offsets)
    assert again.axis == 2
    grid = Grid(series.shape, series.affine)
    assert acquisition_of(folder, grid, 2.0, None, None, series)[0].offsets == series.offsets
    even = mr_series(tmp_path / "even", lps=np.diag([0.9, 1.1, 3.0, 1.0]))
    assert read_scan(even).scan.acquisition.offsets == ()
