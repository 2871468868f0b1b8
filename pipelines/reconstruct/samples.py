"""Samples of the truth as it may be, given a reconstruction: they agree in all that was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import SliceProfile
from brgm_med.pipelines.reconstruct.consistent import joined, noise_ratio
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Uncertainty
from brgm_med.pipelines.reconstruct.registration import error_covariance
from brgm_med.search import VOLUME, Search
from brgm_med.self_prior.draws import field, roots
from brgm_med.separable import SeparableSystem

Correction = Callable[[Tensor, torch.Generator], Tensor]
"""Of an error [1, X, Y, Z] as drawn before the scans were made: the error that they leave, their noise included."""


def sample_volume(result: Reconstruction, count: int, *, seed: int = 0, search: Search = VOLUME) -> Iterator[Tensor]:
    """`count` samples, [1, X, Y, Z], of the truth given a `result` with its uncertainty, in the image's units.

    An error is drawn with the deviation and the correlations that errors have on the scan's own planes, and noise with
    that of the scans; of both, only the part remains that the scans leave open (perturb and project). Without noise the
    samples therefore give back what one scan measured exactly. Deterministic for a seed. Raises ValueError for a result
    without uncertainty.
    """
    uncertainty = _uncertainty(result)
    factors = roots(uncertainty.model, result.grid.shape, uncertainty.axis, uncertainty.voxel)
    size, correct = drawn_size(result), correction(result, search)
    for number in range(count):
        random = torch.Generator().manual_seed(1_000_003 * seed + number + 1)
        error = size * field(factors, random)
        if uncertainty.population is not None:
            error = error + uncertainty.population(random).to(error)
        error = correct(error, random)
        yield result.image + torch.where(uncertainty.deviation > 0, error, 0.0).to(result.image)


def drawn_size(result: Reconstruction, search: Search = VOLUME) -> Tensor:
    """Standard deviation of errors as drawn, [1, X, Y, Z], for which what the scans leave of them has the deviation of
    the uncertainty: that times a factor, which one draw tells."""
    uncertainty = _uncertainty(result)
    own = (uncertainty.deviation.square() - uncertainty.noise.square()).clamp(min=0).sqrt()
    factors = roots(uncertainty.model, result.grid.shape, uncertainty.axis, uncertainty.voxel)
    draw = own * field(factors, torch.Generator().manual_seed(0))
    left = correction(result, search, noise=False)(draw, torch.Generator())
    return own * math.sqrt(float(own.double().square().mean()) / max(float(left.double().square().mean()), 1e-30))


def correction(result: Reconstruction, search: Search = VOLUME, noise: bool = True) -> Correction:
    """e -> e + K (n - A e), K the gain by which the scans corrected the image; `noise` n is drawn, or 0."""
    first, *others = result.measurements
    strength = 1.0 if noise else 0.0

    def noise_of(values: Tensor, deviation: float, random: torch.Generator) -> Tensor:
        if not deviation * strength:
            return torch.zeros_like(values)
        return strength * deviation * torch.randn(values.shape, generator=random).to(values)

    if not others:
        return lambda error, random: project(error, first.operator, noise_of(first.values, first.deviation, random))
    covariance = error_covariance(result.grid, search.correlation)
    assert isinstance(first.operator, SliceProfile)
    system = SeparableSystem.of(first.operator, covariance, result.grid.shape)
    together, _ = joined(result.measurements)
    ratio = noise_ratio(result.unprojected, first, system, search)

    def jointly(error: Tensor, random: torch.Generator) -> Tensor:
        drawn = [noise_of(m.values, m.deviation, random) for m in result.measurements]
        masked = [n if m.measured is None else n * m.measured for m, n in zip(result.measurements, drawn, strict=True)]
        return project(error, together, together.join(masked), covariance, ratio, tol=5e-3)

    return jointly


def _uncertainty(result: Reconstruction) -> Uncertainty:
    if result.uncertainty is None:
        raise ValueError("sample_volume: the result has no uncertainty; reconstruct with uncertainty=True")
    return result.uncertainty
