"""Images of many slices, Siemens' mosaics and UIH's grids, are refused by either sign of them, and listed so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.transforms.formats.dicom.series import the_series
from tests.dicom_files import SHAPE, series


def uih(k: int, made: Dataset) -> None:
    made.ImageType, made.Manufacturer = ["ORIGINAL", "PRIMARY", "VFRAME"], "UIH"
    made.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "36")


def uih_implicit(k: int, made: Dataset) -> None:
    uih(k, made)
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def siemens(k: int, made: Dataset) -> None:
    made.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 36)


GRIDS = {"UIH": (uih, "a UIH grid"), "UIH, implicit": (uih_implicit, "a UIH grid"), "S": (siemens, "a Siemens mosaic")}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_no_slice(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, kind = GRIDS[name]
    folder = series(tmp_path / "scan", change=change)
    for file in sorted(folder.iterdir())[1:]:
        file.unlink()
    with pytest.raises(InputRefusedError, match=f"is {kind}: many slices in one image.*dcm2niix"):
        the_series(folder)
    assert main(["series", str(folder), "--json"]) == 0
    (volume,) = json.loads(capsys.readouterr().out)["volumes"]
    assert f"is {kind}" in volume["problem"]


def single(k: int, made: Dataset) -> None:
    made.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "1")


def other_owner(k: int, made: Dataset) -> None:
    made.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x0A, "US", 36)


@pytest.mark.parametrize("change", [single, other_owner])
def test_slices_of_the_same_makers_are_read(change: Callable[[int, Dataset], None], tmp_path: Path) -> None:
    assert the_series(series(tmp_path / "scan", change=change)).shape == SHAPE
