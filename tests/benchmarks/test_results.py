"""The one command that makes docs/RESULTS.md, on three images of one small head, with every method that runs here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from brgm_med.pipelines.evaluation import table
from tests.house import ROOT
from tests.small_heads import small_head

BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = BENCHMARKS.parent.parent / "shared" / "weights" / "alexnet_features_fp16.pth"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_three_images_make_the_whole_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("BRGM_MED_LPIPS_WEIGHTS", raising=False)
    if WEIGHTS.is_file():
        monkeypatch.setenv("BRGM_MED_LPIPS_WEIGHTS", str(WEIGHTS))
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    results = importlib.import_module("results")
    monkeypatch.setattr(results, "TRAIN", (0, 2))
    monkeypatch.setattr(results, "REPORT", (2, 3))
    for seed in range(3):
        small_head(tmp_path / "shared" / "ixi-hh-2mm" / "t1" / f"head{seed}.nii.gz", seed)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "volumes.md").write_text("# Volumes\n\n| cases | n |\n|---|---|\n| a | 3 |\n\nAnd more.\n")
    asked = ["--shared", tmp_path / "shared", "--out", tmp_path / "out", "--docs", tmp_path / "docs"]
    asked += ["--every", 30, "--images", 64, "--workers", 2]
    results.main([str(a) for a in asked])

    text = (tmp_path / "docs" / "RESULTS.md").read_text()
    for said in (
        "not edited by hand",
        "## Whole volumes",
        "|---|---|\n| a | 3 |\n\n## Single slices in short",
        "3 coronal slices of 1 heads",
        "as printed in the paper",
        "Brains 16²",
        "Brains: Super-resolution, factor 8",
        "Brains: Thick slices, 6 mm",
        'Brains: Inpainting, the hole "strokes"',
        "Brains: Shift: noise 5 %",
        "raised the squared error of ours: 0 of 3",
        "| dip |",
        "| pulse |",
        "| supervised+consistency |",
    ):
        assert said in text, said
    pictures = {path.name for path in (tmp_path / "docs" / "results").glob("*.png")}
    assert {"sr.png", "slices.png", "shift.png", "sr-4.png", "inpaint-half.png"} <= pictures
    assert all(f"results/{name}" in text for name in pictures)
    tables = {task: table.read(tmp_path / "out" / "brains" / f"{task}.csv") for task in ("sr", "slices", "inpaint")}
    assert {row["level"] for row in tables["sr"]} == {"2", "3", "4", "6", "8"}
    assert {row["level"] for row in tables["slices"]} == {"4", "6", "8"}
    assert len({row["level"] for row in tables["inpaint"]}) == 7
    if WEIGHTS.is_file():
        assert {f"projection-{step}" for step in "abcdef"} <= {row["method"] for row in tables["sr"]}

    before = {path: path.read_bytes() for path in (tmp_path / "out" / "brains").glob("*.csv")}
    results.main([str(a) for a in asked])
    assert (tmp_path / "docs" / "RESULTS.md").read_text() == text
    assert {path: path.read_bytes() for path in before} == before
