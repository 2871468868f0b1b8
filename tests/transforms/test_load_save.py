"""LoadScan and SaveScan: files in and out of MetaTensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ScaleIntensityd

import brgm_med.transforms
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.transforms import formats
from brgm_med.transforms.formats.nifti_header import read_header
from brgm_med.transforms.load import LoadScan, LoadScand
from brgm_med.transforms.save import SaveScan, SaveScand
from tests.bad_scans import AFFINE, nifti, opened, voxels


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    image = nifti(voxels())
    image.header["descrip"] = b"of the source"
    nib.save(image, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_load_gives_voxels_and_affine_as_nibabel_does(scan: Path) -> None:
    image = LoadScan()(scan)
    assert image.shape == (1, 12, 13, 14)
    assert image.dtype == torch.float32
    assert image.affine.dtype == torch.float64
    np.testing.assert_array_equal(image.affine, opened(scan).affine)
    np.testing.assert_array_equal(image[0], voxels())
    assert image.meta["filename_or_obj"] == str(scan)
    assert (image.meta["dtype"], image.meta["description"]) == ("int16", "of the source")


@pytest.mark.parametrize(("content", "stripped"), [("", False), ('{"SkullStripped": true}', True), ("{}", False)])
def test_the_file_beside_a_scan_says_that_its_skull_is_gone(scan: Path, content: str, stripped: bool) -> None:
    if content:
        (scan.parent / "scan.json").write_text(content)
    assert LoadScan()(scan).meta["SkullStripped"] is stripped


def test_save_then_load_is_the_identity(scan: Path, tmp_path: Path) -> None:
    image = LoadScan()(scan)
    held = SaveScan(tmp_path / "out.nii.gz")(image)
    again = LoadScan()(tmp_path / "out.nii.gz")
    for other in (held, again):
        assert other.dtype == torch.float32
        assert torch.equal(other.as_tensor(), image.as_tensor())
        assert torch.equal(other.affine, image.affine)


def test_header_conventions_come_from_the_source_not_through_the_mathematics(scan: Path, tmp_path: Path) -> None:
    """A bare tensor on a finer grid, and a tensor that remembers its file, are written alike."""
    image = LoadScan()(scan)
    affine = image.affine @ torch.diag(torch.tensor([1, 1, 0.5, 1], dtype=torch.float64))
    finer = image.repeat_interleave(2, -1).as_tensor()
    SaveScan(tmp_path / "a.nii", like=scan)(MetaTensor(finer, affine=affine))
    SaveScan(tmp_path / "b.nii")(MetaTensor(finer, affine=affine, meta={"filename_or_obj": str(scan)}))
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()
    header = opened(tmp_path / "a.nii").header
    assert header["descrip"] == b"of the source"
    assert header.get_zooms() == (2, 2.5, 1.5)
    SaveScan(tmp_path / "c.nii")(MetaTensor(finer, affine=affine))
    assert opened(tmp_path / "c.nii").header["descrip"] == b""


def test_the_form_that_was_chosen_on_loading_is_chosen_on_saving(tmp_path: Path) -> None:
    image = nifti(voxels())
    image.set_sform(AFFINE + np.diag([0, 0, 0.0, 0]) + np.eye(4, k=3) * 5, 4)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputRefusedError, match="disagree by 5 mm"):
        LoadScan()(tmp_path / "a.nii")
    loaded = LoadScan("qform")(tmp_path / "a.nii")
    SaveScan(tmp_path / "b.nii")(loaded)
    assert torch.equal(LoadScan()(tmp_path / "b.nii").affine, loaded.affine)


def test_source_type_returns_what_the_file_holds(scan: Path, tmp_path: Path) -> None:
    image = LoadScan()(scan)
    image.set_array(image.as_tensor() * 0.1234)
    held = SaveScan(tmp_path / "a.nii", dtype="source", description="scaled")(image)
    assert held.dtype == torch.float64
    on_disk = opened(tmp_path / "a.nii")
    assert on_disk.get_data_dtype() == np.int16
    assert on_disk.header["descrip"] == b"scaled"
    np.testing.assert_array_equal(held[0], on_disk.get_fdata())
    step = read_header(tmp_path / "a.nii").slope
    assert (held - image).abs().max() <= step / 2 * 1.001


def test_dictionaries(scan: Path, tmp_path: Path) -> None:
    chain = Compose([LoadScand("image"), ScaleIntensityd("image"), SaveScand("image", "out")])
    data = {"image": scan, "out": tmp_path / "out.nii", "age": 7}
    result = chain(data)
    assert data["image"] == scan
    assert result["age"] == 7
    assert torch.equal(LoadScan()(tmp_path / "out.nii").as_tensor(), result["image"].as_tensor())
    with pytest.raises(ValueError, match="path_keys"):
        SaveScand(["a", "b"], "out")
    assert LoadScand(["image", "label"], allow_missing_keys=True)({"image": scan}).keys() == {"image"}


def test_names_say_the_format(tmp_path: Path, scan: Path) -> None:
    assert formats.stem("a/b/scan.1.nii.gz") == "scan.1"
    assert formats.stem("scan.NII") == "scan"
    with pytest.raises(UsageError, match=r"\.nii or \.nii\.gz"):
        SaveScan(tmp_path / "out.png")(LoadScan()(scan))
    with pytest.raises(ValueError, match=r"\[1, X, Y, Z\]"):
        SaveScan(tmp_path / "out.nii")(torch.zeros(1, 2, 3, 4))


def test_the_package_is_lazy() -> None:
    """Importing it and its formats loads nothing heavy; its names are there all the same."""
    code = """
import sys, brgm_med.transforms.formats
heavy = {"torch", "monai", "nibabel", "SimpleITK", "scipy"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert brgm_med.transforms.LoadScan is LoadScan
    assert set(brgm_med.transforms.__all__) <= set(dir(brgm_med.transforms))
    with pytest.raises(AttributeError):
        brgm_med.transforms.Nothing  # noqa: B018
