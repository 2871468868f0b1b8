"""The README and the pages of docs say what runs, and link to what is there."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brgm_med.pipelines.steps.degrade import degrade
from tests.heads import template_head
from tests.house import ROOT
from tests.small_heads import small_head

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


def run_block(page: str, number: int, of: int, **changes: str) -> None:
    """Run a block of Python of a page, with words of it replaced."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)
    assert len(blocks) == of
    block = blocks[number]
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    exec(compile(block, page, "exec"), {})


def test_the_one_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_head(tmp_path / "scan.nii.gz", thick=True)
    monkeypatch.chdir(tmp_path)
    run_block("README.md", 0, of=1, **{'"scan.nii.gz"': '"scan.nii.gz", steps=1'})
    for name in ("scan_brgm.nii.gz", "scan_brgm_measured.nii.gz", "scan_brgm_certificate.json"):
        assert f"`{name}`" in README
        assert (tmp_path / name).is_file()


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    degrade(template_head(tmp_path / "head.nii.gz"), tmp_path / "scan.nii.gz", thickness=6.0, axis="S")
    monkeypatch.chdir(tmp_path)
    run_block("docs/python.md", 0, of=2)
    scan, finer, measured = (nib.load(f"{name}.nii.gz").get_fdata() for name in ("scan", "finer", "measured"))  # type: ignore[attr-defined]
    assert finer.shape == measured.shape == (*scan.shape[:2], 3 * scan.shape[2])
    means = finer.reshape(*scan.shape, 3).mean(3)
    assert np.linalg.norm(means - scan) < 1e-5 * np.linalg.norm(scan - scan.mean())
    assert (measured[finer == 0] == 0).all()  # air that was set to 0 stays so: nothing was measured
    assert 0 < measured[finer > 0].min() < measured.max() < 1


def test_the_paper_by_hand_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template_head(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    run_block("docs/python.md", 1, of=2)
    scan, result = nib.load("scan.nii.gz"), nib.load("result.nii.gz")
    assert isinstance(scan, nib.Nifti1Image)
    assert isinstance(result, nib.Nifti1Image)
    assert result.shape == scan.shape
    assert np.allclose(result.affine, scan.affine, atol=1e-3)
    x, y = scan.get_fdata(), result.get_fdata()
    middle = tuple(slice(n // 3, -n // 3) for n in x.shape)
    assert np.corrcoef(x[middle].ravel(), y[middle].ravel())[0, 1] > 0.7


def test_every_command_is_named_and_every_flag_exists() -> None:
    from brgm_med.pipelines.cli import parser

    commands = set(re.findall(r"(?:`|bin/)brgm-med ([a-z]\w*)", TEXT))
    actions = next(a for a in parser()._actions if a.dest == "command")
    assert isinstance(actions.choices, dict)
    flags, left = set(), [parser()]
    while left:
        for action in left.pop()._actions:
            flags |= set(action.option_strings)
            left += action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
    assert commands == set(actions.choices)
    ours = [page.read_text() for page in PAGES if page.parent.name != "how-to" and page.stem not in OF_OTHERS]
    others = {
        *("--which", "--nproc-per-node", "--config_file", "--bundle_root", "--scan", "--result"),
        *(
            "--index-url",
            "--durations",
            "--minutes",
            "--cleanenv",
            "--rm",
            "--slices",
            "--time",
            "--mem",
            "--cpus-per-task",
        ),
    }  # of benchmarks, torchrun, MONAI, pip, pytest, sbatch and containers
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", "\n".join(ours))) <= flags | others


OF_OTHERS = {"volumes", "RESULTS", "acquisition", "uncertainty"}
"""Pages of results, which name the options of benchmarks and of baselines."""


def test_the_readme_is_short_and_starts_with_the_limits() -> None:
    lines = README.splitlines()
    assert len(lines) <= 190
    assert "**Not for**" in "\n".join(lines[:40])
    assert "Diagnosis" in "\n".join(lines[:40])
    assert "make test" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text()
    assert "../shared" not in text
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The names that GitHub and the site give a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
