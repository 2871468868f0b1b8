"""`brgm-med sr` by the population prior, from file to file: geometry, consistency, certificate, determinism."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines import Scan, reconstruct_volume
from brgm_med.pipelines.steps import super_resolve as super_resolve_by
from brgm_med.pipelines.steps.degrade import degrade
from brgm_med.priors import DEFAULT
from brgm_med.priors.bundle import load as load_prior
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel, fine_grid
from brgm_med.transforms.geometry import Grid
from tests.heads import template_head

super_resolve = partial(super_resolve_by, prior=DEFAULT)


def opened(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], nib.Nifti1Image]:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image.get_fdata(), np.asarray(image.affine), image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head, its 6 mm acquisition along S as float and as integers, and both reconstructed in 2 steps."""
    made = tmp_path_factory.mktemp("sr")
    template_head(made / "head.nii.gz")
    for name, dtype in (("float", "float32"), ("integer", "source")):
        coarse = made / f"{name}.nii.gz"
        degrade(made / "head.nii.gz", coarse, thickness=6.0, axis="S", dtype=dtype)  # type: ignore[arg-type]
        super_resolve(coarse, steps=2, threads=1, dtype=dtype)  # type: ignore[arg-type]
    return made


def test_the_output_overlays_the_scan(folder: Path) -> None:
    _, coarse_affine, coarse = opened(folder / "float.nii.gz")
    values, affine, result = opened(folder / "float_brgm.nii.gz")
    a = Grid(coarse.shape, coarse_affine)  # type: ignore[arg-type]
    expected = fine_grid(a, (2.0, 2.0, 2.0))
    assert values.shape == expected.shape
    assert np.allclose(affine, expected.affine, atol=1e-3)
    corner = [-0.5, -0.5, -0.5]
    first = [nib.affines.apply_affine(m, corner) for m in (coarse_affine, affine)]
    assert np.allclose(*first, atol=1e-3)
    assert int(result.header["sform_code"]) == int(coarse.header["sform_code"])
    assert result.header.get_xyzt_units()[0] == "mm"
    assert "not for diagnosis" in result.header["descrip"].item().decode()


def test_the_written_file_gives_back_the_scan(folder: Path) -> None:
    """Computed here by plain block means of the files, not by the code that made them."""
    coarse, _, _ = opened(folder / "float.nii.gz")
    fine, _, _ = opened(folder / "float_brgm.nii.gz")
    again = fine.reshape(*fine.shape[:2], -1, 3).mean(3)[..., : coarse.shape[2]]
    residual = np.linalg.norm(again - coarse) / np.linalg.norm(coarse - coarse.mean())
    assert residual < 1e-5
    stated = json.loads((folder / "float_brgm_certificate.json").read_text())["consistency"]
    assert stated["relative_residual"] <= 1e-5


def test_the_library_gives_the_arrays_of_the_command(folder: Path) -> None:
    values, affine, image = opened(folder / "float.nii.gz")
    grid = Grid(image.shape, affine)  # type: ignore[arg-type]
    model = AcquisitionModel((*grid.spacing[:2], 6.0), "box", 2, True)
    scan = Scan(torch.from_numpy(values.astype(np.float32))[None], grid, model)
    result = reconstruct_volume(scan, load_prior(), own=False, search=VOLUME.limited_to(2))
    assert np.array_equal(result.image[0], opened(folder / "float_brgm.nii.gz")[0])
    assert np.array_equal(result.measured[0], opened(folder / "float_brgm_measured.nii.gz")[0].astype(np.float32))
    (measurement,) = result.measurements
    torch.testing.assert_close(measurement.operator(result.image), measurement.values, rtol=0, atol=1e-2)
    with pytest.raises(ValueError, match="values"):
        Scan(scan.values[0], grid, model)


def test_integer_output_clips_nothing_and_keeps_its_bound(folder: Path) -> None:
    coarse, _, _ = opened(folder / "integer.nii.gz")
    fine, _, image = opened(folder / "integer_brgm.nii.gz")
    assert image.get_data_dtype() == np.int16
    stored = np.asarray(image.dataobj.get_unscaled())
    again = fine.reshape(*fine.shape[:2], -1, 3).mean(3)[..., : coarse.shape[2]]
    slope = float(image.dataobj.slope)
    assert np.abs(again - coarse).max() <= 0.5 * slope * (1 + 1e-3)
    assert ((stored == np.iinfo(np.int16).min) | (stored == np.iinfo(np.int16).max)).sum() <= 2
    stated = json.loads((folder / "integer_brgm_certificate.json").read_text())["consistency"]
    assert stated["within_bound"]
    assert stated["bound"] == pytest.approx(0.5 * slope, rel=1e-6)


