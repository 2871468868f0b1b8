"""Derived radiographs: what was not changed is what it was, to the last bit and the last attribute that stays true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.transforms.formats import radiograph, radiograph_write
from brgm_med.transforms.formats.dicom.derived import Choices
from tests import contracts
from tests.picture_prior import prior as prior
from tests.picture_prior import run
from tests.radiographs import HOW, dicom, pixels, written


def source(tmp_path: Path, **header: object) -> Path:
    """A CR image of 12 bits, shown inverted."""
    return written(dicom(pixels(), 12, "MONOCHROME1", **header), tmp_path / "source.dcm")


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("rescale", [None, (1.0, 0.0), (0.5, -1024.0), (-2.0, 100.0), (0.1, 0.3)])
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 12)])
def test_values_that_are_kept_keep_their_integers(
    tmp_path: Path, dtype: str, bits: int, rescale: tuple[float, float] | None, inverted: bool
) -> None:
    made = dicom(pixels(dtype, bits), bits, "MONOCHROME1" if inverted else "MONOCHROME2")
    if rescale is not None:
        made.RescaleSlope, made.RescaleIntercept = rescale
    picture = radiograph.read(written(made, tmp_path / "a.dcm"))

    def write(path: Path) -> NDArray:
        array, clipped = radiograph_write.write(path, picture.array, picture, HOW, Choices(uid_seed="1"))
        assert clipped == 0
        return array

    out = tmp_path / "b.dcm"
    contracts.round_trip(out, write, radiograph.read, picture.array, header=lambda p: p.bits, expected=picture.bits)
    found = dcmread(tmp_path / "b.dcm")
    assert np.array_equal(found.pixel_array, pixels(dtype, bits))
    for name in ("PhotometricInterpretation", "BitsStored", "RescaleSlope", "RescaleIntercept", "SOPClassUID"):
        assert found.get(name) == made.get(name)


def test_the_output_of_a_modality_lut_is_stored_itself(tmp_path: Path) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", (np.arange(4096) * 16).astype("<u2").tobytes())
    table.ModalityLUTType = "OD"
    picture = radiograph.read(source(tmp_path, ModalityLUTSequence=[table]))
    radiograph_write.write(tmp_path / "b.dcm", picture.array, picture, HOW)
    assert np.array_equal(dcmread(tmp_path / "b.dcm").pixel_array, pixels().astype(int) * 16)
    assert np.array_equal(radiograph.read(tmp_path / "b.dcm").array, picture.array)


def test_what_stays_true_is_kept_and_the_rest_is_new(tmp_path: Path) -> None:
    header = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller^Jörg",
        "PatientID": "7",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 2,
        "SeriesDescription": "Thorax" * 10,
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "WindowCenter": 2000,
        "WindowWidth": 3000,
        "PixelSpacing": [0.2, 0.1],
        "ImagerPixelSpacing": [0, 0],
        "CollimatorLeftVerticalEdge": 3,
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 10,
        "BurnedInAnnotation": "NO",
        "SmallestImagePixelValue": 5,
    }
    scan = source(tmp_path, **header)
    picture = radiograph.read(scan)
    twice = picture.array.repeat(2, 1).repeat(2, 2)
    radiograph_write.write(tmp_path / "b.dcm", twice, picture, HOW)
    found = dcmread(tmp_path / "b.dcm")
    kept = ("PatientName", "PatientID", "StudyInstanceUID", "WindowCenter", "WindowWidth", "SpecificCharacterSet")
    kept += ("LossyImageCompression", "LossyImageCompressionRatio", "BurnedInAnnotation")
    for name in kept:
        assert found[name].value == header[name], name
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert [float(s) for s in found.PixelSpacing] == [0.1, 0.05]
    for name in ("ImagerPixelSpacing", "CollimatorLeftVerticalEdge", "SmallestImagePixelValue"):
        assert name not in found
    assert found.ImageType == ["DERIVED", "SECONDARY"]
    assert found.SeriesNumber == 1002
    assert found.SeriesDescription.endswith(" tried")
    assert len(found.SeriesDescription) == 64
    assert found.SeriesInstanceUID != "1.2.3.4"
    assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(scan).SOPInstanceUID
    assert found.ImageComments == HOW.statement


def test_the_seed_decides_the_uids_and_the_hook_has_the_last_word(tmp_path: Path) -> None:
    picture = radiograph.read(source(tmp_path))

    def anonymous(dataset: Dataset) -> Dataset:
        dataset.PatientName = "nobody"
        return dataset

    for name, seed in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None), ("e", None)):
        radiograph_write.write(tmp_path / name, picture.array, picture, HOW, Choices(seed, False, anonymous))
    uids = {n: dcmread(tmp_path / n).SOPInstanceUID for n in "abcde"}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(set(uids.values())) == 4
    assert dcmread(tmp_path / "a").PatientName == "nobody"
    assert (tmp_path / "a").read_bytes()[:128] == bytes(128)
    with pytest.raises(InputRefusedError, match="exists already"):
        radiograph_write.write(tmp_path / "a", picture.array, picture, HOW)


@pytest.mark.parametrize("prior", [1], indirect=True, ids=["grey"])
def test_an_x_ray_comes_back_as_dicom(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands, with no name given: measured pixels exact, averages within half a step, the spacing of 0 said."""
    scan = source(tmp_path, PixelSpacing=[0, 0], WindowCenter=2000, WindowWidth=3000, PatientName="Secret^Name")
    marked = np.zeros((20, 31), np.uint8)
    marked[5:9, 10:15] = 1
    Image.fromarray(marked).save(tmp_path / "mask.png")
    assert run("inpaint", "--in", scan, "--mask", tmp_path / "mask.png", "--prior", prior, "--uid-seed", 1) == 0
    said = capsys.readouterr().err
    assert "no pixel spacing" in said
    found = dcmread(tmp_path / "source_brgm.dcm")
    assert np.array_equal(found.pixel_array[marked == 0], pixels()[marked == 0])
    assert found.PhotometricInterpretation == "MONOCHROME1"
    assert (found.WindowCenter, found.WindowWidth) == (2000, 3000)
    assert "PixelSpacing" not in found
    assert found.DerivationCodeSequence[0].CodeValue == "113047"
    large = tmp_path / "large.dcm"
    assert run("sr", "--in", scan, "--prior", prior, "--factor", 2, "--out", large) == 0
    averages = dcmread(large).pixel_array.astype(float).reshape(20, 2, 31, 2).mean((1, 3))
    certificate = (tmp_path / "large_certificate.json").read_text()
    if json.loads(certificate)["consistency"]["clipped_to_the_bits"] == 0:
        assert np.abs(averages - pixels()).max() <= 0.5
    assert "Secret" not in certificate + said


def test_only_dicom_becomes_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(pixels("uint8", 8)).save(tmp_path / "a.png")
    arguments = ["sr", "--in", tmp_path / "a.png", "--out", tmp_path / "b.dcm", "--prior", "x"]
    assert main([str(a) for a in arguments]) == 2
    assert "only a DICOM image gives a DICOM image" in capsys.readouterr().err
