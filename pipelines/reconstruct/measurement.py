"""Scans as measured, and all that is settled before the prior is asked: grids, pose, intensities, noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import Separable, SliceProfile
from brgm_med.errors import InputRefusedError
from brgm_med.noise_level import NoiseLevel, noise_in_air
from brgm_med.separable import SeparableSystem, stationary_covariance
from brgm_med.transforms.acquire import AcquisitionModel, fine_grid, interpolate
from brgm_med.transforms.bias_field import LogBiasField
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.register import LEAST_CORRELATION, resample_cubic, rigid_pose, similarity
from brgm_med.transforms.slices import restack
from brgm_med.transforms.template import Pose, Template

CORRELATION_MM = 1.0
"""Correlation length of the prior's own error, mm: C of the final projection (chosen on the choosing heads)."""

TAPER_MM = 6.0
"""Over this distance from the edge of what the prior covers, its answer gives way to interpolation."""

NEGLIGIBLE = 1e-3
"""Noise below this part of the brain's brightness is rounding, or what interpolation left of it: taken for none."""

SMOOTH_MM = 10.0
"""Correlation length of a head's intensities where they are interpolated through noise."""

DISCREPANCY = 0.93
"""Such interpolation leaves a residual of so many standard deviations: below 1, as the noise may be overestimated."""


@dataclass(frozen=True)
class Scan:
    """One measured volume `image` [1, X, Y, Z] on `grid`. `pose` maps the template's world to the scan's."""

    image: Tensor
    grid: Grid
    acquisition: AcquisitionModel
    pose: Pose
    normalisation: Normalisation
    noise: NoiseLevel
    shading: LogBiasField

    def normalised(self) -> Tensor:
        """The scan as the prior's head would look to it: air -1, brain 0, no shading."""
        factor = self.shading.on(self.grid, self.pose).to(self.image.dtype)
        return (self.normalisation.forward(self.image) + 1) / factor - 1

    def shaded(self, normalised: Tensor, grid: Grid, pose: Pose) -> Tensor:
        """The inverse of `normalised`, for an image on another `grid`, to whose world `pose` maps the template's."""
        factor = self.shading.on(grid, pose).to(normalised.dtype)
        return self.normalisation.inverse((normalised + 1) * factor - 1)


@dataclass(frozen=True)
class Problem:
    """Scans of one head and the grid of the result, `fine`, which has the first scan's axes.

    `corruption`: what the first scan is of an image on `fine`, exactly; `covariance`: that of the prior's own error
    there; `interpolated` [1, X, Y, Z]: the first scan on `fine`, consistent with it up to its noise; `correlation`:
    with the template.
    """

    scans: tuple[Scan, ...]
    fine: Grid
    corruption: SliceProfile
    covariance: Separable
    interpolated: Tensor
    correlation: float

    @property
    def first(self) -> Scan:
        return self.scans[0]

    @property
    def pose(self) -> Pose:
        return self.first.pose

    def refined(self, poses: Sequence[Pose], shadings: Sequence[LogBiasField]) -> Problem:
        """With another pose and shading for each scan."""
        changed = zip(self.scans, poses, shadings, strict=True)
        scans = tuple(dataclasses.replace(scan, pose=pose, shading=shading) for scan, pose, shading in changed)
        return dataclasses.replace(self, scans=scans)


def error_covariance(grid: Grid) -> Separable:
    """C of the final projection on `grid`: what the prior gets wrong falls off as a Gaussian of `CORRELATION_MM`."""
    return stationary_covariance(grid.shape, [CORRELATION_MM / s for s in grid.spacing], "gaussian")


def output_grid(scans: Sequence[Grid], finest: float, spacing: float | None = None) -> Grid:
    """The first scan's axes and edges, isotropic: the smallest spacing of all scans and `finest`, or `spacing`, mm."""
    smallest = min(finest, *(min(grid.spacing) for grid in scans)) if spacing is None else spacing
    return fine_grid(scans[0], (smallest, smallest, smallest))


