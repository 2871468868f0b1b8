"""`brgm-med train`: a folder of heads in; a template, a state and a prior out, and the same again when resumed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.priors.bundle import load
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import BOX_SHAPE, centred_grid
from tests import phantom

COMMAND = Path(sys.executable).with_name("brgm-med")
POSES = (
    phantom.rigid(6.0, -4.0, 3.0, (5.0, -8.0, 10.0)),
    phantom.rigid(-5.0, 3.0, -2.0, (-6.0, 4.0, -5.0)),
    phantom.rigid(2.0, 6.0, 4.0, (0.0, 9.0, 3.0)),
    phantom.rigid(-3.0, -5.0, -5.0, (4.0, -3.0, -9.0)),
)


def command(tmp_path: Path, *args: object) -> list[str]:
    return [str(COMMAND), "train", "--threads", "1", *(str(a) for a in args)]


def offline(tmp_path: Path) -> dict[str, str]:
    """An environment in which no weights are to be found."""
    none = {"TORCH_HOME": str(tmp_path / "none"), "XDG_CACHE_HOME": str(tmp_path / "none")}
    return {k: v for k, v in os.environ.items() if k != "BRGM_MED_LPIPS_WEIGHTS"} | none


def train(tmp_path: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(tmp_path, *args), env=offline(tmp_path), capture_output=True, text=True, timeout=800, check=False
    )


def save_heads(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i, pose in enumerate(POSES[:count]):
        grid = Grid((56, 64, 58), centred_grid((56, 64, 58), 4.0, tuple(pose[:3, 3])).affine)
        noise = np.random.default_rng(i).standard_normal(grid.shape)
        values = 20 + (600 + 50 * i) * phantom.head(grid, pose, edge=3)[0].numpy() + 5 * noise
        image = nib.nifti1.Nifti1Image(values.round().clip(0).astype(np.int16), grid.affine)
        image.set_sform(grid.affine, code=1)
        image.set_qform(grid.affine, code=1)
        nib.nifti1.save(image, folder / f"head{i}.nii.gz")
    return folder


def same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_four_heads_make_a_prior_and_resuming_changes_nothing(tmp_path: Path) -> None:
    data, run, whole = save_heads(tmp_path / "data", 4), tmp_path / "run", tmp_path / "whole"
    done = train(tmp_path, "--data", data, "--out", run, "--kimg", 0.048)
    assert done.returncode == 0, done.stderr
    assert "training without a perceptual term" in done.stdout
    assert "images/s" in done.stdout

    slices = np.load(run / "slices.npy", mmap_mode="r")
    x, y, z = BOX_SHAPE
    assert slices.shape == (4, y, 1, z, x)
    assert slices.dtype == np.float16
    # Air is -1; the middle of the heads is tissue, and after registration they are nearly the same picture.
    assert abs(float(np.median(slices[:, :, 0, 0, 0].astype(np.float32))) + 1) < 0.1
    middle = slices[:, y // 2, 0].astype(np.float32)
    assert all(np.corrcoef(middle[0].ravel(), m.ravel())[0, 1] > 0.9 for m in middle[1:])
    prepared = json.loads((run / "prepared.json").read_text())
    assert prepared["heads"] == [f"head{i}.nii.gz" for i in range(4)]
    assert prepared["grid"]["shape"] == [x, y, z]
    for pose in prepared["poses"]:
        rotation = np.asarray(pose)[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    with open(run / "losses.csv", newline="") as file:
        assert int(list(csv.DictReader(file))[-1]["images"]) == 48

    shutil.copytree(run, whole)
    for name in ("state.pt", "losses.csv"):
        (whole / name).unlink()
    shutil.rmtree(whole / "prior")

    done = train(tmp_path, "--data", data, "--out", run, "--kimg", 0.08)
    assert done.returncode == 0, done.stderr
    assert "resumed at 0.0 kimg" in done.stdout
    assert "registered" not in done.stdout
    done = train(tmp_path, "--data", data, "--out", whole, "--kimg", 0.08)
    assert done.returncode == 0, done.stderr
    assert "resumed" not in done.stdout
    resumed, expected = (torch.load(r / "state.pt", weights_only=True) for r in (run, whole))
    assert resumed["images"] == 80
    assert same(resumed, expected)

    prior = load(str(run / "prior"))
    assert prior.grid_shape == BOX_SHAPE
    assert prior.generator.image_shape == (z, x)
    assert prior.metadata["training"]["images"] == 80
    image = prior.generator.synthesis(prior.statistics.mean(torch.zeros(1, prior.generator.c_dim)).reshape(1, -1, 128))
    assert bool(torch.isfinite(image).all())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_saves_and_the_exit_code_says_so(tmp_path: Path) -> None:
    data, run = save_heads(tmp_path / "data", 3), tmp_path / "run"
    child = subprocess.Popen(
        command(tmp_path, "--data", data, "--out", run, "--kimg", 1000),
        env=offline(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "images/s" in line:
            break
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=200)
    assert child.returncode == 130
    assert errors.strip() == "brgm-med: interrupted"
    state = torch.load(run / "state.pt", weights_only=True)
    assert state["images"] == 16 * state["iteration"] > 0


@pytest.mark.slow
def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    few = save_heads(tmp_path / "few", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    cases = (
        (tmp_path / "missing", tmp_path / "never", 3, "missing"),
        (tmp_path / "empty", tmp_path / "never", 3, "empty"),
        (few, tmp_path / "run", 3, "2 heads"),
        (few, tmp_path / "file", 4, "file"),
        (few, tmp_path / "file" / "run", 4, "file"),
    )
    for data, out, code, named in cases:
        done = train(tmp_path, "--data", data, "--out", out)
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == 1
        assert named in done.stderr
        assert "Traceback" not in done.stderr
        assert not (out / "prepared.json").exists()
    assert not (tmp_path / "never").exists()
