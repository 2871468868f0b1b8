"""Typical mistakes: each is refused before any long work, by one line that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import dcmread

from brgm_med.pipelines.cli import main
from tests.mr_series import mr_series
from tests.small_heads import small_head, truncated

SR, INPAINT = ("sr", "{scan}"), ("inpaint", "{scan}", "--mask")
MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no scan": (("sr",), 2, r"required: SCAN \(or --in SCAN\)"),
    "a scan that is not there": (("sr", "{folder}/absent.nii.gz"), 3, "absent.nii.gz: no such file; check the name"),
    "an option of another tool": ((*SR, "--thickness", "5"), 2, "did you mean --slice-thickness?"),
    "an option for pictures": ((*SR, "--factor", "4"), 2, "--factor: is for pictures"),
    "two scans to fill": (
        ("inpaint", "{scan}", "{scan}", "--mask", "{mask}"),
        2,
        "2 scans are named.*inpaint takes one",
    ),
    "four dimensions": (("sr", "{four}"), 3, r"holds 3 volumes \(.*\); extract the one that is meant"),
    "half a file": (("sr", "{half}"), 3, "truncated|copy or export it again"),
    "isotropic already": (("sr", "{fine}", "--prior", "self"), 3, "fine"),
    "two series": (("sr", "{two}"), 3, "--series"),
    "a folder without scans": (("sr", "{empty}"), 3, "no series of DICOM; give a folder of one of these, or a file"),
    "an output that is there": ((*SR, "--out", "{mask}"), 3, "exists already; choose another name or add --force"),
    "an output without a folder": ((*SR, "--out", "{folder}/no/out.nii.gz"), 4, "no folder.*make it first"),
    "an output of another kind": ((*SR, "--out", "{folder}/out.txt"), 2, "out.txt.*nii"),
    "a page that is there": ((*SR, "--out", "{folder}/paged.nii.gz"), 3, "paged_report.html: exists already"),
    "a prior that is not there": ((*SR, "--prior", "brain-t2"), 5, "brain-t2.*no such prior"),
    "a coarser result": ((*SR, "--spacing", "6"), 2, "the scan's own is 4 mm, which a coarser grid cannot keep"),
    "a gap that does not fit": ((*SR, "--slice-thickness", "4", "--gap", "1"), 2, "is not the scan's spacing 8 mm"),
    "de-identified NIfTI": ((*SR, "--deidentify", "--out", "{folder}/x.nii.gz"), 2, "is for DICOM output"),
    "another contrast under a prior of one": (
        ("sr", "{inverted}", "--prior", "brain-t1-coronal", "--threads", "1"),
        3,
        "brain-t1-coronal does not know such scans.*leave the prior out, or take self",
    ),
    "swapped scan and mask": (("inpaint", "{mask}", "--mask", "{scan}"), 2, "--in .* and --mask .* seem to be swapped"),
    "a mask of another head": ((*INPAINT, "{elsewhere}"), 3, "elsewhere.nii.gz"),
    "a mask that marks nothing": ((*INPAINT, "{nothing}"), 3, "marks no voxel as unknown; did you mean.*--mask-known"),
    "a mask of fractions": ((*INPAINT, "{fractions}"), 3, "not all integers; give a mask of 0 and 1"),
    "a report on what is no result": (("report", "{scan}"), 3, "head_certificate.json.*give the JSON of a result"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("mistakes")
    scan = small_head(folder / "head.nii.gz", thick=True)
    image = nib.load(scan)
    assert isinstance(image, nib.Nifti1Image)
    values, affine = np.asarray(image.dataobj), image.affine
    hole = np.zeros(values.shape, np.uint8)
    hole[20:24, 20:24, 10:13] = 1
    far = affine.copy()
    far[:3, 3] += 900

    def saved(name: str, array: np.ndarray, to: np.ndarray = affine) -> Path:
        made = nib.Nifti1Image(array, to)
        made.header.set_xyzt_units("mm")
        nib.save(made, folder / f"{name}.nii.gz")
        return folder / f"{name}.nii.gz"

    (folder / "paged_report.html").write_text("precious")
    (folder / "empty").mkdir()
    mr_series(folder / "two")
    for file in mr_series(folder / "second", SeriesInstanceUID="1.2.3.8", SeriesNumber=8).iterdir():
        image_of = dcmread(file)
        image_of.SOPInstanceUID += ".8"
        image_of.file_meta.MediaStorageSOPInstanceUID = image_of.SOPInstanceUID
        image_of.save_as(folder / "two" / f"second_{file.name}")
    return {
        "folder": folder,
        "scan": scan,
        "fine": small_head(folder / "fine.nii.gz"),
        "mask": saved("mask", hole),
        "nothing": saved("nothing", 0 * hole),
        "fractions": saved("fractions", hole * np.float32(0.5)),
        "elsewhere": saved("elsewhere", hole, far),
        "four": saved("four", np.repeat(values[..., None], 3, -1)),
        "half": truncated(small_head(folder / "half.nii.gz")),
        "inverted": saved("inverted", np.where(values > 60, 700 - np.clip(values, 0, 650), values)),
        "empty": folder / "empty",
        "two": folder / "two",
    }


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_that_helps(
    mistake: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, code, advice = MISTAKES[mistake]
    before = sorted(files["folder"].rglob("*"))
    try:
        ended = main([part.format(**files) for part in command])
    except SystemExit as usage:
        ended = usage.code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if re.match(r"brgm-med( \w+)?: ", line)]
    assert (ended, len(lines), out) == (code, 1, ""), err
    assert re.search(advice, lines[0]), lines[0]
    assert sorted(files["folder"].rglob("*")) == before
