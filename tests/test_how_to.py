"""The pages of docs/how-to run: each page's blocks of Python in order, in one namespace, in an empty folder."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.house import ROOT

PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SUBJECTS = {"baseline", "certificate-field", "corruption", "format", "generator", "op", "pipeline-step"}
TABLES = {
    "baseline": ["brgm_med.pipelines.evaluation.methods.METHODS"],
    "certificate-field": [f"brgm_med.pipelines.results.certificate.{name}" for name in ("PUBLIC", "NAMES")],
}
"""Tables that a page adds to; afterwards they are as they were."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in TABLES.get(page.stem, ()):
        monkeypatch.setattr(table, copy.copy(resolve_name(table)))
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, flags=re.S | re.M))
    assert blocks
    names: dict[str, object] = {"__name__": "how_to"}
    for block in blocks:
        first = text.count("\n", 0, block.start(1))
        exec(compile("\n" * first + block[1], str(page), "exec", dont_inherit=True), names)


def test_every_extension_has_a_page_that_the_readme_links() -> None:
    assert {page.stem for page in PAGES} == SUBJECTS
    readme = (ROOT / "README.md").read_text()
    assert all(f"(docs/how-to/{name}.md)" in readme for name in SUBJECTS)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`((?:brgm_med|transforms|pipelines|tests|docs|benchmarks)/[\w./-]*)`", page.read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
