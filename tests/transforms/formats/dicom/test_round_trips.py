"""The commands from DICOM to DICOM, to NIfTI and back: small, through the command line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.steps.write_dicom import write_dicom
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.load import LoadScan
from tests.heads import template_head
from tests.mr_series import OBLIQUE, blob, mr_series

RAS_LPS = np.diag([-1.0, -1, 1, 1])
SECRETS = ("Jürgen", "Müller", "PAT-4711", "19700203", "A77", "1.2.826")


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    image = LoadScan()(path)
    return image[0].numpy(), image.affine.numpy()


def nothing_secret(*texts: str) -> None:
    for secret in SECRETS:
        assert not any(secret in text for text in texts)


def test_degrade_gives_the_same_in_both_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = mr_series(tmp_path / "in")
    for name in ("out", "file.nii", "again"):
        text = ("degrade", "--in", source, "--slice-thickness", 5, "--gap", 1, "--axis", "S", "--uid-seed", "s")
        assert run(*text, "--out", tmp_path / name) == 0
    values, affine = volume(tmp_path / "out")
    expected, expected_affine = volume(tmp_path / "file.nii")
    assert values.shape == expected.shape == (12, 10, 3)
    assert np.abs(values - expected).max() <= 0.5
    assert np.allclose(affine, expected_affine, atol=1e-4)
    first = dcmread(tmp_path / "out" / "0001.dcm")
    assert (first.SliceThickness, first.SpacingBetweenSlices) == pytest.approx((5, 6))
    assert first.SeriesDescription == "t1 grün brgm-med degrade"
    for one, other in zip(*(sorted((tmp_path / n).iterdir()) for n in ("out", "again")), strict=True):
        assert one.read_bytes() == other.read_bytes()
    sidecar = (tmp_path / "out.json").read_text()
    assert json.loads(sidecar)["BrgmMedAcquisition"]["Thickness"]
    nothing_secret(sidecar, capsys.readouterr().err)


def test_nifti_becomes_dicom_like_a_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through NIfTI and back: the voxels, the places, the patient; no source that is not known to be one."""
    source = mr_series(tmp_path / "in")
    assert run("degrade", "--in", source, "--out", tmp_path / "a.nii", "--factor", 2, "--dtype", "source") == 0
    whole = nib.Nifti1Image(blob().astype(np.int16), RAS_LPS @ OBLIQUE)
    nib.save(whole, tmp_path / "whole.nii")
    coarse = ("degrade", "--in", tmp_path / "whole.nii", "--factor", 2)
    assert run(*coarse, "--like", source, "--out", tmp_path / "b") == 0
    values, affine = volume(tmp_path / "b")
    expected, expected_affine = volume(tmp_path / "a.nii")
    assert np.abs(values - expected).max() <= 0.6
    assert np.allclose(affine, expected_affine, atol=1e-3)
    first, old = dcmread(tmp_path / "b" / "0001.dcm"), dcmread(source / "IM000")
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert first[name].value == old[name].value
    assert "SourceImageSequence" not in first
    far = nib.Nifti1Image(blob().astype(np.int16), np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 900)
    nib.save(far, tmp_path / "far.nii")
    scanner = mr_series(tmp_path / "ct", Modality="CT")
    cases = [
        (("degrade", "--in", scanner, "--factor", 2, "--out", tmp_path / "c"), 3, "is CT, not MR"),
        ((*coarse, "--out", tmp_path / "c"), 2, "must end in"),
        ((*coarse, "--like", source, "--out", tmp_path / "c.nii"), 2, "--like: is for DICOM output"),
        (("degrade", "--in", source, "--factor", 2, "--like", source, "--out", tmp_path / "c"), 2, "leave it out"),
        (("degrade", "--in", source, "--factor", 2, "--out", source / "c"), 2, "must not lie in one another"),
        (("degrade", "--in", source, "--factor", 2, "--out", source, "--force"), 2, "must not lie in one another"),
        (("degrade", "--in", source, "--factor", 2, "--out", tmp_path / "x.png"), 2, "must end in"),
        (("degrade", "--in", source, "--factor", 2, "--out", tmp_path / "b"), 3, "exists already"),
        (("degrade", "--in", source, "--factor", 2, "--out", tmp_path / "none" / "b"), 4, "cannot be written"),
        (
            ("degrade", "--in", tmp_path / "far.nii", "--factor", 2, "--like", source, "--out", tmp_path / "c"),
            3,
            "lies elsewhere",
        ),
        ((*coarse, "--like", tmp_path / "a.nii", "--out", tmp_path / "c"), 3, "a.nii"),
    ]
    for arguments, code, says in cases:
        capsys.readouterr()
        assert run(*arguments) == code, arguments
        said = capsys.readouterr().err
        assert says in said
        assert len(said.splitlines()) == 1
        nothing_secret(said)
    assert not (tmp_path / "c").exists()
    assert run("degrade", "--in", source, "--factor", 2, "--out", tmp_path / "b", "--force") == 0
    mr_series(source / "other", SeriesNumber=5, SeriesInstanceUID="1.2.3")
    assert run(*coarse, "--like", source, "--out", tmp_path / "c") == 3
    assert run(*coarse, "--like", source, "--series", 5, "--out", tmp_path / "c") == 0
    assert dcmread(tmp_path / "c" / "0001.dcm").SeriesNumber == 1005


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `thick`, a DICOM head of 6 mm slices, and `thick.json`."""
    folder = tmp_path_factory.mktemp("head")
    image = nib.load(template_head(folder / "head.nii.gz"))
    assert isinstance(image, nib.Nifti1Image)
    voxels = np.asarray(image.dataobj).astype(np.uint16)
    mr_series(folder / "in", voxels, RAS_LPS @ image.affine)
    assert run("degrade", "--in", folder / "in", "--out", folder / "thick", "--slice-thickness", 6, "--axis", "S") == 0
    return folder


def test_super_resolution_stays_dicom(head: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No name given: a folder beside the scan. Its block means are the scan, to half a step of each of both."""
    assert run("sr", "--in", head / "thick", "--steps", 2, "--threads", 1) == 0
    coarse, _ = volume(head / "thick")
    fine, affine = volume(head / "thick_brgm")
    again = fine.reshape(*fine.shape[:2], -1, 3).mean(3)[..., : coarse.shape[2]]
    assert np.abs(again - coarse).max() <= 0.5 + 1e-3
    said = (head / "thick_brgm_certificate.json").read_text()
    content = json.loads(said)
    assert content["consistency"]["within_bound"]
    assert content["consistency"]["bound"] == 0.5
    assert content["result"]["dicom_files"] == fine.shape[2]
    assert "stated" in content["acquisition"]["Origin"]
    first = dcmread(head / "thick_brgm" / "0001.dcm")
    assert content["prior"]["sha256"] in first.ContributingEquipmentSequence[-1].ContributionDescription
    assert [i.SoftwareVersions for i in first.ContributingEquipmentSequence] == [content["software"].split()[1]] * 2
    assert len(first.DerivationCodeSequence) == 2
    assert first.SeriesNumber == 2004
    assert "not for diagnosis" in first.ImageComments
    nothing_secret(said, capsys.readouterr().err)
    # The same as NIfTI, and from NIfTI as DICOM.
    assert run("sr", "--in", head / "thick", "--out", head / "fine.nii.gz", "--steps", 2, "--threads", 1) == 0
    other, other_affine = volume(head / "fine.nii.gz")
    assert np.abs(other - fine).max() <= 0.5 + 1e-3
    assert np.allclose(other_affine, affine, atol=1e-3)
    nib.save(nib.Nifti1Image(coarse.astype(np.int16), volume(head / "thick")[1]), head / "nifti.nii.gz")
    arguments = ("sr", "--in", head / "nifti.nii.gz", "--like", head / "thick", "--steps", 2, "--threads", 1)
    assert run(*arguments) == 0
    back, back_affine = volume(head / "nifti_brgm")
    assert np.abs(back - fine).max() <= 2
    assert np.allclose(back_affine, affine, atol=1e-3)


