"""What remains of a patient after de-identification: nothing, in any byte of the file; and the image is still one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, FileDataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats.dicom.deidentify import Deidentifier, check
from tests.dicom_files import ROOT, save, tiny_image
from tests.planted import DATES, found, plant


def complaints(path: Path) -> set[str]:
    """The errors that dciodvfy finds in a file."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, timeout=60)
    return {line for line in done.stderr.splitlines() if line.startswith("Error")}


@pytest.fixture
def planted() -> tuple[FileDataset, list[str]]:
    made = tiny_image(1)
    return made, plant(made)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_nothing_planted_remains_in_any_byte(tmp_path: Path, syntax: UID) -> None:
    """Whether the data set was just made or is read (elements still raw) and written again."""
    made = tiny_image(1, syntax)
    words = plant(made)
    assert len([w for w in words if w.startswith("Q")]) >= 40
    before, after, again = (tmp_path / name for name in ("before", "after", "again"))
    save(made, before)
    assert set(found(words, [before])) == set(words)  # the test can find them
    save(Deidentifier()(made), after)  # type: ignore[arg-type]
    save(Deidentifier()(dcmread(before)), again)  # type: ignore[arg-type]
    assert found(words, [after, again]) == []


def test_the_source_is_not_changed(planted: tuple[FileDataset, list[str]], tmp_path: Path) -> None:
    made, _ = planted
    save(made, tmp_path / "before")
    Deidentifier()(made)
    save(made, tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_what_is_said_of_it(planted: tuple[FileDataset, list[str]]) -> None:
    done = Deidentifier()(planted[0])
    assert done.PatientIdentityRemoved == "YES"
    assert "Basic Profile" in done.DeidentificationMethod
    assert done.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert all(date not in str(done) for date in DATES.values())
    assert done.StudyDate == ""
    assert "SliceThickness" in done
    assert (done.pixel_array == planted[0].pixel_array).all()


def test_uids_go_through_one_secret_map(planted: tuple[FileDataset, list[str]]) -> None:
    first, second = tiny_image(1), tiny_image(2)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = first.SOPClassUID, first.SOPInstanceUID
    second.SourceImageSequence = [item]
    second.ReferencedImageSequence = [item]
    first.SynchronizationFrameOfReferenceUID = "1.2.840.10008.15.1.1"
    first.IrradiationEventUID = [generate_uid(ROOT, [n]) for n in ("one", "two")]
    deidentifier = Deidentifier()
    one, two = deidentifier(first), deidentifier(second)
    assert one.StudyInstanceUID == two.StudyInstanceUID != first.StudyInstanceUID
    assert one.FrameOfReferenceUID == two.FrameOfReferenceUID != first.FrameOfReferenceUID
    assert one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID != first.SOPInstanceUID
    for sequence in (two.SourceImageSequence, two.ReferencedImageSequence):
        assert sequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
        assert sequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert one.SOPClassUID == first.SOPClassUID
    assert one.file_meta.TransferSyntaxUID == first.file_meta.TransferSyntaxUID
    assert one.SynchronizationFrameOfReferenceUID == "1.2.840.10008.15.1.1"
    assert len(set(one.IrradiationEventUID) | set(first.IrradiationEventUID)) == 4
    assert all(UID(u).is_valid for u in [one.SOPInstanceUID, *one.IrradiationEventUID])
    assert Deidentifier()(first).StudyInstanceUID != one.StudyInstanceUID  # the secret is of one run


def test_pseudonyms_tell_patients_apart() -> None:
    first, second, third = tiny_image(1), tiny_image(2), tiny_image(3)
    third.PatientID = "another"
    deidentifier = Deidentifier()
    names = [deidentifier(made).PatientID for made in (first, second, third)]
    assert names[0] == names[1] != names[2]


def test_own_texts_are_kept_and_nothing_before_them() -> None:
    made = tiny_image(1)
    made.ImageComments = "For research, not for diagnosis."
    made.DerivationDescription = "DOE^JANE derived. Inferred by brgm-med."
    first = Deidentifier()
    done = first.keeping("For research, not for diagnosis.", "Inferred by brgm-med.", "")(made)
    assert done.SOPInstanceUID == first(made).SOPInstanceUID
    assert done.ImageComments == made.ImageComments
    assert done.DerivationDescription == "Inferred by brgm-med."


@pytest.mark.parametrize("stated", ["YES", "yes "])
def test_burned_in_annotation_is_refused(stated: str) -> None:
    made = tiny_image(1)
    made.add_new("BurnedInAnnotation", "CS", stated.upper())
    with pytest.raises(InputRefusedError, match="burned into"):
        Deidentifier()(made)
    with pytest.raises(InputRefusedError, match="series: declares"):
        check(made, "series")
    made.BurnedInAnnotation = "NO"
    assert Deidentifier()(made).BurnedInAnnotation == "NO"


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputRefusedError, match="holds no image"):
        Deidentifier()(Dataset())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_no_new_complaints_of_dciodvfy(planted: tuple[FileDataset, list[str]], tmp_path: Path) -> None:
    for made in (tiny_image(1), planted[0]):
        save(made, tmp_path / "before")
        save(Deidentifier()(made), tmp_path / "after")  # type: ignore[arg-type]
        assert complaints(tmp_path / "after") <= complaints(tmp_path / "before")
    save(tiny_image(1), tmp_path / "plain")
    assert complaints(tmp_path / "plain") == set()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.filterwarnings("ignore")
def test_files_of_many_scanners(tmp_path: Path) -> None:
    """Those that pydicom ships: no new complaint, and nothing of the identity left."""
    names = ["PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID", "SOPInstanceUID", "StudyDate"]
    deidentifier, count = Deidentifier(), 0
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm")):
        try:
            source = dcmread(path)
            if "Rows" not in source or "truncated" in path.name or source.file_meta.TransferSyntaxUID.is_deflated:
                continue
        except (pydicom.errors.InvalidDicomError, NotImplementedError, AttributeError):
            continue
        known = complaints(path)
        result = tmp_path / "result"
        save(deidentifier(source), result)  # type: ignore[arg-type]
        assert complaints(result) <= known, path
        assert found([v for n in names if len(v := str(source.get(n, ""))) > 4], [result]) == [], path
        count += 1
    assert count > 40
