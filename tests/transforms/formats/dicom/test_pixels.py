"""Pixels of DICOM that are not what the header declares are refused; an empty rescale and overlays are not damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGExtended12Bit, RLELossless

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats import radiograph
from brgm_med.transforms.formats.dicom.reader import Reader
from tests import dicom_files, radiographs
from tests.dicom_files import save_all, series, slices, voxels


def packed(made: Dataset, syntax: UID, fragments: list[Any], **header: Any) -> None:
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate(fragments)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    for name, value in header.items():
        setattr(made, name, value)


def plane(made: Dataset) -> NDArray[np.uint16]:
    return np.frombuffer(made.PixelData, "<u2").reshape(made.Rows, made.Columns)


def frames_of_jpeg_2000(made: Dataset) -> None:
    code = imagecodecs.jpeg2k_encode(plane(made), codecformat="j2k", bitspersample=12, reversible=True)
    packed(made, JPEG2000Lossless, [code, code])


def frames_of_rle(made: Dataset) -> None:
    one = dicom_files.image(plane(made), [0, 0, 0])
    one.compress(RLELossless, encoding_plugin="pydicom")
    fragment = one.PixelData[16:-8] if one.PixelData[4:8] == b"\0\0\0\0" else one.PixelData[20:-8]
    packed(made, RLELossless, [fragment, fragment])


def extended_jpeg(made: Dataset) -> None:
    packed(made, JPEGExtended12Bit, [imagecodecs.jpeg_encode((plane(made) >> 4).astype(np.uint8))])


def beyond(made: Dataset) -> None:
    pixels = plane(made).copy()
    pixels[2, 3] = 5000
    made.PixelData = pixels.tobytes()


def beyond_in_rle(made: Dataset) -> None:
    beyond(made)
    made.compress(RLELossless, encoding_plugin="pydicom")


def twice(made: Dataset) -> None:
    made.PixelData = made.PixelData * 2


def half(made: Dataset) -> None:
    made.Columns //= 2


def few_rows(made: Dataset) -> None:
    made.Rows -= 1


def no_syntax(made: Dataset) -> None:
    made.file_meta.TransferSyntaxUID = UID("")


def two_slopes(made: Dataset) -> None:
    made.RescaleSlope, made.RescaleIntercept = [1, 2], 0


WRONG: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "twice the bytes": (twice, "bytes of pixels and declares"),
    "half the columns": (half, "bytes of pixels and declares"),
    "one row less": (few_rows, "bytes of pixels and declares"),
    "two frames in JPEG 2000": (frames_of_jpeg_2000, "holds 2 frames and declares 1"),
    "two frames in RLE": (frames_of_rle, "holds 2 frames and declares 1"),
    "5000 of 12 bits": (beyond, "has pixels beyond the 12 bits that it declares"),
    "5000 of 12 bits in RLE": (beyond_in_rle, "has pixels beyond the 12 bits that it declares"),
    "JPEG Extended of 12 bits": (extended_jpeg, "is compressed in a way that is not known here (JPEG Extended"),
    "no transfer syntax": (no_syntax, "does not state its transfer syntax"),
    "two slopes": (two_slopes, "is rescaled by nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_contradicts_the_header_is_refused(name: str, tmp_path: Path) -> None:
    spoil, reason = WRONG[name]
    made = slices(voxels((8, 6, 5)))
    for one in made:
        spoil(one)
    if spoil is no_syntax:
        folder = without_syntax(series(tmp_path / "scan"))
    else:
        folder = save_all(made, tmp_path / "scan")
    with pytest.raises(InputRefusedError) as refusal:
        Reader().read(folder)
    assert reason in str(refusal.value)
    assert "damaged (" not in str(refusal.value)


def without_syntax(folder: Path) -> Path:
    """The files' element (0002,0010) renamed to one that says nothing."""
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\x02\0\x10\0UI", b"\x02\0\x12\0UI", 1))
    return folder


@pytest.mark.parametrize("name", ["twice the bytes", "5000 of 12 bits", "two frames in JPEG 2000"])
def test_a_radiograph_is_refused_too(name: str, tmp_path: Path) -> None:
    spoil, reason = WRONG[name]
    made = radiographs.dicom(radiographs.pixels() // 2)
    spoil(made)
    with pytest.raises(InputRefusedError, match=reason):
        radiograph.read(radiographs.written(made, tmp_path / "a.dcm"))


def test_a_few_zeros_after_the_pixels_are_padding(tmp_path: Path) -> None:
    made = slices()
    for one in made:
        one.PixelData += bytes(6)
    np.testing.assert_array_equal(Reader().read(save_all(made, tmp_path / "scan")).array, voxels())


def test_overlays_above_the_bits_stored_are_not_the_images(tmp_path: Path) -> None:
    def overlaid(k: int, made: Dataset) -> None:
        pixels = plane(made).copy()
        pixels[1, ::2] |= 0x8000
        made.PixelData = pixels.tobytes()
        made.add_new(0x60000102, "US", 15)

    folder = series(tmp_path / "scan", change=overlaid)
    np.testing.assert_array_equal(Reader().read(folder).array, voxels())


@pytest.mark.parametrize(("header", "slope", "intercept"), [({"RescaleSlope": None}, 1, 0), ({}, 1, -5)])
def test_an_empty_slope_is_one(tmp_path: Path, header: dict[str, Any], slope: float, intercept: float) -> None:
    def empty(k: int, made: Dataset) -> None:
        made.RescaleIntercept = intercept or None
        made.RescaleSlope = None

    volume = Reader().read(series(tmp_path / "scan", change=empty))
    np.testing.assert_array_equal(volume.array, voxels() * float(slope) + intercept)
    assert volume.header.series is not None
    assert "the Rescale Slope in some of its headers is empty; taken as 1" in volume.header.series.tolerated
    made = radiographs.dicom(radiographs.pixels())
    empty(0, made)
    assert radiograph.read(radiographs.written(made, tmp_path / "a.dcm")).intercept == intercept
