"""From a hospital's series of a head to an archive, de-identified, through the installed commands."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage, ParametricMapStorage

from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.load import LoadScan
from tests.archives import Keeping, listening
from tests.commands import refused, run
from tests.dicom_files import save, tiny_image
from tests.heads import template_head
from tests.planted import found, plant


def planted_head(folder: Path, scratch: Path, thick: int = 3) -> list[str]:
    """An axial series of a head, of averages of `thick` slices, full of planted strings; returns those."""
    scan = nib.as_closest_canonical(nib.load(template_head(scratch)))
    voxels, spacing = scan.get_fdata(), scan.header.get_zooms()
    count = voxels.shape[2] // thick
    voxels = voxels[::-1, ::-1, : count * thick].reshape(*voxels.shape[:2], count, thick).mean(-1)
    corner = nib.affines.apply_affine(scan.affine, [scan.shape[0] - 1, scan.shape[1] - 1, (thick - 1) / 2])
    folder.mkdir()
    words: set[str] = set()
    for k in range(count):
        made = tiny_image(k + 1)
        words.update(plant(made))
        made.Rows, made.Columns = voxels.shape[1], voxels.shape[0]
        made.PixelSpacing, made.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2]) * thick
        made.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + k * thick * float(spacing[2])]
        made.PixelData = np.ascontiguousarray(voxels[:, :, k].T.round()).astype("<u2").tobytes()
        save(made, folder / f"Q03PLANTED_{k}.dcm")
    return sorted(words)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder called after its patient, a JSON file that states the acquisition beside it, and what was planted."""
    folder = tmp_path_factory.mktemp("hospital") / "Q01PLANTED"
    words = planted_head(folder, folder.parent / "head.nii.gz")
    assert len(words) > 60
    scan = LoadScan()(folder)
    grid = Grid(tuple(scan.shape[1:]), scan.affine.numpy())
    model = AcquisitionModel.from_flags(grid, 0.9 * grid.spacing[2], None, "box")
    folder.with_suffix(".json").write_text(json.dumps(model.to_sidecar(grid)))
    return folder, words


def nothing_of(words: list[str], results: Path, done: subprocess.CompletedProcess[str]) -> None:
    """Neither in what a command said nor in what it wrote, nor in what an archive got of that."""
    assert done.returncode == 0, done.stderr
    assert found(words, [results], done.stdout + done.stderr) == []
    keeping = Keeping()
    with listening(keeping, classes=(MRImageStorage, ParametricMapStorage)) as archive:
        sent = run("send", results, "--to", archive)
    assert sent.returncode == 0, sent.stderr
    assert len(keeping.kept) == len(list(results.rglob("*.dcm"))) > 30
    assert found(words, text=sent.stdout + sent.stderr) == []
    assert not any(word.encode() in content for word in words for content in keeping.kept.values())


@pytest.mark.slow
def test_nothing_planted_comes_out_of_sr_nor_of_send(hospital: tuple[Path, list[str]], tmp_path: Path) -> None:
    (source, words), out = hospital, tmp_path / "results" / "fine"
    out.parent.mkdir()
    done = run("sr", "--in", source, "--out", out, "--deidentify", "--steps", 2)
    nothing_of(words, out.parent, done)
    certificate = json.loads((out.parent / "fine_certificate.json").read_text())
    assert certificate["consistency"]
    assert certificate["acquisition"]["Stated"]
    told = dcmread(out / "0001.dcm")
    assert "inferred" in told.DerivationDescription
    assert "not for diagnosis" in told.ImageComments


@pytest.mark.slow
def test_nothing_planted_comes_out_of_inpaint_nor_of_send(hospital: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The map beside it is of the same pseudonym, in the same study and frame of reference."""
    (source, words), out = hospital, tmp_path / "results" / "filled"
    out.parent.mkdir()
    scan = LoadScan()(source)
    stored, hole = scan[0].numpy(), np.zeros(scan.shape[1:], np.uint8)
    middle = [n // 2 for n in hole.shape]
    hole[middle[0] - 3 : middle[0] + 3, middle[1] - 2 : middle[1] + 2, middle[2] - 1 : middle[2] + 1] = 1
    mask = tmp_path / "Q03PLANTED_mask.nii.gz"
    nib.save(nib.Nifti1Image(hole, scan.affine.numpy()), mask)
    done = run("inpaint", "--in", source, "--mask", mask, "--out", out, "--deidentify", "--steps", 2)
    nothing_of(words, out.parent, done)
    filled = LoadScan()(out)[0].numpy()
    assert np.array_equal(filled[hole == 0], stored[hole == 0])
    image, measured = dcmread(out / "0001.dcm"), dcmread(out.with_name("filled_measured") / "0001.dcm")
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientIdentityRemoved", "ImageComments"):
        assert image[name].value == measured[name].value
    assert image.PatientID.startswith("ANON-")
    assert image.ImageComments.startswith("Derived image")
    assert "hole: {voxels: 48," in image.ImageComments
    certificate = json.loads((out.parent / "filled_certificate.json").read_text())
    assert certificate["mask"]["file"] == certificate["source"]["file"] == "withheld (de-identified)"
    for command in (("sr",), ("inpaint", "--mask", mask)):  # burned in, it is refused before anything is searched for
        burned = shutil.copytree(source, tmp_path / f"burned-{command[0]}")
        one = dcmread(burned / "Q03PLANTED_3.dcm")
        one.BurnedInAnnotation = "YES"
        one.save_as(burned / "Q03PLANTED_3.dcm")
        common = ("--in", burned, "--out", tmp_path / "none", "--deidentify", "--prior", tmp_path / "no-prior")
        assert "burned into its pixels" in refused(run(*command, *common), 3)
