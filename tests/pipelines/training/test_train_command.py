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

from brgm_med.errors import PriorError, UsageError
from brgm_med.pipelines.training.heads import export, slices_of
from brgm_med.pipelines.training.run import split
from brgm_med.priors.bundle import load
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import BOX_SHAPE, centred_grid
from tests import phantom
from tests.runs import same, save_run

COMMAND = Path(sys.executable).with_name("brgm-med")
CLOSE = {"rtol": 1e-2, "atol": 1e-2}
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
        command(tmp_path, *args), env=offline(tmp_path), capture_output=True, text=True, timeout=1200, check=False
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


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_four_heads_make_a_prior_and_resuming_changes_nothing(tmp_path: Path) -> None:
    data, run, whole = save_heads(tmp_path / "data", 4), tmp_path / "run", tmp_path / "whole"
    three = ("--heads", 3, "--held-out", 0)
    done = train(tmp_path, "--data", data, "--out", run, "--kimg", 0.048, *three)
    assert done.returncode == 0, done.stderr
    # Progress all the way.
    for line in ("template: round 1", "registered 3 of 3 heads", "3 heads x 61 slices, 0 heads held out", "images/s"):
        assert line in done.stdout
    assert "training without a perceptual term" in done.stdout
    assert f"wrote {run / 'prior'}" in done.stdout
    with open(run / "losses.csv", newline="") as file:
        assert int(list(csv.DictReader(file))[-1]["images"]) == 48

    # The template and what is prepared already, for an uninterrupted run that is measured on the fourth head.
    whole.mkdir()
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copy(run / name, whole / name)
    shutil.copytree(run / "cache", whole / "cache")

    done = train(tmp_path, "--data", data, "--out", run, "--kimg", 0.08, *three)
    assert done.returncode == 0, done.stderr
    assert "resumed at 0.0 kimg" in done.stdout
    assert "registered 1 of" not in done.stdout
    done = train(tmp_path, "--data", data, "--out", whole, "--kimg", 0.08)
    assert done.returncode == 0, done.stderr
    assert f"template: the one that {whole} holds" in done.stdout
    assert "3 of 4 heads were registered before" in done.stdout
    assert "registered 1 of 1 heads" in done.stdout
    assert "3 heads x 61 slices, 1 head held out" in done.stdout
    assert "resumed" not in done.stdout
    resumed, expected = (torch.load(r / "state.pt", weights_only=True) for r in (run, whole))
    assert resumed["images"] == 80
    for key in expected:
        assert key == "record" or same(resumed[key], expected[key]), key

    check_heads(whole)
    # Snapshots are measured on the head that was held out, and the best of them is the prior.
    assert resumed["record"]["snapshots"] == []
    assert not (run / "best.safetensors").exists()
    (snapshot,) = expected["record"]["snapshots"]
    assert snapshot["images"] == 80
    assert np.isfinite([snapshot["inversion_psnr"], snapshot["frechet"], snapshot["score"]]).all()
    assert (whole / "best.safetensors").is_file()
    assert (whole / "pictures" / "000000.png").is_file()
    prior = load(str(whole / "prior"))
    assert prior.metadata["heads"] == [f"head{i}.nii.gz" for i in range(3)]
    assert prior.metadata["held_out"] == ["head3.nii.gz"]
    assert prior.metadata["training"]["exported"] == "the snapshot of the highest score"
    assert prior.metadata["training"]["snapshots"] == [snapshot]
    assert prior.metadata["eval_metrics"]["inversion_psnr"] == snapshot["inversion_psnr"]
    x, y, z = BOX_SHAPE
    assert prior.grid_shape == BOX_SHAPE
    image = prior.sample()
    assert image.shape == (y, 1, z, x)
    assert bool(torch.isfinite(image).all())

    # Other heads, or another seed, are not that run's.
    before = (whole / "state.pt").read_bytes()
    for extra, named in (
        (("--held-out", 0), "was trained on 3 other heads, with 1 held out"),
        (("--seed", 1), "seed 0, not 1"),
    ):
        done = train(tmp_path, "--data", data, "--out", whole, "--kimg", 1, *extra)
        assert done.returncode == 5, done.stderr
        assert named in done.stderr
        assert done.stderr.count("\n") == 1
    assert (whole / "state.pt").read_bytes() == before


