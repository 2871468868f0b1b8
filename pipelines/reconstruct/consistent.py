"""The generator's slices back on the scan's axes, consistent with the measurements as far as their noise asks."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Mask, Separable, SliceProfile, Together
from brgm_med.measured_fraction import measured_fraction
from brgm_med.noise_level import thinned
from brgm_med.pipelines.reconstruct.measurement import (
    LinearMeasurement,
    PosedScan,
    Reconstruction,
    Registration,
    Scan,
)
from brgm_med.pipelines.reconstruct.phases import Phases, silent
from brgm_med.pipelines.reconstruct.registration import NEGLIGIBLE, from_box
from brgm_med.search import Search
from brgm_med.separable import SeparableSystem
from brgm_med.shifted import solve_shifted
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.oblique import oblique_profile
from brgm_med.transforms.template import Pose

if TYPE_CHECKING:
    from brgm_med.transforms.refine import Refined

LOCAL_MM = 10.0
"""Over about this distance the prior's error is taken to be equally large, where it is weighed against noise."""

RESIDUAL = (0.82, 1.0)
"""The residual of one scan should be between so many standard deviations of its noise."""

SCALES = tuple(1.1**n for n in range(-16, 3))
"""Sizes of the prior's error that are tried for that, relative to the first."""

WEIGHED = 100
"""Iterations, at most, of the one system that gives the images of all of them."""


def measurements_of(registration: Registration) -> tuple[LinearMeasurement, ...]:
    """Every scan as a measurement of the result: the first, and the others in its units and with its bias field."""
    first, grid = registration.first, registration.grid
    measurements = [measurement_of(first.scan, registration.operator, first.noise.deviation)]
    back = np.linalg.inv(first.pose)
    for posed in registration.scans[1:]:
        scan = posed.scan
        values = first.denormalised(posed.normalised(), scan.grid, posed.pose)
        scale = first.normalisation.scale / posed.normalisation.scale
        measurements.append(oblique(scan, grid, values, posed.noise.deviation * scale, posed.pose @ back))
    return tuple(measurements)


def measurement_of(scan: Scan, operator: SliceProfile, deviation: float) -> LinearMeasurement:
    """The first scan as a measurement of the result, by `operator`."""
    inside = operator.inside(scan.grid.shape) & scan.measured
    return LinearMeasurement(
        operator, scan.values, inside, deviation, None if scan.surroundings is None else scan.measured
    )


def oblique(scan: Scan, grid: Grid, values: Tensor, deviation: float, pose: Pose | None = None) -> LinearMeasurement:
    """A scan at any angle as a measurement of an image on `grid`: its `values` [1, X', Y', Z'] and their noise in the
    image's units, where the grid covers its samples; `pose` maps the image's world to the scan's."""
    profile = oblique_profile(scan.acquisition, scan.grid, grid, pose, measured=scan.measured)
    used = profile.spread(torch.ones(1, len(profile.index)))
    return LinearMeasurement(profile, values * used, used[0] > 0, deviation)


def generated(registration: Registration, stack: Tensor, box: Grid) -> tuple[Tensor, Tensor]:
    """The generator's slices `stack` [Y, 1, Z, X] on the first scan's axes, and how far they are trusted there:
    interpolation takes their place where they end. Both [1, X, Y, Z]."""
    volume, weight = from_box(registration, stack, box)
    weight = weight.to(registration.interpolated.dtype)
    return registration.interpolated.lerp(volume.to(registration.interpolated.dtype), weight), weight


