"""Files of the same content are told, and a head that is trained on and held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.training.pictures import holds_pictures
from brgm_med.transforms.formats import pictures_in


def files(folder: Path, *contents: str) -> list[Path]:
    paths = [folder / f"{number}.nii.gz" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


def test_heads_that_differ_are_not_spoken_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_identical(files(tmp_path, "a", "b", "cc"))
    assert capsys.readouterr().err == ""


def test_the_same_content_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = files(tmp_path, "a", "b", "a", "a")
    say_identical(paths)
    assert capsys.readouterr().err.splitlines() == [
        "warning: 0.nii.gz and 2.nii.gz hold the same, byte for byte, and 1 more: each counts as a subject of its own"
    ]


@pytest.mark.parametrize(("trained", "leaks"), [(1, True), (2, True), (4, False)])
def test_a_head_that_is_trained_on_and_held_out(
    tmp_path: Path, trained: int, leaks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(tmp_path, "a", "b", "a", "c")
    say_identical(paths, paths[:trained])
    text = "0.nii.gz is trained on and, under another name, held out: its measure says nothing"
    assert (text in capsys.readouterr().err) == leaks


def test_hidden_pictures_and_volumes_do_not_count(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".git/b.png", ".git/annex/c.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("picture")
    assert pictures_in(tmp_path) == [tmp_path / "a.png"]
    assert holds_pictures(tmp_path, tmp_path / "run")
