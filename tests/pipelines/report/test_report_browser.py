"""Reports in a real browser, from file://: they draw, complain of nothing and ask for nothing outside of themselves."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brgm_med.pipelines.report import study_report, subject_report
from tests import browser
from tests.reports import case, study, written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.chromium() is None, reason="needs chromium (Debian package chromium)"),
]
READY = "document.documentElement.dataset.viewer"


def grey(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.float64)


def drawn(page: browser.Page, selector: str) -> np.ndarray:
    """Wait for two frames, then the pixels of an element."""
    page.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    return grey(page.picture(selector))


@pytest.fixture
def page_of_subject(tmp_path: Path):
    files = case(tmp_path)
    image = nib.load(files["result"])
    known = np.linspace(0.7, 0.8, image.shape[1])[:, None] * np.ones(image.shape)
    measured = written(tmp_path, "result_measured.nii.gz", known, image.affine)
    path = subject_report(tmp_path / "report.html", **files, measured=measured)
    with browser.page(tmp_path) as page:
        page.size(1200, 900)
        page.media(prefers_color_scheme="light")
        page.open(path, READY)
        yield page
        assert page.complaints == []
        assert [r for r in page.requests if not re.match("file:|data:|blob:", r)] == []
        assert sum(r.startswith("file:") for r in page.requests) == 1


def test_the_interactive_view_draws_and_obeys(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    assert page.run(READY) == "ready"
    first = drawn(page, "#canvas")
    assert 0.05 < (first > 60).mean() < 0.95  # a head on black
    assert len(np.unique(first)) > 50
    page.run("(s => { s.value = 300; s.dispatchEvent(new Event('input')); })(document.getElementById('axis-2'))")
    moved = drawn(page, "#canvas")
    assert (np.abs(moved - first) > 30).mean() > 0.01
    page.run("(s => { s.value = 2; s.dispatchEvent(new Event('change')); })(document.getElementById('volume'))")
    inferred = drawn(page, "#canvas")
    # 0.2 to 0.3 of 1 is dark; on a scale of its own it would reach from black to white. Letters and crosshair are few.
    assert 20 < np.median(inferred[inferred > 5]) < 70
    assert (inferred > 90).mean() < 0.02
    assert "value 0.2" in page.run("document.querySelector('#place').value")
    assert re.match(r"R -?[\d.]+, A -?[\d.]+, S -?[\d.]+ mm, value", page.run("document.querySelector('#place').value"))


def test_before_and_after_by_keyboard(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    pair = ".pair .picture"
    page.run("document.getElementById('show-before').focus()")
    page.key("Enter", 13, "\r")
    before = drawn(page, pair)
    assert page.run("document.getElementById('compare-state').textContent") == "Shown: before"
    for _ in range(3):
        page.key("Tab", 9)
    page.key("Tab", 9)
    assert page.run("document.activeElement.id") == "pairs"
    page.key("ArrowRight", 39)
    assert page.run("document.getElementById('compare-state').textContent") == "Shown: after"
    assert np.abs(drawn(page, pair) - before).max() > 10
    page.key("f", 70, "f")
    page.wait("document.getElementById('blend').value === '0'", 10)
    page.wait("document.getElementById('blend').value === '100'", 10)
    page.media(prefers_reduced_motion="reduce")
    page.wait("document.getElementById('flicker').disabled", 10)
    page.key("f", 70, "f")
    assert page.run("document.getElementById('flicker').getAttribute('aria-pressed')") == "false"


def test_dark_light_and_print(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    assert drawn(page, "#words").mean() > 200
    page.media(prefers_color_scheme="dark")
    assert drawn(page, "#words").mean() < 60
    assert page.printed().startswith(b"%PDF")
    page.send("Emulation.setEmulatedMedia", media="print", features=[])
    page.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    places = page.run(
        "[...document.querySelectorAll('.pair')].map(pair => [...pair.children].map(f => {"
        "const b = f.getBoundingClientRect(); return [b.left, b.right, getComputedStyle(f).opacity]; }))"
    )
    assert len(places) == 9
    for (_, right, one), (left, _, other) in places:
        assert right <= left  # side by side
        assert one == other == "1"
    assert page.run("getComputedStyle(document.getElementById('compare-controls')).display") == "none"
    assert drawn(page, "#words").mean() > 200


def test_a_study_sorts(tmp_path: Path) -> None:
    path = study_report(tmp_path / "study.html", study(tmp_path))
    with browser.page(tmp_path) as page:
        page.open(path)
        page.run(
            "[...document.querySelectorAll('thead button')].find(b => b.textContent.includes('correlation')).click()"
        )
        names = page.run("[...document.querySelectorAll('tbody th')].map(t => t.textContent)")
        assert names.index("sub-6") < names.index("sub-3") < names.index("sub-2")
        assert page.complaints == []
        assert page.requests == [path.resolve().as_uri(), *[r for r in page.requests if r.startswith("data:")]]