def combine(
    registration: Registration,
    stack: Tensor,
    box: Grid,
    refined: tuple[Refined, ...],
    search: Search,
    phases: Phases = silent,
) -> Reconstruction:
    """The generator's slices made consistent with all scans.

    One scan without noise: exactly. With noise: as far as the prior's error, which is estimated from the residual
    around each voxel, is larger than it (see `weighed`). Several scans: see `jointly`. The measured fraction is of the
    prior's error, and 0 where the prior does not reach. A search that is not `projected` leaves the slices as they are:
    no value is kept as measured, and the fraction is 0.
    """
    guess, weight = generated(registration, stack, box)
    measurements, covariance, grid = measurements_of(registration), registration.covariance, registration.grid
    first, deviation, error = measurements[0], measurements[0].deviation, 0.0
    system = SeparableSystem.of(registration.operator, covariance, grid.shape)
    if not search.projected:
        image, fraction = guess, torch.zeros_like(guess)
    elif len(measurements) > 1:
        image, fraction, error = jointly(guess, measurements, covariance, system, search)
    elif deviation == 0:
        image, fraction = exactly(guess, first, covariance, system)
    else:
        residual = first.values.double() - registration.operator(guess.double())
        error_there = error_size(residual, system, registration)
        image, size = weighed(guess, first, error_there, covariance, phases)
        fraction = local_fraction(system, ratio_of(deviation, size, registration.first))
    fraction = torch.where(weight > 0, fraction, 0.0)
    noise, slices = tuple(scan.noise for scan in registration.scans), (0, len(stack) - 1)
    return Reconstruction(
        *(grid, image, guess, weight, fraction.to(guess.dtype), error, measurements, noise),
        registration=registration,
        slices=slices,
        refined=refined,
    )


def exactly(
    image: Tensor, measurement: LinearMeasurement, covariance: Separable, system: SeparableSystem
) -> tuple[Tensor, Tensor]:
    """The image with all that one scan measured, its noise included, and the measured fraction [1, X, Y, Z]."""
    projected = project(image, measurement.operator, measurement.values, covariance)
    return projected, system.measured_fraction(0.0)[None].to(image.dtype)


def jointly(
    image: Tensor,
    measurements: Sequence[LinearMeasurement],
    covariance: Separable,
    system: SeparableSystem,
    search: Search,
) -> tuple[Tensor, Tensor, float]:
    """The most probable image given several scans, the measured fraction, and its standard error.

    `system` is that of the first scan. `search.interpolation` of the prior's error counts as noise, beside the scans'.
    """
    together, values = joined(measurements)
    ratio = noise_ratio(image, measurements[0], system, search)
    projected = project(image, together, values, covariance, ratio, tol=5e-3)
    measured, error = measured_fraction(together, covariance, ratio, (1, *image.shape[1:]))
    return projected, measured.to(image.dtype), error


def joined(measurements: Sequence[LinearMeasurement]) -> tuple[Together, Tensor]:
    """All measurements as one, of the samples that were measured, and its values."""
    masks = [nn.Identity() if m.measured is None else Mask(m.measured) for m in measurements]
    together = Together([nn.Sequential(m.operator, mask) for m, mask in zip(measurements, masks, strict=True)])
    return together, together.join([mask(m.values) for m, mask in zip(measurements, masks, strict=True)])


def noise_ratio(image: Tensor, first: LinearMeasurement, system: SeparableSystem, search: Search) -> float:
    """Noise of several scans over the error of `image`, which the first scan's residual tells."""
    residual, deviation = first.values.double() - first.operator(image.double()), first.deviation
    typical = math.sqrt(max(float(residual.square().mean()) - deviation**2, 0.0) / float(system.spectrum.mean()))
    return math.hypot(deviation / max(typical, 1e-3 * deviation) if deviation else 0.0, search.interpolation)


