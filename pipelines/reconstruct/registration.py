"""Registration, intensities and noise: everything about scans that is settled before the prior is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import Separable, SliceProfile
from brgm_med.errors import InputRefusedError
from brgm_med.noise_level import NoiseLevel, noise_in_air
from brgm_med.pipelines.reconstruct.measurement import PosedScan, Registration, Scan
from brgm_med.search import STRANGE, VOLUME
from brgm_med.separable import SeparableSystem, stationary_covariance
from brgm_med.transforms.acquire import fine_grid, interpolate
from brgm_med.transforms.bias_field import LogBiasField
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.orientation import LEAST_INFORMATION, agreement
from brgm_med.transforms.pyramid import clipped
from brgm_med.transforms.register import resample_cubic, rigid_pose
from brgm_med.transforms.slices import restack
from brgm_med.transforms.template import Pose, Template

TAPER_MM = 6.0
"""Over this distance from the edge of what the prior covers, its answer gives way to interpolation."""

NEGLIGIBLE = 1e-3
"""Noise below this part of the brain's brightness is rounding, or what interpolation left of it: taken for none."""

REMOVED = 0.3
"""Part of the neighbourhood of the brain, up to 14 mm from it, that is constant in heads without their skull."""

SMOOTH_MM = 10.0
"""Correlation length of a head's intensities where they are interpolated through noise."""

DISCREPANCY = 0.93
"""Such interpolation leaves a residual of so many standard deviations: below 1, as the noise may be overestimated."""


def error_covariance(grid: Grid, correlation: float = VOLUME.correlation) -> Separable:
    """C of the final projection on `grid`: the prior's error falls off as a Gaussian of `correlation` mm."""
    return stationary_covariance(grid.shape, [correlation / s for s in grid.spacing], "gaussian")


def output_grid(scans: Sequence[Grid], finest: float, spacing: float | None = None) -> Grid:
    """The first scan's axes and edges, isotropic: the smallest spacing of all scans and `finest`, or `spacing`, mm."""
    smallest = min(finest, *(min(grid.spacing) for grid in scans)) if spacing is None else spacing
    return fine_grid(scans[0], (smallest, smallest, smallest))


def register(scans: Sequence[Scan], grid: Grid, template: Template, correlation: float) -> Registration:
    """Scans of one head that lie in one world, registered by the first; the result will lie on `grid`.

    `correlation`: length of the prior's own error, mm. Raises InputRefusedError, which names the scan, when the first
    cannot be registered to the template, and when another does not look like the template in the first one's pose.
    """
    scan = first = scans[0]
    try:
        operator, covariance = first.acquisition.corruption(grid, first.grid), error_covariance(grid, correlation)
        interpolated = project(interpolate(first.values, first.grid, grid), operator, first.values, covariance)
        pose, similar = rigid_pose(interpolated, grid, template)
        posed = [posed_scan(first, pose, template, estimate(interpolated, grid, template, pose))]
        if posed[0].noise.deviation:
            interpolated = smoothed(first.values, grid, operator, posed[0].noise.deviation)
        for scan in scans[1:]:
            check_pose(scan, pose, template)
            posed.append(posed_scan(scan, pose, template, estimate(scan.values, scan.grid, template, pose)))
    except InputRefusedError as error:
        raise InputRefusedError(f"{scan.name}: {error}") from error
    return Registration(tuple(posed), grid, operator, covariance, interpolated, similar)