def test_inpainting_keeps_every_other_integer(head: Path) -> None:
    stored, affine = volume(head / "in")
    mask = np.zeros(stored.shape, np.uint8)
    middle = [n // 2 for n in stored.shape]
    mask[middle[0] - 3 : middle[0] + 3, middle[1] - 2 : middle[1] + 2, middle[2] - 3 : middle[2] + 3] = 1
    nib.save(nib.Nifti1Image(mask, affine), head / "mask.nii.gz")
    arguments = ("inpaint", "--in", head / "in", "--mask", head / "mask.nii.gz", "--steps", 2, "--threads", 1)
    assert run(*arguments) == 0
    found, found_affine = volume(head / "in_brgm")
    assert np.array_equal(found[mask == 0], stored[mask == 0])
    assert not np.array_equal(found[mask == 1], stored[mask == 1])
    assert np.allclose(found_affine, affine, atol=1e-6)
    first = dcmread(head / "in_brgm" / "0001.dcm")
    assert "RescaleSlope" not in first
    assert first.DerivationCodeSequence[0].CodeValue == "113047"
    content = json.loads((head / "in_brgm_certificate.json").read_text())
    told = first.ImageComments.splitlines()
    assert told[0] == content["statement"]
    assert f"software: {content['software']}" in told
    assert any(line.startswith("prior: ") and content["prior"]["sha256"] in line for line in told)
    assert any(line.startswith("parameters: ") and "steps: 2" in line for line in told)
    assert any(line.startswith("acquisition: ") for line in told)
    assert any(line.startswith("hole: ") and f"voxels: {mask.sum()}" in line for line in told)
    nothing_secret(first.ImageComments)
    measured = highdicom.imread(head / "in_brgm_measured" / "0001.dcm").get_volume()
    values = measured.array.transpose(2, 1, 0)
    place = RAS_LPS @ measured.affine @ np.eye(4)[[2, 1, 0, 3]]
    to_mask = np.rint(np.linalg.inv(affine) @ place).astype(int)  # signs and shifts only
    index = np.argwhere(np.ones(values.shape, bool)) @ to_mask[:3, :3].T + to_mask[:3, 3]
    assert np.array_equal(values.ravel(), 1.0 - mask[tuple(index.T)])
    assert content["measured_map"] == {"file": "in_brgm_measured", "dicom_files": 1} | {
        "sha256": content["measured_map"]["sha256"]
    }
    # The workflow's way: filled as NIfTI, then written as DICOM.
    nib.save(nib.Nifti1Image(found.astype(np.int16), found_affine), head / "filled.nii.gz")
    certificate = head / "in_brgm_certificate.json"
    write_dicom(head / "filled.nii.gz", head / "in", head / "again", certificate=certificate, task="inpaint")
    assert np.array_equal(volume(head / "again")[0], found)


def test_what_dicom_cannot_keep_is_refused_before_the_search(head: Path, tmp_path: Path) -> None:
    """Integers of more bits, and slices that are rescaled differently; not what lies in the hole."""
    stored, affine = volume(head / "in")
    mask = np.zeros(stored.shape, np.uint8)
    mask[stored.shape[0] // 2, stored.shape[1] // 2, stored.shape[2] // 2] = 1
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    wide = stored.astype(np.int32)
    wide[0, 0, 0] = 70000
    nib.save(nib.Nifti1Image(wide, affine), tmp_path / "wide.nii.gz")
    uneven = shutil.copytree(head / "thick", tmp_path / "uneven")
    for number, path in enumerate(sorted(uneven.iterdir())):
        one = dcmread(path)
        one.RescaleSlope, one.RescaleIntercept = 1 + 0.1 * number, 0
        one.save_as(path)
    arguments = ("--mask", tmp_path / "mask.nii.gz", "--out", tmp_path / "out", "--steps", 10**6)
    for scan, more in ((tmp_path / "wide.nii.gz", ("--like", head / "in")), (uneven, ())):
        began = time.monotonic()
        assert run("inpaint", "--in", scan, *more, *arguments) == 3
        assert time.monotonic() - began < 30
    assert not list(tmp_path.glob("out*"))
    header, _ = for_reading(tmp_path / "wide.nii.gz").read_stored(tmp_path / "wide.nii.gz")
    target = target_of(tmp_path / "wide.nii.gz", tmp_path / "out", header, like=head / "in")
    assert target.stored_type(wide[mask == 1], header) == np.uint16
    assert target.stored_type(np.array([-3, 4]), header) == np.int16
    assert target.stored_type(np.array([3.0, 4.0], np.float32), header) == np.uint16
    for refused in (np.array([-3, 40000]), np.array([0.5])):
        with pytest.raises(InputRefusedError, match="no integers of 16 bits"):
            target.stored_type(refused, header)
