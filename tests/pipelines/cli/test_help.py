"""What the command line says of itself, and where what it writes is announced."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import shtab

from brgm_med.pipelines.cli import main, parser
from brgm_med.pipelines.cli.completion import SHELLS
from brgm_med.pipelines.console import progress, speak
from brgm_med.priors import DEFAULT
from tests.small_heads import small_head

SAID = ("torch", "monai", "device", "operations", DEFAULT)


def commands(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers without further commands."""
    below = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield top
    for action in below:
        for one in action.choices.values():
            yield from commands(one)


@pytest.mark.parametrize("command", list(commands(parser())), ids=lambda command: command.prog)
def test_every_option_says_what_it_is_and_its_default(command: argparse.ArgumentParser) -> None:
    for action in command._actions:
        text = command._get_formatter()._expand_help(action) if action.help else ""
        assert text, action.dest
        if action.option_strings and action.nargs != 0 and not action.required:
            assert "default" in text, action.option_strings


@pytest.mark.parametrize("name", ["sr", "inpaint", "degrade"])
def test_options_are_in_groups_and_examples_at_the_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    for title in ("the scan:", "DICOM output:", "messages:"):
        assert f"\n{title}\n" in text
    assert text.rstrip().splitlines()[-1].startswith(f"  brgm-med {name} ")
    if name != "inpaint":
        assert "--slice-thickness MM" in text
        assert "--gap MM" in text


def test_commands_for_programs_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    assert set(SAID) <= set(json.loads(capsys.readouterr().out))
    assert main(["prior", "list", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["prior"], len(one["sha256"])) == (DEFAULT, 64)


def test_a_scan_without_an_option_and_paths_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = small_head(tmp_path / "head.nii.gz")
    thick = tmp_path / "thick.nii.gz"
    command = ["degrade", str(head), "--axis", "S", "--slice-thickness", "8", "--out", str(thick)]
    assert main(command) == 0
    written = capsys.readouterr()
    assert written.out == f"{thick}\n"
    assert "wrote" in written.err
    assert main(["sr", str(thick), "--prior", "self", "--steps", "1", "--threads", "1", "--quiet"]) == 0
    written = capsys.readouterr()
    assert written.out == f"{tmp_path / 'thick_brgm.nii.gz'}\n"
    assert all(line.startswith("warning: ") for line in written.err.splitlines())
    assert main(["report", str(tmp_path / "thick_brgm.nii.gz"), "--force"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'thick_brgm_report.html'}\n"


@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, ["phase, 3 of 3, 0 s"]), ({"quiet": True}, []), ({"verbose": True}, ["phase, 1 of 3, 0 s: note"])],
)
def test_progress_is_counted_in_words(
    options: dict[str, bool], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    speak(**options)
    try:
        with progress("phase", 3) as advance:
            for _ in range(3):
                advance("note")
    finally:
        speak()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] if options else line for line in said][: len(lines)] == lines
    assert len(said) == (3 if options.get("verbose") else len(lines))


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_option(shell: str) -> None:
    text = shtab.complete(parser(), shell=shell)
    for word in ("no-report", "quiet", "report"):
        assert word in text
