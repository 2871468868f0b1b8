"""What a command does around a deidentifier: refuses early, warns, and keeps names out of the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import write_json
from brgm_med.pipelines.results.deidentification import begin
from brgm_med.pipelines.results.publish import check_certificate, default_certificate
from tests.commands import refused, run
from tests.dicom_files import save, tiny_image
from tests.planted import found, plant


def test_it_warns_that_faces_remain(capsys: pytest.CaptureFixture[str]) -> None:
    deidentifier = begin(Path("out"))
    assert deidentifier(tiny_image(1)).PatientIdentityRemoved == "YES"
    (line,) = capsys.readouterr().err.splitlines()
    assert "face" in line


def test_the_name_of_the_output_is_not_made_of_the_source() -> None:
    with pytest.raises(UsageError, match="--out"):
        begin(None)


@pytest.fixture
def hospital(tmp_path: Path) -> tuple[Path, list[str]]:
    """A series full of planted strings, in a folder and in files named after its patient."""
    folder = tmp_path / "Q01PLANTED_GIVEN"
    folder.mkdir()
    words: set[str] = set()
    for number in range(1, 7):
        made = tiny_image(number)
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


def test_one_certificate_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    """A folder of DICOM and a NIfTI file may have the same name but for the ending."""
    (tmp_path / "a_brgm").mkdir()
    path = default_certificate(tmp_path / "a_brgm")
    assert path == default_certificate(tmp_path / "a_brgm.nii.gz") == tmp_path / "a_brgm_certificate.json"
    check_certificate(path, tmp_path / "a_brgm", force=False)
    write_json(path, {"result": {"file": "a_brgm"}}, force=False)
    check_certificate(path, tmp_path / "a_brgm", force=True)
    with pytest.raises(InputRefusedError, match="exists already"):
        check_certificate(path, tmp_path / "a_brgm", force=False)
    with pytest.raises(UsageError, match=r"is the certificate of a_brgm; name another one for a_brgm\.nii\.gz"):
        check_certificate(path, tmp_path / "a_brgm.nii.gz", force=True)
    (tmp_path / "a_brgm").rmdir()
    check_certificate(path, tmp_path / "a_brgm.nii.gz", force=True)  # of a result that is gone
    for other in ("no JSON", "[]", '{"result": 3}', '{"result": {"file": "../x"}}'):
        path.write_text(other)
        check_certificate(path, tmp_path / "a_brgm.nii.gz", force=True)
