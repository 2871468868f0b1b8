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


def text_of(page: browser.Page, identifier: str) -> str:
    return str(page.run(f"document.getElementById('{identifier}').textContent"))


def test_the_planes_are_linked_and_the_values_under_the_cursor_are_read(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    assert page.run(READY) == "ready"
    canvases = [f"#stage figure:nth-child({n}) canvas" for n in (1, 2, 3)]
    first = [drawn(page, canvas) for canvas in canvases]
    assert 0.05 < (first[0] > 60).mean() < 0.95  # a head on black
    assert len(np.unique(first[0])) > 50
    reading = re.fullmatch(
        r"R (-?[\d.]+), A (-?[\d.]+), S (-?[\d.]+) mm: before [\d.e+-]+, after [\d.e+-]+, inferred 2[\d.]+ %",
        text_of(page, "place"),
    )
    assert reading is not None
    box = page.run(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('#stage canvas').getBoundingClientRect())"
    )
    x, y = box[0] + 0.25 * box[2], box[1] + 0.75 * box[3]
    for kind in ("mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    moved = [drawn(page, canvas) for canvas in canvases]
    for before, after in zip(first, moved, strict=True):
        assert (np.abs(after - before) > 30).mean() > 0.001
    r, a, s = (float(v) for v in re.findall(r"-?\d+\.\d", text_of(page, "place"))[:3])
    assert r > float(reading[1])  # the patient's right is on the left
    assert a < float(reading[2])
    assert s == float(reading[3])  # an axial plane was pressed
    page.key("PageUp", 33)
    page.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert float(re.findall(r"S (-?[\d.]+)", text_of(page, "place"))[0]) == s + 8


def test_overlays_are_drawn(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    labels = page.run(
        "[...document.querySelectorAll('#viewer-controls [type=checkbox]')].map(b => b.parentElement.innerText)"
    )
    assert [label.strip() for label in labels] == ["inferred", "residual", "the model's box", "template"]
    for n in range(len(labels)):
        plain = drawn(page, "#stage")
        page.run(f"document.getElementById('layer-{n}').click()")
        assert np.abs(drawn(page, "#stage") - plain).max() > 20, labels[n]
        page.run(f"document.getElementById('layer-{n}').click()")
        assert np.abs(drawn(page, "#stage") - plain).mean() < 0.5, labels[n]


def test_before_and_after_by_keyboard(page_of_subject: browser.Page) -> None:
    page = page_of_subject
    page.run("document.getElementById('show-before').focus()")
    page.key("Enter", 13, "\r")
    before = drawn(page, "#stage canvas")
    assert text_of(page, "compare-state") == "Shown: before"
    page.run("document.querySelector('#stage canvas').focus()")
    page.key("a", 65, "a")
    assert text_of(page, "compare-state") == "Shown: after"
    page.run("(s => { s.value = 'whole'; s.dispatchEvent(new Event('change')); })(document.getElementById('window'))")
    page.run("(s => { s.value = 'brain'; s.dispatchEvent(new Event('change')); })(document.getElementById('window'))")
    page.key("b", 66, "b")
    assert np.abs(drawn(page, "#stage canvas") - before).mean() < 0.5
    page.key("f", 70, "f")
    page.wait("document.getElementById('blend').value === '100'", 10)
    page.wait("document.getElementById('blend').value === '0'", 10)
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
        "const b = f.getBoundingClientRect(); return [b.left, b.right, b.height]; }))"
    )
    assert len(places) == 3
    for (_, right, one), (left, _, other) in places:
        assert right <= left  # side by side
        assert min(one, other) > 20
    assert page.run("getComputedStyle(document.getElementById('viewer-controls')).display") == "none"
    assert drawn(page, "#words").mean() > 200


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_is_wider_than_the_window(page_of_subject: browser.Page, width: int, tmp_path: Path) -> None:
    page = page_of_subject
    page.size(width, 900)
    assert page.run("document.documentElement.scrollWidth") == width


def test_a_study_sorts(tmp_path: Path) -> None:
    path = study_report(tmp_path / "study.html", study(tmp_path))
    with browser.page(tmp_path) as page:
        page.open(path)
        page.run(
            "[...document.querySelectorAll('thead button')].find(b => b.textContent.includes('correlation')).click()"
        )
        names = page.run("[...document.querySelectorAll('tbody th')].map(t => t.textContent)")
        assert names.index("sub-6") < names.index("sub-3") < names.index("sub-2")
        page.size(800, 900)
        assert page.run("document.documentElement.scrollWidth") == 800
        fill = "(s => { s.value = '%s'; s.dispatchEvent(new Event('input')); })(document.getElementById('%s'))"
        shown = "[...document.querySelectorAll('tbody tr')].filter(r => r.offsetParent).length"
        page.run(fill % ("refused", "status"))
        assert page.run(shown) == 1
        page.run(fill % ("", "status"))
        page.run(fill % ("sub-3", "words"))
        assert page.run(shown) == 1
        page.run(fill % ("", "words"))
        page.run("document.getElementById('unusual').click()")
        assert page.run(shown) == 1
        assert text_of(page, "count") == "1 of 9 shown"
        assert page.complaints == []
        assert page.requests == [path.resolve().as_uri(), *[r for r in page.requests if r.startswith("data:")]]
