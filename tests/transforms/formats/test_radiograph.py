"""Radiographs: the values that pydicom finds, bright where they are shown bright, and everything else refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut, apply_windowing, pixel_array
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from brgm_med.errors import InputRefusedError
from brgm_med.transforms import formats
from brgm_med.transforms.formats import picture, radiograph
from tests import contracts
from tests.radiographs import dicom, pixels, written


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("rescale", [(1.0, 0.0), (0.5, -1024.0), (-2.0, 100.0), (0.1, 0.3)])
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 12)])
def test_values_are_modality_values_turned_once(
    tmp_path: Path, dtype: str, bits: int, rescale: tuple[float, float], inverted: bool
) -> None:
    slope, intercept = rescale
    array = pixels(dtype, bits)
    made = dicom(array, bits, "MONOCHROME1" if inverted else "MONOCHROME2")
    made.RescaleSlope, made.RescaleIntercept = slope, intercept
    found = radiograph.read(written(made, tmp_path / "a.dcm"))
    modality = apply_modality_lut(array, made)
    ends = modality[0, :2].sum()
    np.testing.assert_allclose(found.array[0], ends - modality if inverted else modality, atol=1e-6, rtol=1e-6)
    assert found.range == pytest.approx((modality.min(), modality.max()))
    assert found.slope > 0
    assert found.bits == (8 if bits == 8 else 16)
    assert (found.stored.min(), found.stored.max()) == (0, (1 << bits) - 1)
    for name in ("a.png", "a.tif"):
        held = picture.write(tmp_path / name, found.array, found)
        np.testing.assert_array_equal(held.array, found.array)
        again = picture.read(tmp_path / name)
        np.testing.assert_array_equal(again.stored, found.stored)
        assert again.bits == found.bits


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_window_is_recorded_as_pydicom_applies_it(tmp_path: Path, inverted: bool, function: str) -> None:
    """And is the range; MONOCHROME1 turns it with the values. The first of several counts."""
    array = pixels()
    made = dicom(array, photometric="MONOCHROME1" if inverted else "MONOCHROME2", VOILUTFunction=function)
    made.RescaleSlope, made.RescaleIntercept = 2, -100
    made.WindowCenter, made.WindowWidth = [4000, 20], [6000, 30]
    found = radiograph.read(written(made, tmp_path / "a.dcm"))
    assert found.window == found.range
    low, high = found.range
    shown = apply_windowing(apply_modality_lut(array, made), made)
    shown = (shown - shown.min()) / np.ptp(shown)
    if inverted:
        shown = 1 - shown
    np.testing.assert_allclose(((found.array[0] - low) / (high - low)).clip(0, 1), shown, atol=1e-6)


@pytest.mark.parametrize(("centre", "width"), [(50, 100), (9e5, 3), (2000, 1), (2000, 0)])
def test_a_window_that_misses_most_pixels_is_not_the_range(tmp_path: Path, centre: float, width: float) -> None:
    made = dicom(pixels(), WindowCenter=centre, WindowWidth=width)
    found = radiograph.read(written(made, tmp_path / "a.dcm"))
    assert found.range == (0, 4095)
    assert (found.window is None) == (width < 2)


def table(count: int, first: int, bits: int, values: NDArray) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, first, bits])
    item.add_new("LUTData", "US", values.tolist())
    item.ModalityLUTType = "US"
    return item


def test_look_up_tables(tmp_path: Path) -> None:
    """A modality LUT's output takes the place of the stored integers; a VOI LUT's input is the window."""
    array = pixels()
    squares = (np.arange(4096, dtype=np.int64) ** 2 // 256).astype(np.uint16)
    made = dicom(array, photometric="MONOCHROME1", ModalityLUTSequence=[table(4096, 0, 16, squares)])
    found = radiograph.read(written(made, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(found.array[0], 65535 - apply_modality_lut(array, made).astype(int))
    assert found.range == (0, 65535)
    made = dicom(array, VOILUTSequence=[table(3000, 500, 16, squares[:3000])])
    assert radiograph.read(written(made, tmp_path / "b.dcm")).range == (500, 3499)


def test_bits_above_the_stored_ones_are_not_the_images(tmp_path: Path) -> None:
    """Old files keep overlays there (retired, PS3.3 C.9.2)."""
    array = pixels()
    found = radiograph.read(written(dicom(array | 0x7000), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(found.stored[0], array)


@pytest.mark.parametrize("name", ["PixelSpacing", "ImagerPixelSpacing"])
def test_spacing_becomes_dots_per_inch(tmp_path: Path, name: str) -> None:
    found = radiograph.read(written(dicom(pixels(), **{name: [0.2, 0.1]}), tmp_path / "a.dcm"))
    assert found.dpi == pytest.approx((254, 127))
    picture.write(tmp_path / "a.png", found.array, found)
    assert picture.read(tmp_path / "a.png").dpi == pytest.approx((254, 127), rel=1e-4)
    found = radiograph.read(written(dicom(pixels(), **{name: [0, 0]}), tmp_path / "a.dcm"))
    assert found.dpi is None


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "1.2.840.113619"])
def test_dicom_is_known_by_content_where_no_format_claims_the_name(tmp_path: Path, name: str) -> None:
    path = written(dicom(pixels()), tmp_path / name)
    assert formats.kind_of(path) == "picture"
    np.testing.assert_array_equal(formats.for_reading(path, "picture").read(path).stored[0], pixels())


def test_rle_and_jpeg_2000(tmp_path: Path) -> None:
    """Lossless, so that they hold what was compressed."""
    packed = [dicom(pixels(), photometric="MONOCHROME1") for _ in range(2)]
    packed[0].compress(RLELossless, encoding_plugin="pydicom")
    _as_jpeg_2000(packed[1])
    for made in packed:
        found = radiograph.read(written(made, tmp_path / "a.dcm"))
        np.testing.assert_array_equal(found.stored[0], 4095 - pixels())


def _as_jpeg_2000(made: Dataset) -> None:
    import imagecodecs

    codestream = imagecodecs.jpeg2k_encode(pixels(), codecformat="j2k", bitspersample=12, reversible=True)
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    made.PixelData = encapsulate([codestream])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True


def test_every_bad_dicom_is_refused_in_one_line(tmp_path: Path) -> None:
    good = written(dicom(pixels()), tmp_path / "good.dcm").read_bytes()
    no_pixels, deflated, unknown = dicom(pixels()), dicom(pixels()), dicom(pixels())
    del no_pixels.PixelData
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    unknown.file_meta.TransferSyntaxUID = MPEG2MPML
    unknown.PixelData = encapsulate([b"film"])
    unknown["PixelData"].is_undefined_length = True
    colour = dicom(np.zeros((4, 5, 3), np.uint8), 8, "RGB", SamplesPerPixel=3, PlanarConfiguration=0)
    half = dicom(pixels())
    _as_jpeg_2000(half)
    whole = next(generate_frames(half.PixelData, number_of_frames=1))
    half.PixelData = encapsulate([whole[: len(whole) // 2]])
    half["PixelData"].is_undefined_length = True
    bad = {
        "no pixels": (no_pixels, "holds no image's pixels (Computed Radiography Image Storage)"),
        "deflated": (deflated, "deflated"),
        "unknown": (unknown, "compressed in a way"),
        "colour": (colour, "is not grey (RGB)"),
        "palette": (dicom(pixels(), photometric="PALETTE COLOR"), "is not grey (PALETTE COLOR)"),
        "frames": (dicom(pixels().repeat(2, 0), Rows=20, NumberOfFrames=2), "holds 2 frames"),
        "enhanced": (dicom(pixels(), SharedFunctionalGroupsSequence=[Dataset()]), "enhanced"),
        "one bit": (dicom(pixels("uint8", 1), 1), "1 bits stored in 8"),
        "32 bits": (dicom(pixels().astype(np.uint32)), "12 bits stored in 32"),
        "high bit": (dicom(pixels(), HighBit=15), "the highest of them bit 15"),
        "no rows": (dicom(pixels(), Rows=0), "declares 31 x 0 pixels"),
        "absurd": (dicom(pixels(), Rows=60000, Columns=60000), "declares 60000 x 60000 pixels"),
        "short": (dicom(pixels(), Rows=21), "truncated or damaged"),
        "codestream": (half, "truncated or damaged"),
        "slope": (dicom(pixels(), RescaleSlope=0, RescaleIntercept=0), "rescaled by 0"),
        "beyond float32": (dicom(pixels(), RescaleSlope="1e-9", RescaleIntercept=1), "beyond float32"),
    }
    files: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "is empty"),
        "text": (b"not a picture\n" * 100, "no DICOM file"),
        "cut": (good[:-100], "truncated or damaged"),
        "cut before the pixels": (good[: -pixels().nbytes - 8], "holds no image's pixels"),
        "cut in the header": (good[:340], ""),
        "cut in the meta information": (good[:150], ""),
    }
    for name, (made, says) in bad.items():
        files[name] = written(made, tmp_path / "made.dcm").read_bytes(), says
    for name, (content, says) in files.items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(content)
        contracts.refused(radiograph.read, path, says)
    with pytest.raises(InputRefusedError, match="no such file"):
        radiograph.read(tmp_path / "missing.dcm")


def test_a_real_chest_x_ray(tmp_path: Path, data_dir: Path) -> None:
    """MONOCHROME1, 15 bits in 16, JPEG 2000: against pydicom, and against SimpleITK, which turns it too."""
    import SimpleITK as sitk

    path = data_dir / "xray-chest-RG1.dcm"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found = formats.for_reading(path, "picture").read(path)
    header = dcmread(path)
    expected = 32767 - apply_modality_lut(pixel_array(path, raw=True, decoding_plugin="gdcm"), header).astype(int)
    assert (found.shape, found.bits, found.dpi) == ((1955, 1841), 16, None)
    np.testing.assert_array_equal(found.array[0], expected)
    np.testing.assert_array_equal(found.array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0])
    assert found.window == (2768, 32767)
    spine, lung = found.array[0, 900:1100, 880:940], found.array[0, 700:900, 450:550]
    assert spine.mean() > lung.mean()
    held = picture.write(tmp_path / "a.png", found.array, found)
    np.testing.assert_array_equal(held.array[0], expected)
