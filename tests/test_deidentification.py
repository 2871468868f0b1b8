"""What a command does around a deidentifier: refuses early, warns, and keeps names out of the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from brgm_med.errors import UsageError
from brgm_med.pipelines.deidentification import begin, withhold
from brgm_med.transforms.formats.dicom_deidentify import Deidentifier
from brgm_med.transforms.formats.dicom_derived import NO_CHOICES, Choices
from tests.dicom_sent import image, save
from tests.planted import found, plant
from tests.test_cli import refused, run


def test_it_warns_that_faces_remain(capsys: pytest.CaptureFixture[str]) -> None:
    deidentifier = begin(Path("out"))
    assert deidentifier(image(1)).PatientIdentityRemoved == "YES"
    (line,) = capsys.readouterr().err.splitlines()
    assert "face" in line


def test_the_name_of_the_output_is_not_made_of_the_source() -> None:
    with pytest.raises(UsageError, match="--out"):
        begin(None)


def test_certificates_name_no_source() -> None:
    told = {
        "source": {"file": "DOE_JANE", "sha256": "12", "dicom_files": 3},
        "mask": {"file": "DOE_JANE_mask.nii", "sha256": "34"},
        "result": {"file": "out", "sha256": "56"},
        "statement": "research",
    }
    assert withhold(told, NO_CHOICES) == told
    left = withhold(told, Choices(transform=Deidentifier()))
    assert "DOE_JANE" not in str(left)
    assert left["source"]["dicom_files"] == 3
    assert left["result"] == told["result"]
    assert told["source"] == {"file": "DOE_JANE", "sha256": "12", "dicom_files": 3}


@pytest.fixture
def hospital(tmp_path: Path) -> tuple[Path, list[str]]:
    """A series full of planted strings, in a folder and in files named after its patient."""
    folder = tmp_path / "Q01PLANTED_GIVEN"
    folder.mkdir()
    words: set[str] = set()
    for number in range(1, 7):
        made = image(number)
        words.update(plant(made))
        save(made, folder / f"Q03PLANTED_{number}.dcm")
    return folder, sorted(words)


def test_nothing_planted_comes_out_of_a_command(hospital: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Of files, their names, the record beside them, and what is said."""
    folder, words = hospital
    out = tmp_path / "out" / "coarse"
    out.parent.mkdir()
    done = run("degrade", "--in", folder, "--slice-thickness", 10, "--axis", "S", "--out", out, "--deidentify")
    assert done.returncode == 0, done.stderr
    assert list(out.iterdir())
    assert (out.parent / "coarse.json").exists()
    assert found(words, [out.parent], done.stdout + done.stderr) == []
    assert "face" in done.stderr
    told = dcmread(next(out.iterdir()))
    assert told.PatientIdentityRemoved == "YES"
    assert told.SeriesDescription == "brgm-med degrade"
    assert "simulated" in told.DerivationDescription
    assert told.ContributingEquipmentSequence[-1].ContributionDescription
    plain = run("degrade", "--in", folder, "--slice-thickness", 10, "--axis", "S", "--out", tmp_path / "plain")
    assert plain.returncode == 0
    assert found(words, [tmp_path / "plain"])


def test_what_cannot_be_deidentified(hospital: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = hospital
    common = ("degrade", "--in", folder, "--slice-thickness", 10, "--axis", "S", "--deidentify", "--out")
    assert "NIfTI" in refused(run(*common, tmp_path / "coarse.nii.gz"), 2)
    assert "--keep-private" in refused(run(*common, tmp_path / "coarse", "--keep-private"), 2)
    for path in folder.iterdir():
        made = dcmread(path)
        made.BurnedInAnnotation = "YES"
        made.save_as(path)
    assert "burned" in refused(run(*common, tmp_path / "coarse"), 3)
    assert not (tmp_path / "coarse").exists()
