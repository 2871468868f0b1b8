"""`sr --preset paper`: the paper's search, what comes after it by name, and what it is not for."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.steps.degrade import degrade
from brgm_med.priors import DEFAULT
from tests.heads import template_head
from tests.picture_prior import prior as prior
from tests.picture_prior import run, scene


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    return degrade(template_head(folder / "head.nii.gz"), folder / "scan.nii.gz", thickness=6.0, axis="S")


def sr(scan: Path, out: Path, *more: str) -> int:
    common = ("--steps", "2", "--perceptual", "none", "--noise", "0", "--threads", "1", "--no-report")
    return main(["sr", str(scan), "--out", str(out), "--prior", DEFAULT, *common, *more])


def certificate(out: Path) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads(out.with_name("out_certificate.json").read_text())
    return content


def test_the_papers_search_is_projected(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    assert sr(scan, out, "--preset", "paper") == 0
    parameters = certificate(out)["parameters"]
    assert parameters["preset"] == "paper"
    assert parameters["weights"] == {"perceptual": 0.0, "pixel": 0.001 * 127.5**2, "w": 100.0, "colinear": 3.0}
    assert float(str(certificate(out)["consistency"]["relative_residual"])) < 1e-5


def test_without_projection_nothing_counts_as_measured_and_that_is_said(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.nii.gz"
    assert sr(scan, out, "--preset", "paper", "--no-projection") == 0
    assert "not projected, so it does not keep what was measured" in capsys.readouterr().err
    assert certificate(out)["parameters"]["projected"] is False
    assert float(str(certificate(out)["consistency"]["relative_residual"])) > 0.01
    measured = nib.load(tmp_path / "out_measured.nii.gz")
    assert isinstance(measured, nib.Nifti1Image)
    assert not np.asarray(measured.dataobj).any()


@pytest.mark.parametrize("option", [("--preset", "paper"), ("--no-projection",)])
@pytest.mark.parametrize("prior", ["auto", "self"])
def test_beside_the_scans_own_prior_it_is_refused(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prior: str, option: tuple[str, ...]
) -> None:
    assert main(["sr", str(scan), "--out", str(tmp_path / "x.nii.gz"), "--prior", prior, *option]) == 2
    error = capsys.readouterr().err.splitlines()
    assert f"{' '.join(option)}: is of a search in a generator alone" in error[-1]
    assert not (tmp_path / "x.nii.gz").exists()


def test_pictures_are_searched_as_published_too(prior: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.png"
    Image.fromarray(scene(15, 10, 255).astype(np.uint8)).save(scan)
    common = ("sr", "--in", scan, "--prior", prior, "--steps", 5, "--preset", "paper", "--perceptual", "none")
    assert run(*common, "--out", tmp_path / "projected.png") == 0
    assert run(*common, "--out", tmp_path / "published.png", "--no-projection") == 0
    entries = [json.loads((tmp_path / f"{name}_certificate.json").read_text()) for name in ("projected", "published")]
    assert [entry["consistency"]["within_bound"] for entry in entries] == [True, False]
    assert [entry["parameters"].get("projected", True) for entry in entries] == [True, False]
    assert entries[0]["parameters"]["preset"] == "paper"


def test_a_perceptual_term_of_pictures_is_the_papers(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan.png"
    Image.fromarray(scene(15, 10, 255).astype(np.uint8)).save(scan)
    assert run("sr", "--in", scan, "--prior", prior, "--perceptual", "alex") == 2
    assert "is a term of --preset paper" in capsys.readouterr().err
