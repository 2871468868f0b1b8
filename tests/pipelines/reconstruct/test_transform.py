"""`SuperResolve` and `SuperResolved`: the command's work on MetaTensors."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform

import brgm_med
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines import Scan, SuperResolve, SuperResolved, reconstruct_volume
from brgm_med.priors import DEFAULT
from brgm_med.search import VOLUME
from brgm_med.transforms import LoadScan, LoadScand
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from tests.small_heads import small_head

QUICK = VOLUME.limited_to(1)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 x 4 x 8 mm."""
    return small_head(tmp_path_factory.mktemp("transform") / "head.nii.gz", thick=True)


def test_the_transform_gives_the_arrays_of_the_library(head: Path) -> None:
    image = LoadScan()(head)
    finer = SuperResolve(thickness=6.0, profile="gaussian", axis="S", prior="self", noise=0.0, steps=1)(image)
    grid = Grid.of(image, np.asarray(image.affine))
    scan = Scan(image.as_tensor(), grid, AcquisitionModel((4.0, 4.0, 6.0), "gaussian", 2, True), 0.0)
    expected = reconstruct_volume(scan, search=QUICK)
    assert isinstance(finer, MetaTensor)
    assert torch.equal(finer.as_tensor(), expected.image)
    assert np.array_equal(finer.affine, expected.grid.affine)
    assert finer.shape == (1, *image.shape[1:3], 2 * image.shape[3])
    assert finer.meta["filename_or_obj"] == str(head)
    assert torch.equal(image.affine, LoadScan()(head).affine)  # what came in is as it was


def test_a_scan_that_is_said_to_be_stripped_is_taken_as_that(head: Path, tmp_path: Path) -> None:
    """As by the command: 0 in a small part of its border, which else is part of the image, stays 0."""
    image = nib.nifti1.load(head)
    values = np.asarray(image.dataobj).astype(np.int16)
    values += np.random.default_rng(0).integers(10, 500, values.shape, np.int16)
    values[:8, :8, :8] = 0
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values, image.affine), scan)
    results = []
    for stated in (True, False):
        (tmp_path / "scan.json").write_text(json.dumps({"SkullStripped": stated}))
        finer = SuperResolve(prior="self", noise=0.0, steps=1)(LoadScan()(scan)).as_tensor()[0]
        out = tmp_path / f"{stated}.nii.gz"
        brgm_med.super_resolve(scan, out, prior="self", noise=0.0, steps=1, threads=1, device="cpu")
        assert np.array_equal(finer, nib.nifti1.load(out).get_fdata(dtype=np.float32))
        results.append(finer)
    assert not results[0][:8, :8, :16].any()
    assert results[1][:8, :8, :16].any()


def test_a_dictionary_the_command_and_one_line_give_the_same(head: Path, tmp_path: Path) -> None:
    """By both priors: the default."""
    to_finer = Compose([LoadScand("scan"), SuperResolved("scan", steps=1)])
    finer = to_finer({"scan": head, "label": 3})
    assert isinstance(to_finer.transforms[1], MapTransform)
    assert finer["label"] == 3
    out = brgm_med.super_resolve(str(head), tmp_path / "finer.nii.gz", steps=1, threads=1, device="cpu")
    written = nib.nifti1.load(out)
    assert np.array_equal(finer["scan"].as_tensor()[0], written.get_fdata(dtype=np.float32))
    assert np.allclose(finer["scan"].affine, written.affine, atol=1e-4)
    assert finer["scan"].pixdim.tolist() == pytest.approx([2.0] * 3)  # the population prior knows such a head


def test_what_is_no_image_with_an_affine_is_refused(head: Path) -> None:
    image = LoadScan()(head)
    for wrong in (image.as_tensor(), image[0], MetaTensor(torch.zeros(2, 4, 4, 4)), "head.nii.gz"):
        with pytest.raises(UsageError, match=r"MetaTensor \[1, X, Y, Z\] with its affine, not "):
            SuperResolve()(wrong)  # type: ignore[arg-type]
    even = MetaTensor(torch.rand(1, 32, 32, 32), meta={"filename_or_obj": "even.nii.gz"})
    with pytest.raises(InputRefusedError, match=r"even.nii.gz: .* nothing to learn"):
        SuperResolve(prior="self")(even)
    with pytest.raises(InputRefusedError, match=r"even.nii.gz: .* of the brain"):  # by a population prior alone
        SuperResolve(prior=DEFAULT)(even)
    with pytest.raises(KeyError):
        SuperResolved("image")({"scan": image})
