"""The documentation site: it builds without a warning, has every command, option and public name, and asks nobody."""

from __future__ import annotations

import argparse
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import ROOT

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that a warning (a broken link or anchor, a page without a place) is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def words(page: Path) -> str:
    """A page's text without tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_of_docs_is_in_it(site: Path) -> None:
    docs = ROOT / "docs"
    pages = [page.relative_to(docs).with_suffix(".html") for page in docs.rglob("*.md")]
    made = [Path(f"{name}.html") for name in ("index", "contributing", "security", "changelog")]
    assert [page for page in (*pages, *made) if not (site / page).is_file()] == []


def test_the_reference_has_every_option_of_every_command(site: Path) -> None:
    from brgm_med.pipelines.cli import parser

    text = words(site / "reference" / "command-line.html")
    left = [parser()]
    options = set()
    while left:
        for action in left.pop()._actions:
            options |= set(action.option_strings) - {"-h", "--help"}
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
                assert all(one.prog in text for one in action.choices.values())
    assert len(options) > 40
    assert [option for option in options if option not in text] == []


@pytest.mark.parametrize("package", ["brgm_med", "brgm_med.transforms", "brgm_med.pipelines", "brgm_med.corruptions"])
def test_the_reference_has_every_public_name(package: str, site: Path) -> None:
    from importlib import import_module

    text = "".join(page.read_text() for page in (site / "reference").glob("brgm_med*.html"))
    names = set(import_module(package).__all__) - {"__version__"}
    assert [name for name in names if not re.search(rf'id="brgm_med\.[\w.]*\.{name}"', text)] == []


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    foreign = re.compile(r"<(?:script|img|iframe|link rel=\"stylesheet\")[^>]*(?:src|href)=\"?(?:https?:)?//[^\"> ]*")
    assert [hit for page in site.rglob("*.html") for hit in foreign.findall(page.read_text())] == []
