"""The installed command: every refusal is one line, its exit code, no traceback, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.pipelines.cli import main
from brgm_med.priors import bundle
from tests.bad_scans import LYING, make_bad_scans, nifti, voxels
from tests.commands import refused, run

with tempfile.TemporaryDirectory() as scratch:
    KINDS = sorted(make_bad_scans(Path(scratch)))


@pytest.fixture(scope="module")
def bad_scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_bad_scans(tmp_path_factory.mktemp("bad"))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A valid scan (of no head)."""
    path = tmp_path / "scan.nii.gz"
    nib.save(nifti(voxels((20, 22, 24))), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_bad_scans_are_refused(bad_scans: dict[str, Path], kind: str, tmp_path: Path) -> None:
    path = bad_scans[kind]
    line = refused(run("sr", "--in", path, "--out", tmp_path / "out.nii.gz"), 3)
    assert path.name in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", LYING)
def test_headers_that_lie_cost_little_memory(bad_scans: dict[str, Path], kind: str) -> None:
    """Refused with less than 300 MB of address space beyond what an idle interpreter takes."""
    import resource

    limit = 700 << 20
    done = run("sr", "--in", bad_scans[kind], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    refused(done, 3)


def test_a_missing_scan_is_refused(tmp_path: Path) -> None:
    assert "nothing.nii.gz" in refused(run("sr", "--in", tmp_path / "nothing.nii.gz"), 3)


def test_existing_output_is_refused_without_force(scan: Path) -> None:
    out = scan.with_name("out.nii.gz")
    out.write_bytes(b"precious")
    assert "--force" in refused(run("sr", "--in", scan, "--out", out), 3)
    assert "--force" in refused(run("degrade", "--in", scan, "--factor", 2, "--out", out), 3)
    assert out.read_bytes() == b"precious"


def test_an_existing_certificate_is_refused_without_force(scan: Path) -> None:
    proof = scan.with_name("proof.json")
    proof.write_text("precious")
    assert "proof.json" in refused(run("sr", "--in", scan, "--certificate", proof), 3)


def test_the_input_is_never_overwritten(scan: Path) -> None:
    before = scan.read_bytes()
    refused(run("sr", "--in", scan, "--out", scan, "--force"), 2)
    assert scan.read_bytes() == before


def test_a_missing_folder_cannot_be_written(scan: Path, tmp_path: Path) -> None:
    refused(run("sr", "--in", scan, "--out", tmp_path / "no" / "out.nii.gz"), 4)
    refused(run("degrade", "--in", scan, "--factor", 2, "--out", tmp_path / "no" / "out.nii.gz"), 4)


def test_an_unwritable_folder(scan: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere but there
        locked = Path("/proc")
    refused(run("degrade", "--in", scan, "--factor", 2, "--out", locked / "out.nii.gz"), 4)
    refused(run("sr", "--in", scan, "--out", locked / "out.nii.gz"), 4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing(scan: Path, small_disk: Path) -> None:
    done = run("degrade", "--in", scan, "--slice-thickness", 5, "--axis", "A", "--out", small_disk / "out.nii")
    assert "No space left" in refused(done, 4)
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("sr",),
        ("sr", "--in", "a.nii", "--steps", "0"),
        ("sr", "--in", "a.nii", "--slice-thickness", "-1"),
        ("sr", "--in", "a.nii", "--slice-thickness", "inf"),
        ("sr", "--in", "a.nii", "--slice-thickness", "estimated"),
        ("sr", "--in", "a.nii", "--even-odd", "keep"),
        ("degrade", "--in", "a.nii", "--out", "b.nii", "--axis", "S", "--slice-thickness", "estimate"),
        ("degrade", "--in", "a.nii", "--out", "b.nii", "--axis", "Q"),
        ("prior",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_contradicting_flags(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    refused(run("degrade", "--in", scan, "--out", out), 2)
    refused(run("degrade", "--in", scan, "--out", out, "--factor", 2, "--slice-thickness", 5, "--axis", "A"), 2)
    refused(run("degrade", "--in", scan, "--out", out, "--slice-thickness", 5), 2)
    refused(run("sr", "--in", scan, "--out", out, "--slice-thickness", 1, "--gap", 7), 2)
    refused(run("sr", "--in", scan, "--out", tmp_path / "out.txt"), 2)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(scan: Path) -> None:
    assert "CUDA" in refused(run("sr", "--in", scan, "--device", "cuda"), 2)


def test_an_unknown_prior(scan: Path) -> None:
    assert "no such prior" in refused(run("sr", "--in", scan, "--prior", "no-such-prior"), 5)
    assert "no such prior" in refused(run("prior", "verify", "no-such-prior"), 5)


def test_a_damaged_prior(scan: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.find(bundle.DEFAULT), copy)
    weights = copy / "models" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "model.safetensors" in refused(run("sr", "--in", scan, "--prior", copy), 5)
    weights.unlink()
    assert "model.safetensors" in refused(run("prior", "verify", copy), 5)


def test_missing_lpips_weights(scan: Path, tmp_path: Path) -> None:
    done = run("sr", "--in", scan, "--perceptual", "alex", "--lpips-weights", tmp_path / "no.pth")
    assert "no.pth" in refused(done, 5)


def test_what_is_no_head_is_refused(scan: Path) -> None:
    done = run("sr", "--in", scan)
    assert done.returncode == 3
    assert "scan.nii.gz" in done.stderr.splitlines()[-1]
    assert sorted(p.name for p in scan.parent.iterdir()) == ["scan.nii.gz"]


def test_a_damaged_sidecar_is_refused(scan: Path) -> None:
    scan.with_name("scan.json").write_text("{")
    assert "scan.json" in refused(run("sr", "--in", scan), 3)


def test_degrade_states_its_acquisition(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "coarse.nii.gz"
    assert run("degrade", "--in", scan, "--slice-thickness", 5, "--axis", "S", "--gap", 1, "--out", out).returncode == 0
    stated = json.loads((tmp_path / "coarse.json").read_text())["BrgmMedAcquisition"]
    assert stated["Thickness"]["S"] == 5
    assert stated["Spacing"]["S"] == 6
    fine, coarse = nib.load(scan), nib.load(out)
    assert isinstance(fine, nib.Nifti1Image)
    assert isinstance(coarse, nib.Nifti1Image)
    assert np.allclose(sorted(coarse.header.get_zooms()), [2, 3, 6])
    # The first edges of both grids are one: nothing moved.
    corner = [-0.5, -0.5, -0.5]
    assert np.allclose(nib.affines.apply_affine(fine.affine, corner), nib.affines.apply_affine(coarse.affine, corner))


def test_priors_are_listed_shown_and_verified() -> None:
    assert bundle.DEFAULT in run("prior", "list").stdout
    assert "not" in run("prior", "show").stdout
    assert bundle.load().sha256 in run("prior", "verify").stdout


def test_doctor_tells_what_is_there() -> None:
    done = run("doctor")
    assert done.returncode == 0
    for word in ("torch", "device:", "operations: ", "NVRTC", "LPIPS alex", bundle.DEFAULT):
        assert word in done.stdout


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["series", LONG], 3),
        (["sr", "--in", f"{LONG}.nii.gz"], 3),
        (["degrade", "--in", "{scan}", "--out", f"{LONG}.nii.gz", "--axis", "S", "--slice-thickness", "6"], 4),
        (["inpaint", "--in", "{scan}", "--mask", f"{LONG}.nii.gz"], 3),
        (["train", "--data", LONG, "--out", "{out}"], 3),
        (["run", LONG, "{out}", "participant"], 3),
        (["prior", "show", LONG], 5),
        (["send", LONG, "--to", "A@localhost:1"], 3),
    ],
)
def test_names_that_no_file_can_have(
    command: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan.nii"
    scan.write_bytes(nifti(voxels()).to_bytes())
    assert main([part.format(scan=scan, out=tmp_path / "out") for part in command]) == code
    assert "unexpected" not in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["torch"])
def test_doctor_without_torch(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch: MISSING or broken" in out
    assert "files as they should be" in out
