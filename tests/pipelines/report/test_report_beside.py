"""`sr` and `inpaint` write a page beside their result, which appears with it, as private as the scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.pipelines.cli import main
from tests.small_heads import small_head

FAST = ("--prior", "self", "--steps", "1", "--threads", "1")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("beside")
    path = small_head(folder / "head.nii.gz", seed=1, thick=True)
    path.chmod(0o640)
    assert main(["sr", "--in", str(path), *FAST]) == 0
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


RESULT = ["head_brgm.nii.gz", "head_brgm_certificate.json", "head_brgm_measured.nii.gz"]


def test_a_page_appears_with_the_result_and_is_as_private(scan: Path) -> None:
    assert set(RESULT) | {"head_brgm_report.html"} <= set(names(scan.parent))
    page = scan.with_name("head_brgm_report.html")
    assert page.stat().st_mode & 0o777 == 0o640
    text = page.read_text()
    assert "<h1>head_brgm</h1>" in text
    assert "preserved in all" in text
    assert "on average" in text[text.index("Grey: measured") :]


def test_the_page_can_be_made_again_by_itself(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, again = scan.with_name("head_brgm.nii.gz"), tmp_path / "again.html"
    assert main(["report", str(result), "--out", str(again)]) == 0
    assert again.read_bytes() == scan.with_name("head_brgm_report.html").read_bytes()
    assert main(["report", str(result)]) == 3
    assert "exists already" in capsys.readouterr().err
    assert main(["report", str(scan)]) == 3
    assert "is no readable certificate" in capsys.readouterr().err


def test_no_page_where_none_is_wanted_and_none_of_an_older_result(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    command = ["sr", "--in", str(scan), "--out", str(out), *FAST, "--no-report"]
    assert main(command) == 0
    assert names(tmp_path) == [name.replace("head_brgm", "out") for name in RESULT]
    (tmp_path / "out_report.html").write_text("of an older result")
    assert main([*command, "--force"]) == 0
    assert names(tmp_path) == [name.replace("head_brgm", "out") for name in RESULT]


def test_a_page_that_stands_there_is_refused_before_any_work(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out_report.html").write_text("precious")
    assert main(["sr", "--in", str(scan), "--out", str(tmp_path / "out.nii.gz"), *FAST]) == 3
    assert "out_report.html: exists already" in capsys.readouterr().err
    assert names(tmp_path) == ["out_report.html"]
    assert main(["sr", "--in", str(scan), "--out", str(tmp_path / "out.nii.gz"), *FAST, "--no-report"]) == 0


def test_a_hole_is_shown(scan: Path, tmp_path: Path) -> None:
    head = small_head(tmp_path / "head.nii.gz", seed=1)
    image = nib.load(head)
    assert isinstance(image, nib.Nifti1Image)
    mask = np.zeros(image.shape, np.uint8)
    mask[20:24, 20:24, 20:24] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "mask.nii.gz")
    command = ["inpaint", "--in", str(head), "--mask", str(tmp_path / "mask.nii.gz"), "--steps", "1", "--threads", "1"]
    assert main(command) == 0
    page = (tmp_path / "head_brgm_report.html").read_text()
    assert page.count("Slices through the hole before and after") == 3
    assert "64 voxels" in page
    mine = tmp_path / "again.html"
    assert main(["report", str(tmp_path / "head_brgm.nii.gz"), "--out", str(mine)]) == 0
    assert mine.read_text() == page
