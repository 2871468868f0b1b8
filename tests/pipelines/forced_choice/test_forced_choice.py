"""Studies: the page tells no method from another, the key does, and the tally is the statistics of the votes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.metrics import bootstrap_interval
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.forced_choice import make, tally
from brgm_med.pipelines.forced_choice.make import QUESTION
from brgm_med.pipelines.forced_choice.votes import against_equal_choice, fleiss_kappa, resampled, shares
from tests.choices import METHODS, content, folders, pixels, study
from tests.radiographs import dicom, written
from tests.radiographs import pixels as radiograph


def saved(path: Path, key: Any, rater: str, choices: str, **changed: Any) -> Path:
    """What the page saves; `choices` has a letter for each image, or a dot where none was chosen."""
    answers = [
        {"question": i + 1, "choice": None if c == "." else c, "at": None, "seconds": 1.0}
        for i, c in enumerate(choices)
    ]
    path.write_text(json.dumps({"study": key["study"], "rater": rater, "answers": answers, **changed}))
    return path


def for_method(key: Any, methods: list[str]) -> str:
    """The letters that choose these methods, image by image."""
    return "".join("ABCDEF"[i["methods"].index(m)] for i, m in zip(key["images"], methods, strict=True))


def test_the_page_shows_what_the_key_says_and_names_no_method(tmp_path: Path) -> None:
    page, content, key = study(tmp_path)
    assert content["letters"] == list("ABCD")
    assert sorted(i["image"] for i in key["images"]) == sorted(
        ["sub/secret0.png", *(f"secret{i}.png" for i in range(1, 5))]
    )
    for shown, image in zip(content["images"], key["images"], strict=True):
        i = int(re.findall(r"\d", image["image"])[0])
        order = [0, *(1 + METHODS.index(m) for m in image["methods"])]
        for png, m in zip(shown["png"], order, strict=True):
            data = base64.b64decode(png)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels(m, i))
            assert re.findall(rb"(IHDR|IDAT|IEND|tEXt|iTXt|iCCP|pHYs|tIME|eXIf)", data) == [b"IHDR", b"IDAT", b"IEND"]
    text = re.sub(r'"[A-Za-z0-9+/=]{100,}"', "", page.read_text())  # without the images
    for word in (*METHODS, "secret", str(tmp_path), '"seed"'):
        assert word not in text
    assert "For research, not for diagnosis" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert QUESTION.format(letters="A-D") in text


def test_orders_are_shuffled_as_the_seed_says(tmp_path: Path) -> None:
    _, content, key = study(tmp_path / "a", images=40)
    again, _, _ = study(tmp_path / "b", images=40)
    assert again.read_bytes() == (tmp_path / "a" / "forced_choice.html").read_bytes()
    _, other, _ = study(tmp_path / "c", images=40, seed=2)
    assert other["study"] != content["study"]
    assert [i["image"] for i in key["images"]] != sorted(i["image"] for i in key["images"])
    for method in METHODS:
        places = np.bincount([i["methods"].index(method) for i in key["images"]], minlength=4)
        assert (places > 2).all()
    keys = [study(tmp_path / name, images=40, seed=None)[2] for name in "de"]
    assert keys[0]["seed"] != keys[1]["seed"]
    assert keys[0]["images"] != keys[1]["images"]


def test_a_question_of_ones_own_and_only_the_first(tmp_path: Path) -> None:
    page, content, key = study(tmp_path, methods=("x", "y"), question="Which <b> is & best?", first=2)
    assert content["letters"] == ["A", "B"]
    assert {i["image"] for i in key["images"]} == {"sub/secret0.png", "secret1.png"}
    assert "Which &lt;b&gt; is &amp; best?" in page.read_text()
    assert "<b> is" not in page.read_text()


def test_sixteen_bits_are_shown_by_the_range_of_the_truth(tmp_path: Path) -> None:
    values = {"truth": (0, 4095), "x": (0, 2048), "y": (1000, 60000)}
    for name, (low, high) in values.items():
        (tmp_path / name).mkdir()
        Image.fromarray(np.array([[low, high]], np.uint16)).save(tmp_path / name / "a.png")
    page = make(tmp_path / "truth", {n: tmp_path / n for n in "xy"}, tmp_path / "s.html", seed=0)
    key = json.loads((tmp_path / "s_key.json").read_text())
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p)))).ravel() for p in content(page)["images"][0]["png"]]
    for name, picture in zip(["truth", *key["images"][0]["methods"]], shown, strict=True):
        assert picture.tolist() == [min(255, round(v / 4095 * 255)) for v in values[name]]


def test_a_radiograph_is_shown_in_its_window(tmp_path: Path) -> None:
    made = dicom(radiograph(), WindowCenter=1500, WindowWidth=1001, RescaleSlope=1, RescaleIntercept=0)
    for name in "txy":
        (tmp_path / name).mkdir()
        written(made, tmp_path / name / "a.dcm")
    page = make(tmp_path / "t", {n: tmp_path / n for n in "xy"}, tmp_path / "s.html", seed=0)
    expected = np.rint(np.clip((radiograph().astype(float) - 1000) / 1000, 0, 1) * 255)
    for png in content(page)["images"][0]["png"]:
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert np.abs(shown - expected).max() <= 1
        assert len(np.unique(shown)) > 20


def test_what_make_refuses(tmp_path: Path) -> None:
    made = folders(tmp_path)
    truth, out = made.pop("truth"), tmp_path / "forced_choice.html"
    two = {"ours": made["ours"], "cubic": made["cubic"]}

    def refuses(error: type[Exception], words: str, methods: dict[str, Path], **options: Any) -> None:
        with pytest.raises(error, match=words) as caught:
            make(truth, methods, options.pop("out", out), seed=1, **options)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("study*"))

    refuses(UsageError, "2 to 6", {"ours": made["ours"]})
    refuses(UsageError, "2 to 6", {str(i): made["ours"] for i in range(7)})
    refuses(UsageError, "must end in .html", two, out=tmp_path / "study.txt")
    refuses(InputRefusedError, "5 pictures, fewer than --first 6", two, first=6)
    refuses(InputRefusedError, "not a folder", two | {"none": tmp_path / "none"})
    for size, words in (((11, 10), r"10 x 11 pixels.*10 x 12"), ((12, 10, 3), "3 channels.*1 channels")):
        Image.fromarray(pixels(9, 9, size)).save(made["cubic"] / "secret3.png")
        refuses(InputRefusedError, rf"cubic/secret3.png: has {words}", two)
    Image.fromarray(pixels(9, 9).astype(np.uint16)).save(made["cubic"] / "secret3.png")
    refuses(InputRefusedError, "16 bits", two)
    (made["cubic"] / "secret3.png").write_bytes(b"nonsense")
    refuses(InputRefusedError, "secret3.png", two)
    (made["cubic"] / "secret3.png").unlink()
    refuses(InputRefusedError, "the method cubic lacks", two)
    (tmp_path / "page_key.json").write_text("precious")
    refuses(InputRefusedError, "page_key.json: exists already", two, out=tmp_path / "page.html", first=2)
    assert not (tmp_path / "page.html").exists()


def test_the_tally_is_of_methods_and_not_of_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, key = study(tmp_path)
    one = for_method(key, ["ours", "ours", "cubic", "ours", "lanczos"])
    two = for_method(key, ["ours", "cubic", "cubic", "ours", "ours"])[:-1] + "."
    files = [saved(tmp_path / f"{rater}.json", key, rater, c) for rater, c in (("R1", one), ("R2", two))]
    tally(files, out=tmp_path / "tally.csv")
    printed = capsys.readouterr().out
    assert "2 raters, 5 images, 9 votes" in printed
    assert re.search(r"\| ours \| 5 \| 0\.56 \(", printed)
    assert re.search(r"\| gaussian-map \| 0 \| 0\.00 \(0\.00 to 0\.00\)", printed)
    assert "Unanswered: 1 of 10 (R2: 1)" in printed
    assert "over the 4 images that all raters answered" in printed
    rows = list(csv.DictReader((tmp_path / "tally.csv").read_text().splitlines()))
    assert [(r["method"], int(r["votes"])) for r in rows] == list(zip(METHODS, (5, 3, 1, 0), strict=True))
    assert sum(float(r["share"]) for r in rows) == pytest.approx(1)
    assert float(rows[0]["minus_other"]) == pytest.approx(2 / 9)
    letters = dict(re.findall(r"([A-D]) (\d+)", printed.split("By letter")[1]))
    assert letters == {letter: str((one + two).count(letter)) for letter in "ABCD"}


def test_what_tally_refuses(tmp_path: Path) -> None:
    _, _, key = study(tmp_path)
    good = saved(tmp_path / "good.json", key, "R1", "ABCDA")

    def refuses(words: str, *results: Path, **options: Any) -> None:
        with pytest.raises(InputRefusedError, match=words) as caught:
            tally(list(results), **options)
        assert "\n" not in str(caught.value)

    other = tmp_path / "other.json"
    refuses("'R1  '.*good.json", good, saved(other, key, "R1  ", "AAAAA"))
    refuses("of the rater", good, saved(other, key, "r1", "AAAAA"))
    refuses("of the study 'deadbeef'", good, saved(other, key, "R2", "AAAAA", study="deadbeef"))
    refuses("damaged", good, saved(other, key, "R2", "AAAA"))
    refuses("damaged", good, saved(other, key, "R2", "AAAAE"))
    refuses("damaged", good, saved(other, key, "R2", "AAAAA", answers=[1, 2, 3, 4, 5]))
    refuses("damaged", good, saved(other, key, " ", "AAAAA"))
    refuses("no answer", saved(other, key, "R2", "....."))
    other.write_text(good.read_text()[:-20])
    refuses("other.json: is no JSON", good, other)
    refuses("no results file", good, tmp_path / "forced_choice_key.json")
    refuses("good.json: is no key", good, key=good)
    refuses("--key", good, key=tmp_path / "missing.json")
    other.write_text("[" * 100_000)
    refuses("other.json: is no JSON", other)


def test_one_rater_is_the_bootstrap_of_a_mean_and_pearsons_test() -> None:
    votes = np.eye(3, dtype=np.int64)[np.random.default_rng(0).choice(3, 60, p=(0.5, 0.3, 0.2))][None]
    for m, row in enumerate(shares(votes, ("x", "y", "z"))):
        assert row.interval == pytest.approx(bootstrap_interval(votes[0, :, m].tolist(), 0), abs=1e-12)
        assert row.share == pytest.approx(votes[0, :, m].mean())
    statistic, freedom, p = against_equal_choice(votes)
    expected = chisquare(votes.sum((0, 1)))
    assert (statistic, freedom, p) == pytest.approx((expected.statistic, 2, expected.pvalue))


def test_raters_who_see_the_same_tell_no_more_than_one() -> None:
    votes = np.eye(4, dtype=np.int64)[np.random.default_rng(0).choice(4, 50, p=(0.4, 0.2, 0.2, 0.2))][None]
    many = np.repeat(votes, 20, 0)
    assert against_equal_choice(many) == pytest.approx(against_equal_choice(votes))
    for a, b in zip(shares(many, METHODS), shares(votes, METHODS), strict=True):
        assert a.interval == pytest.approx(b.interval, abs=1e-12)


def test_raters_who_differ_widen_the_interval() -> None:
    """All images alike to a rater, ten raters of two minds: only the raters' own spread is left."""
    votes = np.zeros((10, 50, 2), np.int64)
    votes[:6, :, 0] = votes[6:, :, 1] = 1
    drawn = resampled(votes)[:, 0]
    assert drawn.std() == pytest.approx(np.sqrt(0.6 * 0.4 / 10), rel=0.03)


