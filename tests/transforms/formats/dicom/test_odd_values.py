"""Elements of odd kinds and values: the files are read and repeated without them, or refused; no error is ours."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from brgm_med.pipelines.cli import main
from tests.dicom_elements import element, with_element
from tests.mr_series import mr_series

Bytes = Callable[[bytes], bytes]


def put(group: int, number: int, representation: str, value: bytes) -> Bytes:
    return lambda content: with_element(content, group, number, element(group, number, representation, value))


def out(group: int, number: int) -> Bytes:
    return lambda content: with_element(content, group, number, b"")


REPEATED: dict[str, Bytes] = {
    "two series numbers": put(0x20, 0x11, "IS", b"3\\4 "),
    "a series number in words": put(0x20, 0x11, "IS", b"abc "),
    "a series number of floats": put(0x20, 0x11, "FD", struct.pack("<d", 3.5)),
    "an image type of one number": put(0x8, 0x8, "US", b"\1\0"),
    "an image type of numbers": put(0x8, 0x8, "FD", struct.pack("<3d", 1, 2, 3)),
    "a window at NaN": put(0x28, 0x1050, "DS", b"NaN "),
    "a window in words": put(0x28, 0x1050, "DS", b"abcd"),
    "a window that is a sequence": put(0x28, 0x1050, "SQ", b""),
    "four bytes of a double": put(0x18, 0x9073, "FD", bytes(4)),
    "a description of numbers": put(0x8, 0x103E, "US", b"\1\0"),
    "a description that is a sequence": put(0x8, 0x103E, "SQ", b""),
    "a derivation of numbers": put(0x8, 0x2111, "US", b"\1\0"),
    "codes that are numbers": put(0x8, 0x9215, "US", b"\1\0"),
    "equipment that is a number": put(0x18, 0xA001, "US", b"\1\0"),
    "a name of numbers": put(0x10, 0x10, "US", b"\1\0"),
}
REFUSED: dict[str, Bytes] = {
    "no SOP class": out(0x8, 0x16),
    "two SOP classes": put(0x8, 0x16, "UI", b"1.2\\1.3\0"),
    "two UIDs of the instance": put(0x8, 0x18, "UI", b"1.2\\1.3\0"),
    "a study's UID of numbers": put(0x20, 0xD, "US", b"\1\0"),
    "two numbers of columns": put(0x28, 0x11, "US", b"\x0c\0\x0c\0"),
    "no number of columns": out(0x28, 0x11),
    "columns in words": put(0x28, 0x11, "LO", b"ab"),
    "a position in words": put(0x20, 0x32, "DS", b"a\\b\\c "),
    "several slopes": put(0x28, 0x1053, "DS", b"1\\2 "),
    "shared groups that are a number": put(0x28, 0x100, "LO", b"ab"),
}


def changed(folder: Path, change: Bytes, which: slice) -> Path:
    for file in sorted(mr_series(folder).iterdir())[which]:
        file.write_bytes(change(file.read_bytes()))
    return folder


def degrade(scan: Path, out: Path, *options: str) -> int:
    command = ["degrade", "--in", str(scan), "--axis", "S", "--slice-thickness", "8", "--out", str(out)]
    return main([*command, *options])


@pytest.mark.parametrize("which", [slice(None), slice(2, 3)], ids=["all", "one"])
@pytest.mark.parametrize("name", REPEATED)
def test_odd_values_are_not_repeated(name: str, which: slice, tmp_path: Path) -> None:
    scan = changed(tmp_path / "scan", REPEATED[name], which)
    assert degrade(scan, tmp_path / "out") in ((0,) if "name" not in name else (0, 3))  # a nameless slice is another's
    assert main(["series", str(scan)]) == 0
    for file in sorted((tmp_path / "out").glob("*.dcm"))[:1]:
        written: Dataset = dcmread(file)
        assert list(written.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        list(written.iterall())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_needed_and_odd_is_refused_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = changed(tmp_path / "scan", REFUSED[name], slice(None))
    assert degrade(scan, tmp_path / "out") == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert main(["series", str(scan)]) in (0, 3)


def test_two_series_one_of_whose_uids_is_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = changed(tmp_path / "scan", put(0x20, 0xE, "US", b"\1\0"), slice(3))
    assert degrade(scan, tmp_path / "out") == 3
    assert "holds 2 volumes" in capsys.readouterr().err
    assert main(["series", str(scan)]) == 0
