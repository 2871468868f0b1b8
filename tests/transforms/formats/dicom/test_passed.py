"""Files beside those of a series are told, and refused where they may be slices that are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.send.protocol import instances_in
from brgm_med.transforms import formats
from brgm_med.transforms.formats.dicom.reader import Reader
from brgm_med.transforms.formats.dicom.series import find_series, the_series
from tests.dicom_files import SHAPE, series, zipped

OBJECT = ".git/annex/objects/aa/bb/MD5E-s99--0123456789abcdef/MD5E-s99--0123456789abcdef"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


def content(data: bytes) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.write_bytes(data)

    return spoil


def linked(target: str) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return spoil


def without_preamble(file: Path) -> None:
    file.write_bytes(file.read_bytes()[132:])


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a dangling link": (linked("/nowhere/IM004"), "is a link to a file that is not there"),
    "a link of datalad": (linked(f"../{OBJECT}"), "is a pointer of git-annex"),
    "an unlocked file of git-annex": (content(b"/annex/objects/MD5E-s99--0123\n"), "is a pointer of git-annex"),
    "a link of git-annex, copied as text": (content(f"../{OBJECT}".encode()), "is a pointer of git-annex"),
    "a pointer of LFS": (content(LFS), "is a pointer of Git LFS"),
    "nothing": (content(b""), "is empty"),
    "a page of a portal": (content(HTML), "is no DICOM file (PS3.10)"),
    "no preamble": (without_preamble, "is DICOM without the preamble"),
    "a preamble of zeros alone": (content(bytes(200)), "is no DICOM file (PS3.10)"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_last_slice_that_is_none_is_refused_and_read_over_on_request(name: str, tmp_path: Path) -> None:
    spoil, reason = SPOILED[name]
    folder = series(tmp_path / "scan")
    spoil(folder / "IM004")
    with pytest.raises(InputRefusedError, match="a part of the scan may be missing") as refusal:
        Reader().read(folder)
    assert f"{folder}/IM004: {reason}" in str(refusal.value)
    assert "--allow-missing-files" in str(refusal.value)
    with pytest.raises(InputRefusedError) as unsent:
        instances_in(folder)
    assert str(unsent.value) == str(refusal.value)
    assert Reader(allow_missing_files=True).read(folder).array.shape == (*SHAPE[:2], SHAPE[2] - 1)


def test_a_zip_is_as_a_folder(tmp_path: Path) -> None:
    folder = series(tmp_path / "scan")
    (folder / "IM004").write_bytes(LFS)
    archive = zipped(folder, tmp_path / "scan.zip")
    with pytest.raises(InputRefusedError, match=r"scan\.zip/IM004: is a pointer of Git LFS"):
        the_series(archive)
    assert the_series(archive, allow_missing_files=True).shape[2] == 4


def test_other_files_are_told_and_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path / "scan")
    (folder / "README").write_text("hello")
    (folder / "results.csv").write_text("a,b")
    (folder / "linked").symlink_to(tmp_path)
    degrade = ["degrade", "--in", str(folder), "--axis", "S", "--slice-thickness", "6", "--force"]
    assert main([*degrade, "--out", str(tmp_path / "thick.nii.gz")]) == 0
    assert "warning: scan: 3 files passed over (README is no DICOM file (PS3.10))" in capsys.readouterr().err
    assert main([*degrade, "--out", str(tmp_path / "slices"), "--deidentify"]) == 0
    err = capsys.readouterr().err
    assert "3 files passed over (one is no DICOM file (PS3.10))" in err
    assert "README" not in err


def test_the_command_reads_on_and_series_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path / "scan")
    (folder / "IM003").write_bytes(b"")
    (folder / "IM004").write_bytes(HTML)
    degrade = ["degrade", "--in", str(folder), "--axis", "S", "--slice-thickness", "6", "--out"]
    assert main([*degrade, str(tmp_path / "thick.nii.gz")]) == 3
    assert "IM003: is empty, and 1 more like it" in capsys.readouterr().err
    assert main([*degrade, str(tmp_path / "thick.nii.gz"), "--allow-missing-files"]) == 0
    assert "warning: scan: 2 files passed over (IM003 is empty)" in capsys.readouterr().err
    assert main(["series", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "2 files passed over (IM003 is empty)." in printed
    assert "A part of a volume may be missing: read only with --allow-missing-files." in printed


def test_hidden_copies_are_no_slices(tmp_path: Path) -> None:
    folder = series(tmp_path / "scan")
    for name in (".git/annex/objects/MD5E-IM000", "._IM000", ".cache/IM000"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "IM000").read_bytes())
    assert the_series(folder).shape == SHAPE
    assert find_series(folder).skipped == 0
    assert the_series(zipped(folder, tmp_path / "scan.zip")).shape == SHAPE


@pytest.mark.parametrize("name", ["a dangling link", "a link of datalad", "a pointer of LFS", "nothing"])
@pytest.mark.parametrize("file", ["head.nii.gz", "head.nii", "chest.png", "chest.dcm"])
def test_a_scan_whose_content_is_not_here_is_called_that(name: str, file: str, tmp_path: Path) -> None:
    spoil, reason = SPOILED[name]
    (tmp_path / file).touch()
    spoil(tmp_path / file)
    with pytest.raises(InputRefusedError, match=reason):
        formats.kind_of(tmp_path / file)