def test_the_test_holds_its_level_when_raters_agree_on_images() -> None:
    """No method is better, but on every image one is so to most of 5 raters: 5 % of such studies are called unequal."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        liked = rng.integers(4, size=40)
        choices = np.where(rng.random((5, 40)) < 0.7, liked, rng.integers(4, size=(5, 40)))
        found.append(against_equal_choice(np.eye(4, dtype=np.int64)[choices])[2] < 0.05)
    assert 0.035 < np.mean(found) < 0.065


def test_kappa_of_fleiss() -> None:
    """The textbook's example: 10 subjects, 14 raters, 5 categories."""
    rows = "0 0 0 0 14 0 2 6 4 2 0 0 3 5 6 0 3 9 2 0 2 2 8 1 1 7 7 0 0 0 3 2 6 3 0 2 5 3 2 2 6 5 2 1 0 0 2 2 3 7"
    assert fleiss_kappa(np.array(rows.split(), int).reshape(10, 5)) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = folders(tmp_path, 3)
    methods = [f"--method={name}={made[name]}" for name in METHODS]
    page = ["study", "make", "--truth", str(made["truth"]), "--out", str(tmp_path / "forced_choice.html")]
    assert main([*page, *methods, "--seed", "5"]) == 0
    key = json.loads((tmp_path / "forced_choice_key.json").read_text())
    assert key["seed"] == 5
    files = [str(saved(tmp_path / f"{r}.json", key, r, for_method(key, ["ours"] * 3))) for r in ("R1", "R2")]
    capsys.readouterr()
    assert main(["study", "tally", *files]) == 0
    assert "| ours | 6 | 1.00 (1.00 to 1.00) |" in capsys.readouterr().out
    for code, words, arguments in (
        (3, "is of the rater 'R1'", ["study", "tally", files[0], files[0]]),
        (3, "--force", [*page, *methods]),
        (2, "one name", [*page, *methods[:1], *methods[:1], "--force"]),
        (4, "cannot be written", ["study", "tally", *files, "--out", str(tmp_path / "no" / "tally.csv")]),
    ):
        assert main(arguments) == code
        told = capsys.readouterr()
        assert told.out == ""
        assert words in told.err
        assert told.err.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        main([*page, "--method", "ours"])
    assert ended.value.code == 2