def weighed(
    image: Tensor,
    measurement: LinearMeasurement,
    error: Tensor,
    covariance: Separable,
    phases: Phases = silent,
) -> tuple[Tensor, Tensor]:
    """The most probable image given a scan with noise, and the size of the prior's error that it rests on.

    `error` [1, X, Y, Z] is scaled down, if need be, until the residual keeps `RESIDUAL` of the noise (the discrepancy
    principle): a smaller one would mean that noise was taken for detail. Of the scales, which are shifts of one system
    (see `solve_shifted`), that nearest to the first is taken.
    """
    operator, deviation = copy.deepcopy(measurement.operator).float(), measurement.deviation
    image, values = image.float(), measurement.values.float()
    # So large an error leaves a residual well below the noise, and the system is no worse conditioned than it must be.
    largest = max(float(torch.quantile(thinned(error.flatten()), 0.95)), deviation)
    first = min(1.0, 3 * math.sqrt(deviation / largest))
    scales = [first * factor for factor in SCALES if first * factor <= 1] or [first]
    spread = float((values - values.mean()).square().mean().sqrt())
    residual = values - operator(image)
    size = float(residual.square().mean().sqrt())
    if not size:
        return image, first * error
    tolerance = min(5e-4 * spread, 0.05 * deviation) / size
    applied, size_of = copy.deepcopy(covariance).float(), error.float()
    with torch.enable_grad():
        origin = torch.zeros_like(image, requires_grad=True)
        samples = operator(origin)

    def spread_back(z: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(samples, origin, z, retain_graph=True)
        return size_of * applied(size_of * back)

    shifts = [(deviation / scale) ** 2 for scale in scales]
    with phases("weighing the scan against its noise", WEIGHED) as advance, torch.no_grad():

        def progress(left: float) -> None:
            advance(f"residual {left:.1e}")

        def product(z: Tensor) -> Tensor:
            with torch.enable_grad():
                back = spread_back(z)
            return operator(back)

        solutions = solve_shifted(product, residual, shifts, tolerance=tolerance, iterations=WEIGHED, progress=progress)
    left = [shift * float(u.square().mean().sqrt()) / deviation for shift, u in zip(shifts, solutions, strict=True)]

    def unfit(number: int) -> tuple[float, float]:
        beyond = max(RESIDUAL[0] - left[number], left[number] - RESIDUAL[1], 0.0)
        return beyond, abs(math.log(scales[number] / first))

    best = min(range(len(scales)), key=unfit)
    return image + spread_back(solutions[best]), scales[best] * error


def error_size(residual: Tensor, system: SeparableSystem, registration: Registration) -> Tensor:
    """Standard deviation of the prior's own error around each voxel, [1, X, Y, Z], in the first scan's units: the part
    of the residual's square that its noise does not explain, averaged over `LOCAL_MM`, over the mean eigenvalue of
    A C A'."""
    first = registration.first
    width = [2 * max(0, round(LOCAL_MM / s / 2)) + 1 for s in first.scan.grid.spacing]
    pad = [w // 2 for w in width]
    local = torch.nn.functional.avg_pool3d(residual.square()[None], width, 1, pad, count_include_pad=False)[0]
    misfit = (local - first.noise.deviation**2).clamp(min=0) / system.spectrum.mean()
    return resample(misfit, first.scan.grid, registration.grid, padding="border").sqrt()


def ratio_of(deviation: float, size: Tensor, posed: PosedScan) -> Tensor:
    """Noise over the prior's error of that `size` [1, X, Y, Z], for the measured fraction.

    Noise counts from where it is no longer `NEGLIGIBLE`, and no error is smaller than that, so that the fraction does
    not jump where noise begins to be told: it falls from that without noise.
    """
    least = NEGLIGIBLE * posed.normalisation.scale
    return max(deviation - least, 0.0) / torch.hypot(size, torch.full_like(size, least))


def local_fraction(system: SeparableSystem, ratio: Tensor) -> Tensor:
    """`SeparableSystem.measured_fraction` for a ratio of noise to error that differs between voxels, [1, X, Y, Z]: as
    if it were everywhere as at the voxel. Where it is infinite, nothing is measured."""
    position = ((ratio[0].log10() + 2) * 2).clamp(0, 8)
    fraction = torch.zeros_like(position)
    for number, level in enumerate(torch.logspace(-2, 2, 9, dtype=torch.float64).tolist()):
        fraction += (1 - (position - number).abs()).clamp(min=0) * system.measured_fraction(level)
    return torch.where(ratio[0] < 100, fraction, 0.0)[None]