def check_heads(run: Path) -> None:
    """Three heads and one that is held out are registered and normalised."""
    x, y, z = BOX_SHAPE
    slices, held_out = slices_of(run), slices_of(run, "held_out")
    assert (len(slices), len(held_out)) == (3, 1)
    stacks = [slices[0], slices[1], slices[2], held_out[0]]
    assert all(stack.shape == (y, 1, z, x) and stack.dtype == torch.float16 for stack in stacks)
    # Air is -1; the middle of the heads is tissue, and after registration they are nearly the same picture.
    assert all(abs(float(stack[:, 0, 0, 0].float().median()) + 1) < 0.1 for stack in stacks)
    middle = [stack[y // 2, 0].float().flatten() for stack in stacks]
    assert all(float(torch.corrcoef(torch.stack([middle[0], m]))[0, 1]) > 0.9 for m in middle[1:])
    prepared = json.loads((run / "prepared.json").read_text())
    assert [head["name"] for head in prepared["heads"]] == [f"head{i}.nii.gz" for i in range(3)]
    assert [head["name"] for head in prepared["held_out"]] == ["head3.nii.gz"]
    assert prepared["grid"]["shape"] == [x, y, z]
    for head in prepared["heads"]:
        rotation = np.asarray(head["pose"])[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)


def test_a_tenth_is_held_out_unless_said_otherwise() -> None:
    assert [split(n) for n in (1, 3, 4, 9, 10, 25, 150)] == [(1, 0), (3, 0), (3, 1), (8, 1), (9, 1), (23, 2), (135, 15)]
    assert split(150, heads=120) == (120, 15)
    assert split(150, heads=140) == (140, 10)
    assert split(150, heads=150) == (150, 0)
    assert split(150, held_out=30) == (120, 30)
    assert split(150, 120, 0) == (120, 0)
    for wrong in ((4, 5, None), (4, 3, 2), (4, None, 4), (4, None, 5)):
        with pytest.raises(UsageError, match="the folder holds 4 heads"):
            split(*wrong)


def test_the_snapshot_that_measured_best_is_exported(tmp_path: Path) -> None:
    state, run = save_run(tmp_path / "run"), tmp_path / "run"
    about = {"name": "p", "description": "d", "licence": "l", "card": "c"}
    export(run, tmp_path / "last", **about)
    last = load(str(tmp_path / "last"))
    assert last.metadata["training"]["exported"] == "the last state"
    assert last.metadata["training"]["images"] == 32
    assert last.metadata["eval_metrics"] == {"score": 2}
    for parameter in state.average.parameters():
        parameter.add_(0.25)
    state.images = 16
    state.save_snapshot(run / "best.safetensors")
    export(run, tmp_path / "best", **about)
    best = load(str(tmp_path / "best"))
    assert best.metadata["training"]["exported"] == "the snapshot of the highest score"
    assert best.metadata["training"]["images"] == 16
    assert best.metadata["training"]["images_at_the_end"] == 32
    assert best.metadata["training"]["snapshots"] == state.record["snapshots"]
    assert best.metadata["eval_metrics"] == {"score": 3.0}
    name = "synthesis.b5.const"
    torch.testing.assert_close(best.generator.state_dict()[name], last.generator.state_dict()[name] + 0.25, **CLOSE)


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_run(run)
    assert len(slices_of(run)) == 2
    (run / "cache" / "1.pt").write_bytes(b"x")
    assert len(slices_of(run, "held_out")) == 1
    with pytest.raises(PriorError, match=r"1\.pt: missing or damaged"):
        slices_of(run)
    for content in ("", "{}", "[]", '{"heads": ["head0.nii.gz"], "held_out": []}'):
        (run / "prepared.json").write_text(content)
        with pytest.raises(PriorError, match=r"prepared\.json: missing or damaged"):
            slices_of(run)
    (run / "state.pt").unlink()
    with pytest.raises(PriorError, match="holds no training state"):
        export(run, tmp_path / "out", name="p", description="d", licence="l", card="c")
    assert not (tmp_path / "out").exists()


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
@pytest.mark.timeout(900)
def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    few = save_heads(tmp_path / "few", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    cases = (
        (tmp_path / "missing", tmp_path / "never", 3, "missing"),
        (tmp_path / "empty", tmp_path / "never", 3, "empty"),
        (few, few / "run", 3, "2 heads"),
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
