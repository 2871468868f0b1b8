"""Reconstruction by the prior that the scans themselves teach, alone and beside a population prior."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import digest
from brgm_med.pipelines import Reconstruction, Scan, reconstruct_volume
from brgm_med.pipelines.reconstruct.own import field_of_view, match, resampled
from brgm_med.pipelines.steps import super_resolve
from brgm_med.pipelines.steps.degrade import degrade
from brgm_med.priors.bundle import load
from brgm_med.search import POPULATION_WEIGHT, VOLUME
from brgm_med.self_prior.weights import FILE
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from tests.heads import template_head
from tests.spheres import QUICK, SIZE, STEP, scan_of, spheres


@cache
def reconstructed(axis: int = 2) -> Reconstruction:
    return reconstruct_volume(scan_of(spheres(), axis), search=QUICK)


def psnr(image: Tensor) -> float:
    inner = (slice(None), *[slice(4, -4)] * 3)
    return float(-10 * (image - spheres())[inner].square().mean().log10())


def test_the_scan_alone_is_enough() -> None:
    result = reconstructed()
    assert result.image.shape == spheres().shape
    assert result.grid.spacing == (1.0, 1.0, 1.0)
    assert psnr(result.image) > psnr(reconstruct_base()) + 0.5
    (measurement,) = result.measurements
    torch.testing.assert_close(measurement.operator(result.image), measurement.values, rtol=0, atol=1e-3)
    own = result.own
    assert own is not None
    assert (own.name, own.sha256, own.finest) == ("self", digest(FILE), 1.0)
    assert own.weight == 1.1
    assert result.population is None
    assert result.registration is None


def reconstruct_base() -> Tensor:
    from brgm_med.pipelines.reconstruct.own import acquisition

    scan = scan_of(spheres(), 2)
    return acquisition(scan).base(scan.values[0])[None]


def test_two_orientations_say_more_than_one() -> None:
    scans = [scan_of(spheres(), 2), scan_of(2 * spheres() + 7, 0, "the other")]
    both = reconstruct_volume(scans, search=QUICK)
    assert psnr(both.image) > psnr(reconstructed().image) + 1
    assert both.measured.mean() > reconstructed().measured.mean()
    assert len(both.measurements) == len(both.noise) == 2
    first, second = both.measurements  # of one scale: that of the first
    for measurement in (first, second):
        error = measurement.operator(both.image) - measurement.values
        assert error.square().mean().sqrt() < 0.05 * first.values.std()


def test_a_scan_of_something_else_is_refused_by_name() -> None:
    other = scan_of(spheres().flip(1).roll(11, 2), 0, "the other")
    with pytest.raises(InputRefusedError, match="the other: does not look like the first scan"):
        reconstruct_volume([scan_of(spheres(), 2), other], search=QUICK)
    away = Grid(other.grid.shape, other.grid.affine + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4]))
    with pytest.raises(InputRefusedError, match="does not overlap"):
        match(other, spheres(), spheres(), field_of_view(away, reconstructed().grid))


def test_a_scan_that_would_be_its_own_result_is_refused_at_once() -> None:
    """Before any registration or search: of isotropic voxels, finer than the prior's or not; but not if it is thick."""
    grid = Grid((SIZE, SIZE, SIZE), np.eye(4))

    def unreachable(name: str, steps: int) -> NoReturn:
        raise AssertionError(name)

    for size, prior in ((1.0, None), (1.0, load()), (2.0, load())):
        coarse = Grid(grid.shape, np.diag([size, size, size, 1.0]))
        scan = Scan(spheres(), coarse, AcquisitionModel(coarse.spacing), name="even")
        with pytest.raises(InputRefusedError, match=r"even: is measured on voxels of . x . x . mm as it is"):
            reconstruct_volume(scan, prior, phases=unreachable)
    thick = Scan(spheres(), grid, AcquisitionModel((1.0, 1.0, 2.0), "box", 2), name="overlapping")
    with pytest.raises(InputRefusedError, match=r"^overlapping: slices every 1 mm"):
        reconstruct_volume(thick, phases=unreachable)


@pytest.mark.parametrize("factor", [1e-41, 1e-30, 1e28, 1e34])
def test_values_too_far_from_1_are_refused(factor: float) -> None:
    """Denormal numbers, and such as have no square: their statistics would be 0 or infinite."""
    scan = scan_of(spheres(), 2, "far")
    strange = dataclasses.replace(scan, values=(scan.values.double() * factor).float())
    with pytest.raises(InputRefusedError, match=r"far: its values go from .* too far from 1"):
        reconstruct_volume(strange, search=QUICK)


@pytest.mark.parametrize(("slices", "factor"), [(1, 1.0), (2, 1e-9), (3, 1e9)])
def test_few_slices_and_units_far_from_1_are_reconstructed(slices: int, factor: float) -> None:
    scan = scan_of(spheres(), 2)
    few = Scan(factor * scan.values[..., :slices], Grid((SIZE, SIZE, slices), scan.grid.affine), scan.acquisition)
    result = reconstruct_volume(few, search=VOLUME.limited_to(1))
    assert result.image.shape == (1, SIZE, SIZE, slices * STEP)
    (measurement,) = result.measurements
    error = measurement.operator(result.image) - measurement.values
    assert error.abs().max() < 1e-5 * factor * 150


