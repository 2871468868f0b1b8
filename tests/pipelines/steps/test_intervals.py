"""`sr --level --samples --roi`: maps beside the result, and what the certificate says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brgm_med.errors import UsageError
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.steps import super_resolve
from tests.mr_series import mr_series
from tests.spheres import STEP, scan_of, spheres

MAPS = ("lower", "upper", "std", "sample-1", "sample-2")


def written(folder: Path) -> Path:
    scan = scan_of(spheres(), 2)
    path = folder / "thick.nii.gz"
    nib.save(nib.nifti1.Nifti1Image(scan.values[0].numpy(), scan.grid.affine), path)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.nifti1.load(path).dataobj, np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("intervals")
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[10:20, 10:20, 10:20] = 1
    nib.save(nib.nifti1.Nifti1Image(mask, np.eye(4)), made / "mask.nii.gz")
    scan = written(made)
    options = ["--prior", "self", "--steps", "3", "--threads", "1", "--noise", "0"]
    more = ["--level", "80", "--samples", "2", "--roi", str(made / "mask.nii.gz")]
    assert main(["sr", "--in", str(scan), "--out", str(made / "fine.nii.gz"), *options, *more]) == 0
    return made


def test_bounds_deviation_and_samples_lie_beside_the_result(folder: Path) -> None:
    image = read(folder / "fine.nii.gz")
    lower, upper, deviation, *samples = (read(folder / f"fine_{name}.nii.gz") for name in MAPS)
    assert ((lower <= image) & (image <= upper)).all()
    covered = (lower <= spheres()[0].numpy()) & (spheres()[0].numpy() <= upper)
    assert 0.7 < covered.mean() < 0.95
    inside = deviation > 0
    ratio = (upper - lower)[inside] / deviation[inside]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)
    for sample in samples:
        seen = sample.reshape(40, 40, 40 // STEP, STEP).mean(3)
        np.testing.assert_allclose(seen, scan_of(spheres(), 2).values[0].numpy(), atol=1e-3)
        assert np.abs(sample - image).max() > deviation.max()


def test_the_certificate_says_what_the_intervals_rest_on(folder: Path) -> None:
    content = json.loads((folder / "fine_certificate.json").read_text())
    entry = content["uncertainty"]
    assert entry["level"] == entry["expected_coverage"] == 80
    assert 70 < entry["least_coverage_of_exchangeable_heads"] < 80
    assert "own planes" in entry["rests_on"]
    assert "heads" in entry["rests_on"]
    assert entry["samples"] == 2
    low, high = entry["psnr_interval_db"]
    assert low < entry["expected_psnr_db"] < high
    assert [one["file"] for one in content["maps"]] == [f"fine_{name}.nii.gz" for name in MAPS]
    region = content["region"]
    assert region["file"] == "mask.nii.gz"
    assert region["volume_ml"] == pytest.approx(1.0)
    low, high = region["mean_interval"]
    assert low < region["mean"] < high
    assert region["mean"] == pytest.approx(float(read(folder / "fine.nii.gz")[10:20, 10:20, 10:20].mean()), abs=0.01)
    assert high - low < 10


def test_without_being_asked_nothing_is_said(folder: Path, tmp_path: Path) -> None:
    super_resolve(folder / "thick.nii.gz", tmp_path / "fine.nii.gz", prior="self", steps=3, threads=1, noise=0)
    content = json.loads((tmp_path / "fine_certificate.json").read_text())
    assert not {"uncertainty", "region", "maps"} & set(content)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fine.nii.gz",
        "fine_certificate.json",
        "fine_measured.nii.gz",
    ]
    np.testing.assert_array_equal(read(tmp_path / "fine.nii.gz"), read(folder / "fine.nii.gz"))


def test_maps_of_a_result_that_is_replaced_go_with_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "fine.nii.gz"
    options: dict[str, Any] = {"prior": "self", "steps": 3, "threads": 1, "noise": 0.0}
    super_resolve(folder / "thick.nii.gz", out, samples=1, **options)
    assert (tmp_path / "fine_sample-1.nii.gz").exists()
    (tmp_path / "fine_upper.nii.gz").write_bytes(b"someone else's")
    super_resolve(folder / "thick.nii.gz", out, force=True, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fine.nii.gz",
        "fine_certificate.json",
        "fine_measured.nii.gz",
        "fine_upper.nii.gz",  # not as it was written: it stays
    ]


def test_a_population_prior_alone_has_no_intervals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="own planes"):
        super_resolve(folder / "thick.nii.gz", tmp_path / "fine.nii.gz", prior="brain-t1-coronal", level=90)


@pytest.mark.parametrize("mask", ["not there", "empty"])
def test_a_region_that_cannot_be_used_is_named_before_the_work(
    folder: Path, tmp_path: Path, mask: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "region.nii.gz"
    if mask == "empty":
        nib.save(nib.nifti1.Nifti1Image(np.zeros((40, 40, 40), np.uint8), np.eye(4)), path)
    arguments = ["--prior", "self", "--steps", "3", "--threads", "1", "--roi", str(path)]
    out = tmp_path / "fine.nii.gz"
    assert main(["sr", "--in", str(folder / "thick.nii.gz"), "--out", str(out), *arguments]) == 3
    assert "region.nii.gz" in capfd.readouterr().err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize("level", ["0", "100", "nan", "ninety"])
def test_a_level_is_a_per_cent(folder: Path, level: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sr", "--in", str(folder / "thick.nii.gz"), "--level", level])


def test_dicom_has_parametric_maps(tmp_path: Path) -> None:
    values = 10 * scan_of(spheres(), 2).values[0].numpy()
    lps = np.diag([1.0, 1.0, float(STEP), 1.0])
    series = mr_series(
        tmp_path / "in", np.rint(values).astype(np.int16), lps, SliceThickness=STEP, SpacingBetweenSlices=STEP
    )
    super_resolve(series, tmp_path / "out", prior="self", steps=3, threads=1, samples=1, noise=0)
    from pydicom import dcmread

    for name in ("measured", "lower", "upper", "std", "sample-1"):
        (file,) = (tmp_path / f"out_{name}").iterdir()
        dataset = dcmread(file)
        assert dataset.ContentLabel == name.upper().replace("-", "_")
        assert "expected_coverage: 90" in dataset.ImageComments
        assert dataset.Rows == 40
