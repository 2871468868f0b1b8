"""The forced-choice study: what the page holds, and what is made of raters' answers."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.forced_choice.tally import Tally, tally

METHODS = ("ours", "cubic", "pulse")


def pictures(folder: Path, shade: int, count: int = 4, size: tuple[int, int] = (16, 12)) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full(size[::-1], shade + i, np.uint8)).save(folder / f"head_{i}.png")
    return folder


def study(folder: Path, *extra: object) -> int:
    """`study make` of four pictures and three methods, in `folder`."""
    if not (folder / "truth").exists():
        pictures(folder / "truth", 200)
        for number, name in enumerate(METHODS):
            pictures(folder / name, 30 * (number + 1))
    chosen = [f"--method={name}={folder / name}" for name in METHODS]
    return main([str(a) for a in ("study", "make", "--truth", folder / "truth", *chosen, *extra)])


def results(path: Path, key: Path, rater: str, choose: list[str | None]) -> Path:
    """What the page saves for a rater who picked these methods."""
    held = json.loads(key.read_text())
    answers = [None if m is None else order.index(m) for m, order in zip(choose, held["orders"], strict=True)]
    path.write_text(json.dumps({"study": held["study"], "rater": rater, "answers": answers}))
    return path


def test_the_page_is_whole_and_blind_and_the_key_tells(tmp_path: Path) -> None:
    page, key = tmp_path / "study.html", tmp_path / "study_key.json"
    assert study(tmp_path, "--out", page) == 0
    text = page.read_text()
    assert not any(name in text for name in METHODS)
    assert not re.search(r"https?://", text)
    assert "Which of the images (A-C) best resembles" in text
    assert "not for diagnosis" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    held = json.loads(key.read_text())
    assert len(data["items"]) == 4
    assert sorted(held["orders"][0]) == sorted(METHODS)
    assert len({tuple(order) for order in held["orders"]}) > 1
    again = tmp_path / "again.html"
    assert study(tmp_path, "--out", again) == 0
    assert again.read_text() == text
    assert study(tmp_path, "--out", again, "--seed", 1, "--force") == 0
    assert json.loads((tmp_path / "again_key.json").read_text())["orders"] != held["orders"]
    assert study(tmp_path, "--out", again) == 3


def test_votes_come_out_as_they_were_cast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path, "--out", tmp_path / "study.html") == 0
    key, table = tmp_path / "study_key.json", tmp_path / "tally.csv"
    one = results(tmp_path / "a.json", key, "Ann", ["ours", "ours", "cubic", "ours"])
    two = results(tmp_path / "b.json", key, "Bob", ["ours", "pulse", "cubic", None])
    assert main(["study", "tally", str(one), str(two), "--key", str(key), "--out", str(table)]) == 0
    said = capsys.readouterr().out
    assert "| ours | 4 | 0.625 (" in said
    assert "2 raters, 4 pictures, 1 answers missing" in said
    found = {row["method"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert {m: int(row["votes"]) for m, row in found.items()} == {"ours": 4, "cubic": 2, "pulse": 1}
    assert sum(float(row["share"]) for row in found.values()) == pytest.approx(1)


def test_agreement_and_equal_choice() -> None:
    agreed = Tally(("a", "b"), np.array([[3, 0], [0, 3], [3, 0], [0, 3]]), 3, 0)
    assert agreed.agreement() == pytest.approx(1)
    assert agreed.equal_choice() == pytest.approx(1)
    # Fleiss' own example (1971) is of 30 patients; this one of 2 by hand: P = (1 + 1/3) / 2, Pe = 25/36 + 1/36.
    mixed = Tally(("a", "b"), np.array([[3, 0], [2, 1]]), 3, 0)
    assert mixed.agreement() == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))
    assert Tally(("a", "b"), np.array([[30, 0]]), 1, 0).equal_choice() < 1e-6


def test_bad_input_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path, "--out", tmp_path / "study.html") == 0
    key = tmp_path / "study_key.json"
    good = results(tmp_path / "a.json", key, "Ann", ["ours"] * 4)
    same = results(tmp_path / "b.json", key, "Ann", ["ours"] * 4)
    empty = results(tmp_path / "c.json", key, "Eve", [None] * 4)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"study": "x", "rater": "Bob", "answers": [0] * 4}))
    damaged = tmp_path / "damaged.json"
    damaged.write_text(good.read_text().replace('"answers": [', '"answers": [9, '))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    cases = {"same rater": [good, same], "another study": [other], "damaged": [damaged], "JSON": [broken]}
    cases |= {"no answer": [empty], "cannot be read": [tmp_path / "none.json"]}
    capsys.readouterr()
    for said, files in cases.items():
        assert main(["study", "tally", *map(str, files), "--key", str(key)]) == 3
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert main(["study", "tally", str(good), "--key", str(good)]) == 3


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study.html"
    assert study(tmp_path / "a", "--out", out, "--method", "ours=elsewhere") == 2
    (tmp_path / "a" / "cubic" / "head_2.png").unlink()
    assert study(tmp_path / "a", "--out", out) == 3
    assert "head_2.png: is missing" in capsys.readouterr().err
    Image.new("L", (5, 5)).save(tmp_path / "a" / "cubic" / "head_2.png")
    assert study(tmp_path / "a", "--out", out) == 3
    assert "has 5 x 5 pixels" in capsys.readouterr().err
    assert not out.exists()
    truth, one = str(tmp_path / "a" / "truth"), f"--method=ours={tmp_path / 'a' / 'ours'}"
    assert main(["study", "make", "--truth", truth, one, "--out", str(out)]) == 2


def test_the_library_counts_like_the_command(tmp_path: Path) -> None:
    assert study(tmp_path, "--out", tmp_path / "study.html", "--first", 2) == 0
    key = tmp_path / "study_key.json"
    found = tally(key, [results(tmp_path / "a.json", key, "Ann", ["ours", "pulse"])])
    assert found.votes.sum(0).tolist() == [1, 0, 1]
    assert found.agreement() is None
