"""Super-resolution of one volume: what happens between reading the scan and writing the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.consistency import SeparableCovariance, project, stationary_covariance
from brgm_med.corruptions import AxisBlur, Mask, SliceProfile, profile_kernel
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.posterior import Weights, whitened_posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.solvers import fit_lbfgs
from brgm_med.transforms.acquire import AcquisitionModel, fine_grid, interpolate
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.register import resample_cubic, rigid_pose, scale_of
from brgm_med.transforms.slices import coronal_stack, restack
from brgm_med.transforms.template import Pose, Template

CORRELATION_MM = 1.0
"""Correlation length of the prior's own error, mm: C of the final projection (chosen on the choosing heads)."""

TAPER_MM = 6.0
"""Over this distance from the edge of what the prior covers, its answer gives way to interpolation."""

STEPS = 15
"""Steps of the search, chosen on the choosing heads: more of them lower the energy still, but not the error, since the
likelihood is approximate. On heads unlike the prior's more can be better: the demo's gains 0.1 dB from ten more."""


@dataclass(frozen=True)
class Problem:
    """A scan, its acquisition, and where it lies in the prior's space. Volumes are [1, X, Y, Z]."""

    scan: Tensor
    coarse: Grid
    fine: Grid
    acquisition: AcquisitionModel
    corruption: SliceProfile
    covariance: SeparableCovariance
    interpolated: Tensor
    pose: Pose
    correlation: float
    normalisation: Normalisation


@dataclass(frozen=True)
class Result:
    """`image` [1, X, Y, Z] on the fine grid, consistent with the scan; `weight` [1, X, Y, Z] in [0, 1]: how
    far the prior is trusted (0: interpolation alone); `unprojected` the same before the final projection."""

    image: Tensor
    unprojected: Tensor
    weight: Tensor


def error_covariance(grid: Grid) -> SeparableCovariance:
    """C of the final projection on `grid`: what the prior gets wrong falls off as a Gaussian of `CORRELATION_MM`."""
    return stationary_covariance(grid.shape, [CORRELATION_MM / s for s in grid.spacing], "gaussian")


def pose_problem(
    scan: Tensor, coarse: Grid, acquisition: AcquisitionModel, spacing: float, template: Template
) -> Problem:
    """Everything about a scan [1, X', Y', Z'] that is settled before the prior is asked.

    Raises InputRefusedError when the scan cannot be registered to the template.
    """
    fine = fine_grid(coarse, (spacing, spacing, spacing))
    corruption = acquisition.corruption(fine, coarse)
    covariance = error_covariance(fine)
    interpolated = project(interpolate(scan, coarse, fine), corruption, scan, covariance)
    pose, correlation = rigid_pose(interpolated, fine, template)
    normalisation = estimate(interpolated, fine, template, pose)
    return Problem(
        scan, coarse, fine, acquisition, corruption, covariance, interpolated, pose, correlation, normalisation
    )


def approximate_corruption(problem: Problem, box: Grid) -> AxisBlur:
    """The scan's profile as a convolution of the registered stack along its nearest axes (N = A, H = S, W = R).

    Approximate in two ways: the rotation between scan and template is rounded to whole axes, and the sampling is
    left out (the interpolated scan is compared everywhere, not only where samples lie).
    """
    kernels: list[Tensor | None] = [None, None, None]
    scale = scale_of(problem.pose)
    to_template = np.linalg.inv(problem.pose)[:3, :3]
    directions = to_template @ problem.coarse.affine[:3, :3]
    turned = Grid(problem.coarse.shape, np.vstack([np.column_stack([directions, np.zeros(3)]), [0, 0, 0, 1]]))
    for axis, matrix in enumerate(problem.corruption.matrices):
        if matrix is None:
            continue
        world = turned.world_axis(axis)
        profile = problem.acquisition.profile if axis == problem.acquisition.axis else "box"
        kernel = profile_kernel(box.spacing[world], problem.acquisition.thickness[axis] / scale, profile)
        kernels[{0: 2, 1: 0, 2: 1}[world]] = kernel
    return AxisBlur(kernels)


def measured_stack(problem: Problem, box: Grid) -> tuple[Tensor, Tensor]:
    """The interpolated scan as slices of the prior's box, normalised, and where the scan has them: [Y, 1, Z, X]."""
    normalised = problem.normalisation.forward(problem.interpolated)
    stack = coronal_stack(resample_cubic(normalised, problem.fine, box, problem.pose, -1.0))
    seen = coronal_stack(resample(torch.ones_like(normalised), problem.fine, box, problem.pose)) > 0.999
    return stack, seen


def infer_stack(
    problem: Problem,
    bundle: PriorBundle,
    template: Template,
    *,
    steps: int,
    features: PerceptualFeatures | None,
    weights: Weights,
    device: torch.device | None = None,
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Tensor:
    """MAP of all coronal slices of the prior's box at once: normalised stack [Y, 1, Z, X]."""
    box = template.box
    stack, seen = measured_stack(problem, box)
    corruption = nn.Sequential(approximate_corruption(problem, box), Mask(seen))
    where = torch.device("cpu") if device is None else device
    stack, corruption = stack.to(where), corruption.to(where)
    whitened = bundle.whitened(where)
    with torch.no_grad():
        measured = corruption(stack)
    posterior = whitened_posterior(whitened, corruption, measured, features, weights)
    start = torch.zeros(len(stack), 1, whitened.w_dim, device=where)
    return fit_lbfgs(posterior, start, steps=steps, curvature=whitened.curvature, callback=callback).image.cpu()


def combine(problem: Problem, stack: Tensor, box: Grid) -> Result:
    """The generator's slices, back on the scan's axes, made exactly consistent with the scan."""
    volume, weight = placed(problem, stack, box)
    image = problem.interpolated.lerp(volume.to(problem.interpolated.dtype), weight.to(problem.interpolated.dtype))
    return Result(project(image, problem.corruption, problem.scan, problem.covariance), image, weight)


def placed(problem: Problem, stack: Tensor, box: Grid) -> tuple[Tensor, Tensor]:
    """Slices [Y, 1, Z, X] of the whole box on the fine grid, in the scan's units, and how far the prior is trusted
    there, 1 to 0 at the edge of what it covers: both [1, X, Y, Z]."""
    back = np.linalg.inv(problem.pose).astype(np.float64)
    volume = problem.normalisation.inverse(restack(stack))
    volume = resample_cubic(volume, box, problem.fine, back, problem.normalisation.low)
    edge = torch.ones(1, *box.shape)
    for axis, (n, s) in enumerate(zip(box.shape, box.spacing, strict=True)):
        place = torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) * s
        ramp = (place / TAPER_MM).clamp(max=1.0)
        edge = edge * (0.5 - 0.5 * torch.cos(torch.pi * ramp)).reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    return volume, resample(edge, box, problem.fine, back)
