"""The rater's page in a real browser: keys, going back, changing one's mind, reloading, saving, and the count."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from brgm_med.pipelines.forced_choice.tally import tally
from tests import browser
from tests.test_forced_choice import METHODS, study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.chromium() is None, reason="needs chromium (Debian package chromium)"),
]
COUNT = "document.getElementById('count').textContent"
SHOWN = "!document.getElementById('task').hidden"


def test_a_rater_answers_goes_back_reloads_and_saves(tmp_path: Path) -> None:
    page_file, downloads = tmp_path / "study.html", tmp_path / "downloads"
    assert study(tmp_path, "--out", page_file) == 0
    downloads.mkdir()
    with browser.page(tmp_path) as page:
        page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        page.size(1200, 800)
        page.open(page_file)
        assert not page.run(SHOWN)
        page.run("document.getElementById('rater').value = 'Ann B.'")
        page.run("document.querySelector('#begin button').click()")
        assert page.run(SHOWN)
        assert page.run(COUNT) == "1 of 4"
        assert page.run("document.getElementById('back').disabled")
        page.key("a", 65)  # picture 1: A
        page.key("ArrowRight", 39)
        page.key("2", 50)  # picture 2: B
        page.key("ArrowRight", 39)
        page.run("document.querySelectorAll('.option')[2].click()")  # picture 3: C
        page.key("Backspace", 8)
        assert page.run(COUNT) == "2 of 4"
        page.key("C", 67)  # changed: picture 2: C
        assert page.run("document.querySelectorAll('.option')[2].getAttribute('aria-checked')") == "true"
        page.open(page_file)  # as after a reload
        assert page.run(COUNT) == "2 of 4"
        assert page.run("document.getElementById('bar').value") == 3
        page.key("ArrowRight", 39)
        page.key("ArrowRight", 39)
        assert page.run("document.getElementById('next').disabled")
        page.key("d", 68)  # there is no D
        assert "1 not answered" in page.run("document.getElementById('told').textContent")
        page.key("1", 49)  # picture 4: A
        widths = page.run("[...document.querySelectorAll('img')].map(i => [i.naturalWidth, i.width])")
        assert len({width for _, width in widths}) == 1
        assert all(natural == 16 and width % 16 == 0 and width > 16 for natural, width in widths)
        page.run("document.getElementById('save').click()")
        end = time.monotonic() + 30
        while not (saved := list(downloads.glob("study_*.json"))) and time.monotonic() < end:
            time.sleep(0.1)
        assert page.complaints == []
        assert [r for r in page.requests if not r.startswith(("file:", "data:", "blob:"))] == []
    held = json.loads((tmp_path / "study_key.json").read_text())
    kept = json.loads(saved[0].read_text())
    assert saved[0].name.endswith("Ann_B_.json")
    assert kept["rater"] == "Ann B."
    assert kept["answers"] == [0, 2, 2, 0]
    assert all(seconds > 0 for seconds in kept["seconds"])
    found = tally(tmp_path / "study_key.json", saved)
    expected = [held["orders"][picture][answer] for picture, answer in enumerate(kept["answers"])]
    assert found.votes.sum(0).tolist() == [expected.count(method) for method in METHODS]
    assert found.unanswered == 0