def test_the_certificate_says_what_was_done(folder: Path) -> None:
    content = json.loads((folder / "float_brgm_certificate.json").read_text())
    assert "not for diagnosis" in content["statement"]
    assert __version__ in content["software"]
    assert content["acquisition"]["Stated"] is True
    assert content["acquisition"]["Thickness"]["S"] == 6
    assert content["prior"]["finest_detail_mm"] == 2
    assert content["parameters"]["steps"] == 2
    assert content["parameters"]["precision"] == "float32"
    assert content["parameters"]["threads"] == 1
    assert len(content["prior"]["sha256"]) == len(content["source"]["sha256"]) == 64
    # The template's nose lies in front of the prior's box.
    values, _, _ = opened(folder / "float_brgm.nii.gz")
    last = content["coverage"]["interpolated_slices"][-1]
    assert last[1] == values.shape[content["coverage"]["slice_axis"]] - 1


def test_the_certificate_says_what_the_slices_look_like_beside_what_was_stated(folder: Path) -> None:
    (slices,) = json.loads((folder / "float_brgm_certificate.json").read_text())["slices"]
    assert slices["thickness_mm"] == slices["spacing_mm"] == pytest.approx(6)
    assert slices["interval_95_mm"][0] < slices["estimated_mm"] < slices["interval_95_mm"][1]
    assert abs(slices["even_odd_gain"]) < 0.02
    assert slices["even_odd_corrected"] is False
    assert slices["moved"] == slices["other_brightness"] == slices["ghosts"] == []


def test_without_a_sidecar_the_acquisition_is_assumed_and_said_to_be(folder: Path, tmp_path: Path) -> None:
    scan = tmp_path / "alone.nii.gz"
    scan.write_bytes((folder / "float.nii.gz").read_bytes())
    out = super_resolve(scan, steps=2, threads=1)
    content = json.loads(out.with_name("alone_brgm_certificate.json").read_text())
    assert content["acquisition"]["Stated"] is False
    assert "assumed" in content["acquisition"]["Origin"]
    # A box as wide as the spacing is what the sidecar stated, so the result is the same: to the last bit.
    assert np.array_equal(opened(out)[0], opened(folder / "float_brgm.nii.gz")[0])


def test_an_acquisition_stated_by_flags_wins(folder: Path) -> None:
    from brgm_med.pipelines.reading import acquisition_of

    _, affine, image = opened(folder / "float.nii.gz")
    grid = Grid(image.shape, affine)  # type: ignore[arg-type]
    model, origin = acquisition_of(folder / "float.nii.gz", grid, 4.0, None, "gaussian")
    assert origin == "stated on the command line"
    assert model == AcquisitionModel.from_flags(grid, 4.0, None, "gaussian")
    assert (
        acquisition_of(folder / "float.nii.gz", grid, None, None, None)[1] == "stated in the JSON file beside the scan"
    )


def test_the_discriminator_can_judge_as_well(folder: Path, tmp_path: Path) -> None:
    out = super_resolve(
        folder / "float.nii.gz", tmp_path / "judged.nii.gz", steps=2, threads=1, perceptual="discriminator"
    )
    content = json.loads((tmp_path / "judged_certificate.json").read_text())
    assert content["parameters"]["perceptual"] == "discriminator"
    assert content["consistency"]["relative_residual"] <= 1e-5
    assert not np.array_equal(opened(out)[0], opened(folder / "float_brgm.nii.gz")[0])


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gaussian noise of 10 on thick axial and sagittal scans at an angle, with sidecars; the axial one's result."""
    made = tmp_path_factory.mktemp("turned")
    template_head(made / "head.nii.gz")
    for number, (name, axis, turn) in enumerate((("axial", "S", (8, -5, 6)), ("sagittal", "R", (-4, 6, 3)))):
        scan = made / f"{name}.nii.gz"
        degrade(made / "head.nii.gz", scan, thickness=6.0, axis=axis, profile="gaussian", turn=turn)
        values, affine, _ = opened(scan)
        noisy = values + np.random.default_rng(number).normal(0, 10, values.shape)
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), affine), scan)
    super_resolve(made / "axial.nii.gz", made / "auto.nii.gz", steps=2, threads=1)
    return made


