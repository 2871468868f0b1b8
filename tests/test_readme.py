"""What the README says runs."""

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

README = (ROOT / "README.md").read_text()


def run_block(number: int) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 2
    exec(compile(blocks[number], "README.md", "exec"), {})


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    degrade(template_head(tmp_path / "head.nii.gz"), tmp_path / "scan.nii.gz", thickness=6.0, axis="S")
    monkeypatch.chdir(tmp_path)
    run_block(0)
    scan, finer, measured = (nib.load(f"{name}.nii.gz").get_fdata() for name in ("scan", "finer", "measured"))  # type: ignore[attr-defined]
    assert finer.shape == measured.shape == (*scan.shape[:2], 3 * scan.shape[2])
    means = finer.reshape(*scan.shape, 3).mean(3)
    assert np.linalg.norm(means - scan) < 1e-5 * np.linalg.norm(scan - scan.mean())
    assert (measured[finer == 0] == 0).all()  # air that was set to 0 stays so: nothing was measured
    assert 0 < measured[finer > 0].min() < measured.max() < 1


def test_the_paper_by_hand_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template_head(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    run_block(1)
    scan, result = nib.load("scan.nii.gz"), nib.load("result.nii.gz")
    assert isinstance(scan, nib.Nifti1Image)
    assert isinstance(result, nib.Nifti1Image)
    assert result.shape == scan.shape
    assert np.allclose(result.affine, scan.affine, atol=1e-3)
    x, y = scan.get_fdata(), result.get_fdata()
    middle = tuple(slice(n // 3, -n // 3) for n in x.shape)
    assert np.corrcoef(x[middle].ravel(), y[middle].ravel())[0, 1] > 0.7


def test_every_command_and_flag_that_it_names_exists() -> None:
    from brgm_med.pipelines.cli import parser

    commands = set(re.findall(r"(?:`|bin/)brgm-med (\w+)", README))
    actions = next(a for a in parser()._actions if a.dest == "command")
    assert isinstance(actions.choices, dict)
    flags, left = set(), [parser()]
    while left:
        for action in left.pop()._actions:
            flags |= set(action.option_strings)
            left += action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
    assert commands == set(actions.choices)
    others = {
        "--which",
        "--nproc-per-node",
        "--config_file",
        "--bundle_root",
    }  # of benchmarks, torchrun and MONAI
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", README)) <= flags | others