def test_what_is_resampled_goes_on_at_its_edges() -> None:
    grid = scan_of(spheres(), 2).grid
    assert torch.equal(resampled(spheres(), Grid(grid.shape, grid.affine), grid), spheres())
    constant = resampled(torch.ones(1, *grid.shape), grid, Grid((SIZE + 6,) * 3, np.eye(4)))
    torch.testing.assert_close(constant, torch.ones_like(constant))


def test_a_scan_without_thick_slices_has_nothing_to_teach() -> None:
    scan = Scan(spheres(), Grid((SIZE,) * 3, np.eye(4)), AcquisitionModel((1.0, 1.0, 1.0)), 0.0, "fine")
    with pytest.raises(InputRefusedError, match=r"fine: .* no thick slices, nothing to learn"):
        reconstruct_volume(scan)
    with pytest.raises(InputRefusedError, match=r"nothing to learn.*brain-t1-coronal: not used"):
        reconstruct_volume(scan, load())
    with pytest.raises(ValueError, match="neither"):
        reconstruct_volume(scan, own=False)


def test_a_finer_grid_is_consistent_too() -> None:
    result = reconstruct_volume(scan_of(spheres(), 2), spacing=0.8, search=QUICK)
    assert result.grid.spacing == pytest.approx((0.8,) * 3)
    (measurement,) = result.measurements
    torch.testing.assert_close(measurement.operator(result.image), measurement.values, rtol=0, atol=1e-3)
    assert result.own is not None
    assert result.own.finest == 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head in slices of 6 mm; reconstructed with both priors; the same with other contrast, and its own alone."""
    made = tmp_path_factory.mktemp("own")
    template_head(made / "head.nii.gz")
    degrade(made / "head.nii.gz", made / "thick.nii.gz", thickness=6.0, axis="S")
    super_resolve(made / "thick.nii.gz", made / "both.nii.gz", steps=2, threads=1)
    super_resolve(made / "thick.nii.gz", made / "own.nii.gz", prior="self", steps=2, threads=1)
    return made


def certificate(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}_certificate.json").read_text())


def test_both_priors_correct_the_base_and_the_certificate_says_by_how_much(folder: Path) -> None:
    content = certificate(folder, "both")
    assert content["prior"]["name"] == "self"
    assert content["prior"]["weight"] == 1.1
    assert "sharp" in content["prior"]["reason"]
    second = content["population_prior"]
    assert (second["name"], second["weight"]) == ("brain-t1-coronal", POPULATION_WEIGHT)
    assert "knows such scans" in second["reason"]
    assert content["registration"]["correlation"] > 0.5
    assert content["consistency"]["relative_residual"] <= 1e-5
    alone = certificate(folder, "own")
    assert "population_prior" not in alone
    assert "registration" not in alone
    images = [nib.nifti1.load(folder / f"{name}.nii.gz").get_fdata() for name in ("both", "own")]
    assert np.abs(images[0] - images[1]).max() > 1


def test_the_join_is_linear_in_the_corrections(folder: Path) -> None:
    """base + a (own - base) + b (population - base), all three projected alike."""
    image = nib.nifti1.load(folder / "thick.nii.gz")
    grid = Grid(image.shape, np.asarray(image.affine))  # type: ignore[arg-type]
    scan = Scan(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], grid, AcquisitionModel(grid.spacing), 0.0)
    both = reconstruct_volume(scan, load(), search=VOLUME.limited_to(2))
    own = reconstruct_volume(scan, search=VOLUME.limited_to(2))
    population = reconstruct_volume(scan, load(), own=False, search=VOLUME.limited_to(2))
    inner = (slice(None), *[slice(15, -15)] * 3)  # where the population prior's box does not end
    from brgm_med.pipelines.reconstruct.own import acquisition

    base = acquisition(scan).base(scan.values[0])[None]
    expected = own.image + POPULATION_WEIGHT * (population.image - base)
    error = (both.image - expected)[inner]
    assert error.square().mean().sqrt() < 0.06 * (both.image - base)[inner].square().mean().sqrt()


def test_a_contrast_that_no_population_prior_knows_is_reconstructed_all_the_same(folder: Path) -> None:
    image = nib.nifti1.load(folder / "thick.nii.gz")
    values = image.get_fdata()
    random = np.random.default_rng(0).permutation(np.linspace(0, 1000, 40))
    strange = np.interp(values, np.linspace(values.min(), values.max(), 40), random).astype(np.float32)
    nib.save(nib.nifti1.Nifti1Image(strange, image.affine), folder / "strange.nii.gz")
    super_resolve(folder / "strange.nii.gz", steps=2, threads=1)
    second = certificate(folder, "strange_brgm")["population_prior"]
    assert second["weight"] == 0
    assert "strange.nii.gz" not in second["reason"]
    assert "/" not in second["reason"]


def test_a_term_of_a_search_that_is_not_done_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--perceptual discriminator"):
        super_resolve(folder / "thick.nii.gz", tmp_path / "a.nii.gz", prior="self", perceptual="discriminator")
    assert not list(tmp_path.iterdir())