def test_noise_is_found_and_not_taken_for_detail(turned: Path) -> None:
    content = json.loads((turned / "auto_certificate.json").read_text())
    (noise,) = content["noise"]
    assert noise["kind"] == "gaussian"
    assert noise["deviation"] == pytest.approx(10, rel=0.1)
    assert 0.8 * 10 <= content["consistency"]["residual_rms"] <= 1.05 * 10
    assert content["registration"]["not_identified"]
    # The map: a part of 1 everywhere, and none outside the field of view's air, which the prior knows already.
    explained = opened(turned / "auto_measured.nii.gz")[0]
    assert explained.shape == opened(turned / "auto.nii.gz")[0].shape
    assert 0 <= explained.min() < 0.1 < explained.max() <= 1


def test_without_noise_every_value_is_kept(turned: Path) -> None:
    super_resolve(turned / "axial.nii.gz", turned / "kept.nii.gz", steps=2, threads=1, noise=0.0)
    content = json.loads((turned / "kept_certificate.json").read_text())
    assert content["consistency"]["relative_residual"] <= 1e-5
    assert content["noise"] == [{"deviation": 0.0, "kind": "stated"}]


def test_several_scans_make_one_result(turned: Path) -> None:
    scans = [turned / "axial.nii.gz", turned / "sagittal.nii.gz"]
    out = super_resolve(scans, turned / "both.nii.gz", steps=2, threads=1)
    content = json.loads((turned / "both_certificate.json").read_text())
    values, affine, _ = opened(out)
    first = opened(scans[0])
    assert np.allclose(affine[:3, :3] / 2, first[1][:3, :3] / [2, 2, 6], atol=1e-4)  # isotropic, the first scan's axes
    (other,) = content["consistency"]["further_scans"]
    assert other["relative_residual"] < 0.2
    assert content["further_scans"][0]["file"] == "sagittal.nii.gz"
    assert len(content["registration"]["refined"]) in (0, 2)
    assert content["explained_by_the_scans"]["standard_error_of_a_voxel"] > 0
    one = json.loads((turned / "auto_certificate.json").read_text())["explained_by_the_scans"]["mean"]
    assert content["explained_by_the_scans"]["mean"] > one
    assert np.isfinite(values).all()


def test_what_cannot_be_is_refused_before_any_work(turned: Path, tmp_path: Path) -> None:
    scan = turned / "axial.nii.gz"
    with pytest.raises(UsageError, match="coarser grid"):
        super_resolve(scan, tmp_path / "a.nii.gz", spacing=3.0)
    with pytest.raises(UsageError, match="one for each scan"):
        super_resolve([scan, turned / "sagittal.nii.gz"], tmp_path / "a.nii.gz", series=["1"])
    with pytest.raises(UsageError, match="must all be different"):
        super_resolve([scan, scan], tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


def test_a_scan_that_lies_elsewhere_is_refused(turned: Path, tmp_path: Path) -> None:
    values, affine, _ = opened(turned / "sagittal.nii.gz")
    affine = affine.copy()
    affine[:3, 3] += 40
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), tmp_path / "moved.nii.gz")
    with pytest.raises(InputRefusedError, match="does not lie where the first scan does"):
        super_resolve([turned / "axial.nii.gz", tmp_path / "moved.nii.gz"], tmp_path / "out.nii.gz", threads=1)
    assert not (tmp_path / "out.nii.gz").exists()


def test_where_little_is_to_be_gained_it_says_so(turned: Path) -> None:
    from brgm_med.pipelines.reading import doubtful, read_scan

    degrade(turned / "head.nii.gz", turned / "coronal.nii.gz", thickness=6.0, axis="A", force=True)
    said = {}
    for name in ("head", "axial", "coronal"):
        file = read_scan(turned / f"{name}.nii.gz")
        said[name] = doubtful(file.scan, 4.0 if name == "head" else 2.0)
    assert "as fine as the prior" in (said["head"] or "")
    assert said["axial"] is None
    assert "coronal" in (said["coronal"] or "")
