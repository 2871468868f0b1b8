"""Maps beside results: where each value is, whose the map is, what it says, and that it is whole or not there."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.target import Target
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.dicom import map as dicom_map
from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, RESAMPLING, Choices, Derivation
from brgm_med.transforms.formats.dicom.map import Quantity
from brgm_med.transforms.formats.dicom.series import find_series
from tests.mr_series import OBLIQUE, blob, mr_series

HOW = Derivation("tried", "Made by a test.", RESAMPLING, "Not for diagnosis.", "Prior none.", "steps: 3\nseed: 4")
RAS_LPS = np.diag([-1.0, -1, 1, 1])
SHAPE = (12, 10, 6)


def values(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


def target_for(source: Path, out: Path, choices: Choices = NO_CHOICES, force: bool = False) -> Target:
    header = for_reading(source).read_header(source)
    return target_of(source, out, header, choices=choices, force=force)


def made(folder: Path, choices: Choices = NO_CHOICES, name: str = "out", **changes: object) -> tuple[Dataset, Dataset]:
    """A map beside a derived series, and the first image of that."""
    source = folder / "in"
    if not source.exists():
        mr_series(source, **changes)
    target = target_for(source, folder / name, choices)
    target.check()
    affine = RAS_LPS @ OBLIQUE
    target.write(blob() * 1.0, affine, HOW, "")
    path = target.write_map(values(), affine, HOW)
    assert path == folder / f"{name}_measured" == target.map_path
    (file,) = path.iterdir()
    return dcmread(file), dcmread(folder / name / "0001.dcm")


def by_place(told: Dataset) -> dict[tuple[float, ...], NDArray[np.float32]]:
    """What PS3.3 C.7.6.16 says: position, LPS mm, of each frame's first pixel -> its values [columns, rows]."""
    frames = np.frombuffer(told.FloatPixelData, "<f4").reshape(-1, told.Rows, told.Columns)
    places = [g.PlanePositionSequence[0].ImagePositionPatient for g in told.PerFrameFunctionalGroupsSequence]
    return {tuple(np.round([float(v) for v in p], 3)): f.T for p, f in zip(places, frames, strict=True)}


@pytest.mark.parametrize("flip", [0, 1])
def test_every_value_is_where_it_belongs(tmp_path: Path, flip: int) -> None:
    """Each frame at the place of its slice and a reference to its image, whichever way the array counts slices."""
    source = mr_series(tmp_path / "in")
    affine, array, image = RAS_LPS @ OBLIQUE, values(), blob() * 1.0
    if flip:
        last = np.diag([1.0, 1, -1, 1]) + np.eye(4, k=1) * np.array([[0], [0], [5], [0]])
        affine, array, image = affine @ last, array[:, :, ::-1], image[:, :, ::-1]
    target = target_for(source, tmp_path / "out")
    target.write(image, affine, HOW, "")
    (file,) = target.write_map(array, affine, HOW).iterdir()
    told = dcmread(file)
    found = by_place(told)
    assert len(found) == 6
    for k in range(6):
        place = OBLIQUE @ [0, 0, k, 1]
        assert np.array_equal(found[tuple(np.round(place[:3], 3))], values()[:, :, k])
    shared = told.SharedFunctionalGroupsSequence[0]
    assert np.allclose(shared.PixelMeasuresSequence[0].PixelSpacing, [1.1, 0.9])
    expected = (OBLIQUE[:3, :2] / [0.9, 1.1]).T.ravel()
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, expected)
    images = {d.SOPInstanceUID: d for d in map(dcmread, (tmp_path / "out").iterdir())}
    for group in told.PerFrameFunctionalGroupsSequence:
        referred = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        at = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(images[referred].ImagePositionPatient, at, atol=1e-6)


def test_whose_it_is_and_what_it_says(tmp_path: Path) -> None:
    told, image = made(tmp_path)
    for name in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"),
        *("AccessionNumber", "FrameOfReferenceUID", "SpecificCharacterSet", "ContentDate", "SeriesDate"),
    ):
        assert told[name].value == image[name].value, name
    assert told.SeriesInstanceUID not in (image.SeriesInstanceUID, "1.2.826.0.1.3680043.8.498.2")
    assert told.SOPClassUID.name == "Parametric Map Storage"
    assert told.file_meta.ImplementationVersionName.startswith("BRGM")
    assert told.ImageType[0] == "DERIVED"
    assert told.SeriesDescription == "t1 grün tried measured"
    assert told.SeriesNumber == 1005
    assert told.ContentQualification == "RESEARCH"
    assert told.ImageComments == "Not for diagnosis.\r\nsteps: 3\r\nseed: 4" == image.ImageComments
    assert told.ContributingEquipmentSequence[-1].ContributionDescription == "Made by a test. Prior none."
    mapping = told.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.LUTExplanation.startswith("1: measured, 0: inferred")
    found = find_series(tmp_path / "out_measured")  # a map is no scan
    assert (len(found.stacks), found.others) == (0, 1)


