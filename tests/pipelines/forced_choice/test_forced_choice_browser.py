"""A study in a real browser, from file://: a rater's keys come out of the tally as they were pressed."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brgm_med.pipelines.forced_choice import tally
from tests import browser
from tests.choices import METHODS, study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.chromium() is None, reason="needs chromium (Debian package chromium)"),
]
READY = "document.documentElement.dataset.study"
PLACE = "document.getElementById('place').textContent"
PRESSED = "[...document.querySelectorAll('#choices [aria-pressed=true]')].map(b => b.textContent).join()"
SHOWN = "[...document.images].filter(i => i.complete && i.naturalWidth).map(i => i.src.split(',')[1])"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[browser.Page, Any, Any]]:
    """A browser whose downloads come to `tmp_path`, on the page of a study of 5 images; its content and its key."""
    path, content, key = study(tmp_path)
    with browser.page(tmp_path) as page:
        page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.size(1200, 900)
        page.open(path, READY)
        yield page, content, key
        assert page.complaints == []
        assert [r for r in page.requests if not re.match("file:|data:|blob:", r)] == []


def press(page: browser.Page, *keys: str) -> None:
    codes = {"ArrowRight": 39, "ArrowLeft": 37, "Backspace": 8, "Enter": 13, "Tab": 9}
    for key in keys:
        page.key(key, codes.get(key, ord(key[0].upper())), "\r" if key == "Enter" else key if len(key) == 1 else "")


def enter(page: browser.Page, rater: str) -> None:
    page.wait("document.activeElement.id === 'rater'", 10)
    press(page, *rater, "Enter")
    page.wait("!document.getElementById('rate').hidden", 10)


def downloaded(path: Path) -> Any:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, list(path.parent.iterdir())
        time.sleep(0.05)
    return json.loads(path.read_text())


def test_from_the_first_key_to_the_tally(opened: tuple[browser.Page, Any, Any], tmp_path: Path) -> None:
    page, content, key = opened
    enter(page, "R a/1")
    assert page.run(PLACE) == "1 of 5"
    assert page.run(SHOWN) == content["images"][0]["png"]
    press(page, "b", "ArrowRight", "3", "ArrowRight", "d", "ArrowRight")
    assert page.run(PLACE) == "4 of 5"
    press(page, "Backspace", "ArrowLeft")
    assert page.run(PLACE) == "2 of 5"
    assert page.run(PRESSED) == "C"
    press(page, "a", "7", "x")
    page.run("window.before = true")
    page.send("Page.reload")
    page.wait(
        f"!window.before && document.readyState === 'complete' && {READY} && !document.getElementById('rate').hidden",
        20,
    )
    assert page.run(PLACE) == "2 of 5"
    assert page.run(PRESSED) == "A"
    assert page.run("document.getElementById('bar').value") == 3
    page.wait(f"{SHOWN}.length === 5", 10)
    assert page.run(SHOWN) == content["images"][1]["png"]
    press(page, "ArrowRight", "ArrowRight", "ArrowRight")
    assert page.run("document.getElementById('next').textContent") == "Finish"
    page.run("document.querySelectorAll('#choices button')[2].click()")
    page.run("document.getElementById('next').click()")
    assert "1 of 5 images are unanswered" in page.run("document.getElementById('summary').textContent")
    page.run("document.getElementById('gap').click()")
    assert page.run(PLACE) == "4 of 5"
    assert page.run(PRESSED) == ""
    press(page, "ArrowRight", "ArrowRight")
    page.run("document.querySelector('#end .save').click()")
    results = tmp_path / "forced_choice_results_R_a_1.json"
    found = downloaded(results)
    assert found["rater"] == "R a/1"
    assert [a["choice"] for a in found["answers"]] == ["B", "A", "D", None, "C"]
    assert all(a["seconds"] > 0 for a in found["answers"])
    assert re.match(r"brgm-med \d", found["page"])
    tally([results], out=tmp_path / "tally.csv")
    chosen = [key["images"][q]["methods"]["ABCD".index(c)] for q, c in ((0, "B"), (1, "A"), (2, "D"), (4, "C"))]
    rows = {row["method"]: row for row in csv.DictReader((tmp_path / "tally.csv").read_text().splitlines())}
    assert {m: int(rows[m]["votes"]) for m in METHODS} == {m: chosen.count(m) for m in METHODS}
    assert {row["unanswered"] for row in rows.values()} == {"1"}


def test_every_rater_has_progress_of_their_own(opened: tuple[browser.Page, Any, Any]) -> None:
    page, _, _ = opened
    enter(page, "one")
    press(page, "a", "ArrowRight", "b")
    page.run("document.getElementById('other').click()")
    enter(page, "two")
    assert page.run(PLACE) == "1 of 5"
    assert page.run(PRESSED) == ""
    page.run("document.getElementById('other').click()")
    enter(page, "ONE")
    assert page.run(PLACE) == "2 of 5"
    assert page.run(PRESSED) == "B"


def test_a_browser_that_keeps_nothing(opened: tuple[browser.Page, Any, Any], tmp_path: Path) -> None:
    page, _, _ = opened
    refusing = (
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    )
    page.send("Page.addScriptToEvaluateOnNewDocument", source=refusing)
    page.open(tmp_path / "forced_choice.html", READY)
    assert "Do not reload" in page.run("document.getElementById('forgets').innerText")
    enter(page, "R2")
    press(page, "a", "ArrowRight", "b", "ArrowLeft")
    assert page.run(PRESSED) == "A"
    page.run("document.querySelector('#rate .save').click()")
    found = downloaded(tmp_path / "forced_choice_results_R2.json")
    assert [a["choice"] for a in found["answers"]] == ["A", "B", None, None, None]


@pytest.mark.parametrize(
    ("width", "height", "ratio"), [(1920, 1080, 1), (1366, 768, 1.25), (390, 844, 3), (320, 600, 1)]
)
def test_pixels_are_whole_and_alike(opened: Any, width: int, height: int, ratio: float) -> None:
    """All five as large, a whole number of screen pixels for each of a picture's, and inside of the window's width."""
    page, _, _ = opened
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=False)
    enter(page, "R3")
    boxes = page.run(
        "[...document.images].map(i => { const b = i.getBoundingClientRect(); "
        "return [b.width, b.height, b.left, b.right, getComputedStyle(i).imageRendering]; })"
    )
    assert len(boxes) == 5
    scales = np.array([(b[0] * ratio / 10, b[1] * ratio / 12) for b in boxes])
    assert scales.min() >= 2
    assert np.abs(scales - np.rint(scales[0, 0])).max() < 0.05
    assert {b[4] for b in boxes} == {"pixelated"}
    assert all(b[2] >= 0 and b[3] <= width for b in boxes)
    assert all(boxes[0][3] < b[2] for b in boxes[1:])  # the true image is on the left of all others
    assert page.run("document.documentElement.scrollWidth") <= width
