"""Intervals, samples and means of regions: that they cover the truth, and leave alone what was measured."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest
import torch

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines import Reconstruction, reconstruct_volume
from brgm_med.pipelines.reading import read_scan
from brgm_med.pipelines.reconstruct.region import mean_in
from brgm_med.pipelines.reconstruct.samples import sample_volume
from brgm_med.pipelines.reconstruct.uncertainty import expected_psnr
from brgm_med.pipelines.steps.degrade import degrade
from brgm_med.priors.bundle import load
from brgm_med.search import POPULATION_WEIGHT, VOLUME
from brgm_med.transforms.acquire import AcquisitionModel
from tests.heads import template_head
from tests.spheres import QUICK, SIZE, scan_of, spheres

NOISE = 5.0


@cache
def result(noise: float = 0.0) -> Reconstruction:
    scan = scan_of(spheres(), 2)
    if noise:
        values = scan.values + noise * torch.randn(scan.values.shape, generator=torch.Generator().manual_seed(0))
        scan = dataclasses.replace(scan, values=values, noise=noise)
    return reconstruct_volume(scan, search=QUICK, uncertainty=True)


@cache
def samples(noise: float = 0.0) -> torch.Tensor:
    return torch.stack(list(sample_volume(result(noise), 24)))


def test_intervals_cover_the_truth() -> None:
    uncertainty = result().uncertainty
    assert uncertainty is not None
    error = (result().image - spheres()).abs()
    covered = [float((error <= uncertainty.half_width(level)).float().mean()) for level in (0.5, 0.9, 0.99)]
    assert covered == sorted(covered)
    assert 0.85 < covered[1] < 0.97


def test_uncertainty_leaves_the_image_as_it_is() -> None:
    plain = reconstruct_volume(scan_of(spheres(), 2), search=QUICK)
    assert plain.uncertainty is None
    assert torch.equal(plain.image, result().image)
    with pytest.raises(ValueError, match="no uncertainty"):
        next(sample_volume(plain, 1))


def test_samples_differ_in_nothing_that_was_measured() -> None:
    (measurement,) = result().measurements
    seen = torch.stack([measurement.operator(sample.double()) for sample in samples()])
    relative = (seen - measurement.values).norm() / (measurement.values - measurement.values.mean()).norm()
    assert relative / len(seen) ** 0.5 < 1e-6


def test_samples_spread_as_the_deviation_says() -> None:
    uncertainty = result().uncertainty
    assert uncertainty is not None
    spread = (samples() - result().image).square().mean(0).sqrt()
    assert float(spread.square().mean().sqrt() / uncertainty.deviation.square().mean().sqrt()) == pytest.approx(
        1, abs=0.05
    )
    ratio = spread / uncertainty.deviation
    assert 0.8 < ratio.median() < 1.2
    assert torch.equal(samples()[0], next(sample_volume(result(), 1)))
    assert not torch.equal(samples()[0], next(sample_volume(result(), 1, seed=1)))


def test_noise_widens_the_intervals_and_the_samples() -> None:
    noisy, clean = result(NOISE).uncertainty, result().uncertainty
    assert noisy is not None
    assert clean is not None
    assert clean.noise.max() == 0
    assert 0.3 * NOISE < noisy.noise.mean() < 1.5 * NOISE
    assert noisy.deviation.mean() > clean.deviation.mean()
    (measurement,) = result(NOISE).measurements
    seen = torch.stack([measurement.operator(s.double()) for s in samples(NOISE)]) - measurement.values
    assert float(seen.square().mean().sqrt()) == pytest.approx(NOISE, rel=0.05)
    error = (result(NOISE).image - spheres()).abs()
    assert 0.85 < float((error <= noisy.half_width(0.9)).float().mean()) < 0.98


def test_the_mean_of_a_region_is_surer_than_its_voxels() -> None:
    region = torch.zeros((SIZE,) * 3, dtype=torch.bool)
    region[10:20, 10:20, 9:21] = True
    mean, deviation = mean_in(result(), region)
    assert mean == pytest.approx(float(result().image[0][region].mean()), rel=1e-6)
    drawn = samples()[:, 0][:, region].mean(1)
    assert deviation == pytest.approx(float(drawn.std()), rel=0.5)
    uncertainty = result().uncertainty
    assert uncertainty is not None
    assert deviation < 0.2 * uncertainty.deviation[0][region].mean()
    assert abs(mean - spheres()[0][region].mean()) < 4 * deviation
    with pytest.raises(ValueError, match="not empty"):
        mean_in(result(), torch.zeros_like(region))


def test_further_scans_narrow_the_intervals() -> None:
    scans = [scan_of(spheres(), 2), scan_of(2 * spheres() + 7, 0, "the other")]
    both = reconstruct_volume(scans, search=QUICK, uncertainty=True)
    one = result().uncertainty
    assert both.uncertainty is not None
    assert one is not None
    assert both.uncertainty.deviation.mean() < 0.9 * one.deviation.mean()
    drawn = torch.stack(list(sample_volume(both, 4, search=QUICK)))
    spread = (drawn - both.image).square().mean().sqrt()
    assert float(spread / both.uncertainty.deviation.square().mean().sqrt()) == pytest.approx(1, abs=0.1)


def test_constant_surroundings_are_not_in_doubt() -> None:
    volume = spheres().clone()
    volume[:, :, :, 24:] = 0
    there = reconstruct_volume(scan_of(volume, 0), search=QUICK, uncertainty=True)
    assert there.uncertainty is not None
    assert there.uncertainty.deviation[..., 30:].max() == 0
    assert there.uncertainty.deviation[..., :20].min() > 0
    (sample,) = sample_volume(there, 1)
    assert torch.equal(sample[..., 30:], there.image[..., 30:])


def test_the_psnr_is_foretold() -> None:
    expected, low, high = expected_psnr(result())
    error = (result().image - spheres()).square().mean().sqrt()
    assert low < expected < high
    assert low < 20 * float((torch.tensor(110.0) / error).log10()) < high


def test_intervals_need_the_scans_own_planes() -> None:
    with pytest.raises(ValueError, match="its own prior"):
        reconstruct_volume(scan_of(spheres(), 2), load(), own=False, uncertainty=True)
    scan = scan_of(spheres(), 2)
    fine = dataclasses.replace(
        scan, values=spheres(), grid=result().grid, acquisition=AcquisitionModel((1.0, 1.0, 1.0), "box", 2), noise=NOISE
    )
    with pytest.raises(InputRefusedError, match="nothing to learn"):
        reconstruct_volume(fine, search=QUICK, uncertainty=True)


@pytest.mark.slow
def test_samples_of_a_population_prior_move_its_slices_and_nothing_that_was_measured(tmp_path: Path) -> None:
    template_head(tmp_path / "head.nii.gz")
    degrade(tmp_path / "head.nii.gz", tmp_path / "thick.nii.gz", thickness=6.0, axis="S")
    scan = read_scan(tmp_path / "thick.nii.gz", noise=0.0).scan
    search = VOLUME.limited_to(3)
    there = reconstruct_volume(scan, load(), search=search, uncertainty=True)
    assert there.population is not None
    assert there.population.weight == POPULATION_WEIGHT
    assert there.uncertainty is not None
    assert there.uncertainty.population is not None
    one, other = (there.uncertainty.population(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one.shape == there.image.shape
    assert not torch.equal(one, other)
    size = float(one[one != 0].square().mean().sqrt())
    assert 0 < size < float(there.uncertainty.deviation.max())
    (measurement,) = there.measurements
    (sample,) = sample_volume(there, 1, search=search)
    residual = (measurement.operator(sample.double()) - measurement.values)[:, measurement.inside]
    spread = (measurement.values - measurement.values.mean())[:, measurement.inside]
    assert float(residual.norm() / spread.norm()) < 1e-6
