"""Names of files and words of others, as they are printed: withheld, escaped, cut to a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.console import LONGEST, WITHHELD, announce, say, shown, withhold
from tests.mr_series import mr_series


@pytest.fixture(autouse=True)
def nothing_withheld() -> Iterator[None]:
    yield
    withhold()


def test_a_text_is_one_harmless_line_of_some_length(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\nb\r\tc \x1b[2J\x07\x9b1m\u202e\udc80 " + "x" * 20_000 + " the end"
    line = shown(evil)
    assert line.isprintable()
    assert line.startswith("a b c \\x1b[2J\\x07\\x9b1m\\u202e\\udc80 xxx")
    assert line.endswith("xxx the end")
    assert len(line) <= LONGEST
    say(evil)
    announce(evil)
    written = capsys.readouterr()
    assert written.out == written.err == f"{line}\n"
    assert shown("Grüße; größer als 5 µm") == "Grüße; größer als 5 µm"


def test_names_of_inputs_are_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Doe^Jane;  1970"
    mr_series(folder)
    monkeypatch.chdir(tmp_path)
    withhold([Path(folder.name), Path("Smith John.nii.gz")])
    texts = (f"{folder}/IM000: is bad", f"{folder.name}: is bad", "IM003 and IM004", "Smith John.nii.gz", "Smith John")
    for text in texts:
        assert WITHHELD in shown(text)
        for word in ("Doe", "Jane", "1970", "IM00", "Smith", "John"):
            assert word not in shown(text)
    withhold()
    assert shown("IM003") == "IM003"


@pytest.mark.parametrize("command", ["degrade", "sr"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_refusal_of_what_is_to_be_deidentified_says_nothing_of_it(
    tmp_path: Path, command: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "PLANTED_Jane"
    folder.mkdir()
    for file in mr_series(tmp_path / "made").iterdir() if damage != "gone" else ():
        content = file.read_bytes()[:-7].replace(b"DS\x02\x0010", b"DS\x02\x00Qx")
        (folder / f"PLANTED_{file.name}.dcm").write_bytes(content)
    options = ["--factor", "2"] if command == "degrade" else []
    assert main([command, "--in", str(folder), "--out", str(tmp_path / "out"), "--deidentify", *options]) != 0
    written = "".join(capsys.readouterr())
    assert "brgm-med: " in written
    assert "PLANTED" not in written
    assert "Qx" not in written


def test_errors_of_codecs_quote_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mr_series(tmp_path / "in")
    for file in folder.iterdir():
        content = file.read_bytes()
        assert b"SH" in content
        file.write_bytes(content.replace(b"DS\x02\x0010", b"DS\x02\x00Qx").replace(b"IS\x02\x004 ", b"IS\x02\x00Qy"))
    main(["degrade", "--in", str(folder), "--out", str(tmp_path / "out.nii.gz"), "--factor", "2"])
    written = "".join(capsys.readouterr())
    assert "Qx" not in written
    assert "Qy" not in written