@pytest.mark.filterwarnings("ignore:The value length")
def test_odd_values_of_a_hospital_stay_as_they_are(tmp_path: Path) -> None:
    odd = {"PatientSex": "UNKNOWN", "AccessionNumber": "A" * 20, "PatientName": "A^B^C^D^E^F", "StudyID": None}
    told, image = made(tmp_path, **odd, SeriesDescription="d" * 64, PatientID=None, SeriesNumber=None)
    for name in odd:
        assert told[name].value == image[name].value
    assert len(told.SeriesDescription) == 64
    assert told.SeriesDescription.endswith(" measured")


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None)):
        made(tmp_path, Choices(uid_seed=seed), name)
    bytes_of = {n: (tmp_path / f"{n}_measured" / "0001.dcm").read_bytes() for n in "abcd"}
    assert bytes_of["a"] == bytes_of["b"]
    uids = {dcmread(tmp_path / f"{n}_measured" / "0001.dcm").SOPInstanceUID for n in "abcd"}
    assert len(uids) == 3


def test_a_deidentified_series_has_a_deidentified_map(tmp_path: Path) -> None:
    told, image = made(tmp_path, Choices(transform=Deidentifier()))
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "DeidentificationMethod"):
        assert told[name].value == image[name].value
    assert told.PatientIdentityRemoved == "YES"
    assert told.ImageComments == HOW.comments
    content = (tmp_path / "out_measured" / "0001.dcm").read_bytes()
    for secret in ("Jürgen", "PAT-4711", "19700203", "20200102", "A77", "1.2.826.0.1.3680043.8.498.", "STATION"):
        assert secret.encode("latin-1") not in content
    assert told.ContentDate == "19000101"


def test_nothing_is_left_of_a_map_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of the image that it belongs to."""
    source = mr_series(tmp_path / "in")
    affine = RAS_LPS @ OBLIQUE
    real = dicom_map.save

    def damaging(dataset: Dataset, path: Path) -> None:
        real(dataset, path)
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)

    target = target_for(source, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(dicom_map, "save", damaging)
        target.write(blob() * 1.0, affine, HOW, "")
        with pytest.raises(CannotWriteError, match="reads back differently"):
            target.write_map(values(), affine, HOW)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    shifted = affine.copy()
    shifted[0, 3] += 1
    for array, place, reason in (
        (values(), shifted, "another grid"),
        (values()[1:], affine, "another grid"),
        (values() * 2, affine, "measured map has values"),
        (values() * np.nan, affine, "finite"),
    ):
        for out in ("out", "out.nii.gz"):
            target = target_for(source, tmp_path / out)
            target.write(blob() * 1.0, affine, HOW, "")
            with pytest.raises(ValueError, match=reason):
                target.write_map(array, place, HOW)
            assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("out", ["out", "out.nii.gz"])
def test_an_old_map_is_neither_overwritten_unasked_nor_left_to_lie(tmp_path: Path, out: str) -> None:
    source, affine = mr_series(tmp_path / "in"), RAS_LPS @ OBLIQUE
    target = target_for(source, tmp_path / out)
    target.write(blob() * 1.0, affine, HOW, "")
    target.write_map(values(), affine, HOW)
    assert target.map_path.exists()
    target_for(source, tmp_path / "other").check()
    with pytest.raises(InputRefusedError, match="exists already"):
        target.check()
    (tmp_path / out).rename(tmp_path / "moved")
    with pytest.raises(InputRefusedError, match="out_measured"):
        target.check()
    forced = target_for(source, tmp_path / out, force=True)
    forced.check()
    forced.write(blob() * 1.0, affine, HOW, "")
    assert not forced.map_path.exists()
    forced.write_map(values(1), affine, HOW)
    forced.remove()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "moved"]


def test_a_map_never_takes_the_place_of_its_source(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(blob().astype(np.int16), np.eye(4)), tmp_path / "a_measured.nii.gz")
    with pytest.raises(UsageError, match="where its map is to go"):
        target_for(tmp_path / "a_measured.nii.gz", tmp_path / "a.nii.gz", force=True)
    source = mr_series(tmp_path / "b_measured")
    with pytest.raises(UsageError, match="must not lie in one another"):
        target_for(source, tmp_path / "b", force=True)


def test_any_quantity_in_nifti_and_dicom(tmp_path: Path) -> None:
    """As float32, with the scan's conventions, shown over the range of what it is."""
    source, affine = mr_series(tmp_path / "in"), RAS_LPS @ OBLIQUE
    error = Quantity("deviation", "standard deviation of the posterior", (0.0, 500.0), ("ms", "millisecond"))
    for out in ("out", "out.nii.gz"):
        target = target_for(source, tmp_path / out)
        target.write(blob() * 1.0, affine, HOW, "")
        target.write_map(values() * 400, affine, HOW, error)
    image = nib.load(tmp_path / "out_deviation.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), values() * 400)
    assert np.allclose(image.affine, affine, atol=1e-5)
    assert image.header["cal_max"] == 500
    assert "not for diagnosis" in image.header["descrip"].item().decode()
    told = dcmread(tmp_path / "out_deviation" / "0001.dcm")
    unit = told.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("ms", "UCUM")