def posed_scan(scan: Scan, pose: Pose, template: Template, normalisation: Normalisation) -> PosedScan:
    """A scan in a pose. Its noise is as stated, or from its air (below `NEGLIGIBLE` of the brain none).

    Its surroundings enter no likelihood where they are padding, or where its skull was stripped.
    """
    used = scan.measured
    if not (scan.padded or scan.stripped or skull_removed(scan, pose, template)):
        used = torch.ones_like(used)
    if scan.noise is not None:
        level = NoiseLevel(scan.noise, "stated")
    else:
        air = torch.from_numpy(template.air.astype(np.float32))[None]
        back = np.linalg.inv(pose).astype(np.float64)
        outside = resample(air, template.grid, scan.grid, back, mode="nearest")[0] > 0.5
        level = noise_in_air(scan.values[0][outside & scan.measured])
        if 0 < level.deviation < NEGLIGIBLE * normalisation.scale:
            level = NoiseLevel(0.0, "negligible")
    return PosedScan(scan, pose, normalisation, level, LogBiasField.none(), used)


def skull_removed(scan: Scan, pose: Pose, template: Template) -> bool:
    """True where constant surroundings take up `REMOVED` of the neighbourhood of the brain."""
    if scan.surroundings is None:
        return False
    around = torch.from_numpy(template.near) & (template.mask[0] <= 0)
    seen = resample(scan.measured.float()[None], scan.grid, template.grid, pose, padding="border")[0] > 0.5
    return float((~seen[around]).float().mean()) > REMOVED


def check_known(registration: Registration, prior: str) -> None:
    """Raise InputRefusedError, which names the scan, where the prior of that name does not know such scans at all."""
    if registration.correlation < STRANGE:
        raise InputRefusedError(
            f"{registration.first.scan.name}: {prior} does not know such scans (correlation with its template "
            f"{registration.correlation:.2f}, at least {STRANGE} needed); leave the prior out, or take self"
        )


def check_pose(scan: Scan, pose: Pose, template: Template) -> None:
    """Raise InputRefusedError for a further scan that does not look like the template in the first scan's pose."""
    information, ratio = agreement(clipped(scan.values[0].numpy()), scan.grid, template, pose)
    if information < LEAST_INFORMATION or ratio < 1:
        raise InputRefusedError(
            f"it does not lie where the first scan does (its information on the template in its pose: "
            f"{information:.2f} nats, {ratio:.2f} times that of poses 20 mm away; at least {LEAST_INFORMATION} and 1 "
            "are needed); register it to the first scan, or leave it out"
        )


def smoothed(values: Tensor, grid: Grid, operator: SliceProfile, deviation: float) -> Tensor:
    """The most probable smooth image on `grid`, [1, X, Y, Z], that leaves the scan a residual of about its noise.

    A Gaussian process of the scan's mean, its covariance exponential of `SMOOTH_MM`: interpolation that takes no noise
    for detail.
    """
    covariance = stationary_covariance(grid.shape, [SMOOTH_MM / s for s in grid.spacing], "exponential")
    system = SeparableSystem.of(operator, covariance, grid.shape)
    mean = values.double().mean()
    ratio = system.noise_for(values.double() - mean, DISCREPANCY * deviation)
    if ratio == math.inf:
        return torch.full((1, *grid.shape), float(mean)).to(values.dtype)
    return (mean + system.correction(values.double() - mean, ratio)).to(values.dtype)


def from_box(registration: Registration, stack: Tensor, box: Grid) -> tuple[Tensor, Tensor]:
    """Slices [Y, 1, Z, X] of the whole box on the result's grid, in the first scan's units and with its bias field, and
    the prior's weight there, 1, falling to 0 at the edge of the box: both [1, X, Y, Z]."""
    back = np.linalg.inv(registration.pose).astype(np.float64)
    volume = resample_cubic(restack(stack), box, registration.grid, back, -1.0)
    edge = torch.ones(1, *box.shape)
    for axis, (n, s) in enumerate(zip(box.shape, box.spacing, strict=True)):
        depth = torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) * s
        ramp = (depth / TAPER_MM).clamp(max=1.0)
        edge = edge * (0.5 - 0.5 * torch.cos(torch.pi * ramp)).reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    weight = resample(edge, box, registration.grid, back)
    return registration.first.denormalised(volume, registration.grid, registration.pose), weight