def pose_problem(
    scan: Tensor,
    coarse: Grid,
    acquisition: AcquisitionModel,
    spacing: float,
    template: Template,
    noise: float | None = 0.0,
    fine: Grid | None = None,
) -> Problem:
    """Everything about a scan [1, X', Y', Z'] that is settled before the prior is asked.

    `noise`: the standard deviation of the scan's noise, in its units; None: estimated in the air. `fine`: the grid of
    the result, by default `output_grid` with the prior's `spacing`. Raises InputRefusedError when the scan cannot be
    registered to the template.
    """
    fine = output_grid([coarse], spacing) if fine is None else fine
    corruption = acquisition.corruption(fine, coarse)
    covariance = error_covariance(fine)
    interpolated = project(interpolate(scan, coarse, fine), corruption, scan, covariance)
    pose, correlation = rigid_pose(interpolated, fine, template)
    normalisation = estimate(interpolated, fine, template, pose)
    level = noise_of(scan, coarse, template, pose, noise, normalisation)
    if level.deviation:
        interpolated = smoothed(scan, fine, corruption, level.deviation)
    first = Scan(scan, coarse, acquisition, pose, normalisation, level, LogBiasField.none())
    return Problem((first,), fine, corruption, covariance, interpolated, correlation)


def smoothed(scan: Tensor, fine: Grid, corruption: SliceProfile, deviation: float) -> Tensor:
    """The most probable smooth image on `fine`, [1, X, Y, Z], that leaves the scan a residual of about its noise.

    A Gaussian process of the scan's mean, its covariance exponential of `SMOOTH_MM`: interpolation that takes no noise
    for detail.
    """
    covariance = stationary_covariance(fine.shape, [SMOOTH_MM / s for s in fine.spacing], "exponential")
    system = SeparableSystem.of(corruption, covariance, fine.shape)
    mean = scan.double().mean()
    noise = system.noise_for(scan.double() - mean, DISCREPANCY * deviation)
    if noise == math.inf:
        return torch.full((1, *fine.shape), float(mean)).to(scan.dtype)
    return (mean + system.correction(scan.double() - mean, noise)).to(scan.dtype)


def with_scan(
    problem: Problem, scan: Tensor, grid: Grid, acquisition: AcquisitionModel, template: Template, noise: float | None
) -> Problem:
    """The problem with one more scan of the same head, which lies in the same world as the first.

    Raises InputRefusedError where it does not: where it does not look like the template in the first scan's pose.
    """
    correlation, _ = similarity(scan, grid, template, problem.pose)
    if correlation < LEAST_CORRELATION:
        raise InputRefusedError(
            f"it does not lie where the first scan does (correlation with the template in its pose {correlation:.2f}, "
            f"at least {LEAST_CORRELATION} needed); register it to the first scan, or leave it out"
        )
    normalisation = estimate(scan, grid, template, problem.pose)
    level = noise_of(scan, grid, template, problem.pose, noise, normalisation)
    added = Scan(scan, grid, acquisition, problem.pose, normalisation, level, LogBiasField.none())
    return dataclasses.replace(problem, scans=(*problem.scans, added))


def noise_of(
    scan: Tensor, grid: Grid, template: Template, pose: Pose, stated: float | None, normalisation: Normalisation
) -> NoiseLevel:
    """The noise of a registered scan: as stated, or, if None, from its air (below `NEGLIGIBLE` of the brain none)."""
    if stated is not None:
        return NoiseLevel(stated, "stated")
    air = torch.from_numpy(template.air.astype(np.float32))[None]
    back = np.linalg.inv(pose).astype(np.float64)
    there = resample(air, template.grid, grid, back, mode="nearest")[0] > 0.5
    found = noise_in_air(scan[0][there])
    small = 0 < found.deviation < NEGLIGIBLE * normalisation.scale
    return NoiseLevel(0.0, "negligible") if small else found


def placed(problem: Problem, stack: Tensor, box: Grid) -> tuple[Tensor, Tensor]:
    """Slices [Y, 1, Z, X] of the whole box on the fine grid, in the first scan's units and with its shading, and how
    far the prior is trusted there, 1 to 0 at the edge of what it covers: both [1, X, Y, Z]."""
    back = np.linalg.inv(problem.pose).astype(np.float64)
    volume = resample_cubic(restack(stack), box, problem.fine, back, -1.0)
    edge = torch.ones(1, *box.shape)
    for axis, (n, s) in enumerate(zip(box.shape, box.spacing, strict=True)):
        place = torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) * s
        ramp = (place / TAPER_MM).clamp(max=1.0)
        edge = edge * (0.5 - 0.5 * torch.cos(torch.pi * ramp)).reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    return problem.first.shaded(volume, problem.fine, problem.pose), resample(edge, box, problem.fine, back)
