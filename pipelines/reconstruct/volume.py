"""Super-resolution of a head from one or several scans: the search, and the image that keeps what was measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.chunks import Chunked
from brgm_med.consistency import project
from brgm_med.corruptions import Separable, StackAsVolume, Together
from brgm_med.energies import GaussMarkov, Likelihood, Perceptual, Pixel
from brgm_med.explained import explained_estimate
from brgm_med.noise_level import thinned
from brgm_med.perceptual import PerceptualFeatures, SlicesAsPictures
from brgm_med.pipelines.reconstruct.measurement import Problem, Scan, placed
from brgm_med.posterior import Posterior, Weights
from brgm_med.priors.bundle import PriorBundle
from brgm_med.separable import SeparableSystem
from brgm_med.solvers import fit_lbfgs
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.oblique import oblique_profile, stack_grid
from brgm_med.transforms.refine import Refined, refine
from brgm_med.transforms.register import scale_of
from brgm_med.transforms.template import Template

STEPS = 25
"""Steps of the search, chosen on the choosing heads."""

REFINED_AFTER = (4, 10)
"""After so many of them pose and shading are fitted to what was found, and the search goes on from there."""

AT_ONCE = 16
"""Slices whose activations are in memory together."""

LOCAL_MM = 10.0
"""Over about this distance the prior's error is taken to be equally large, where it is weighed against noise."""

RESIDUAL = (0.82, 1.0)
MOST_TRIALS = 8
"""The residual of one scan should be between so many standard deviations of its noise; so many attempts at that."""

INTERPOLATION = 0.1
"""How far several scans contradict each other only because grids at angles are interpolated, in units of the prior's
error: the least noise of a projection onto several (chosen on one choosing head, of 0, 0.1 and 0.3)."""

Callback = Callable[[int, dict[str, Tensor]], None]


@dataclass(frozen=True)
class Result:
    """Images [1, X, Y, Z] on the fine grid. `image`: as consistent with the scans as their noise asks; `unprojected`:
    before that; `weight` in [0, 1]: how far the prior is trusted (0: interpolation alone); `explained` in [0, 1]: the
    part of the prior's error that the scans explain, with its standard error (0: exact). `scans`: what `image` should
    give, see `Observed`."""

    image: Tensor
    unprojected: Tensor
    weight: Tensor
    explained: Tensor
    explained_error: float
    scans: tuple[Observed, ...]


@dataclass(frozen=True)
class Observed:
    """A scan and the linear map A of images on the fine grid to it: A image = values, up to noise of `deviation`. In
    the first scan's units. `inside` (bool): samples that lie wholly on the fine grid."""

    corruption: nn.Module
    values: Tensor
    inside: Tensor
    deviation: float


def deviation_of(scan: Scan, box: Grid, unexplained: float) -> float:
    """Standard deviation of what a prior on `box` leaves of a sample of the scan, normalised units.

    The scan's noise, and `unexplained` for each voxel of the box, as if independent: a sample of several averages it.
    """
    voxels = math.prod(scan.grid.spacing) / (math.prod(box.spacing) * scale_of(scan.pose) ** 3)
    return math.hypot(scan.noise.deviation / scan.normalisation.scale, unexplained / math.sqrt(voxels))


def stack_posterior(
    problem: Problem,
    bundle: PriorBundle,
    box: Grid,
    features: PerceptualFeatures | None,
    weights: Weights,
    device: torch.device,
) -> Posterior:
    """Of all slices of the prior's box together, given the scans where and as they were measured."""
    profiles = [oblique_profile(scan.acquisition, scan.grid, stack_grid(box), scan.pose) for scan in problem.scans]
    whole = Together(profiles, [1 / deviation_of(scan, box, weights.noise) for scan in problem.scans])
    used = [p.spread(torch.ones(1, len(p.index))) for p in profiles]
    measured = whole.join([scan.normalised() * u for scan, u in zip(problem.scans, used, strict=True)]).to(device)
    whitened = bundle.whitened(device)
    whitened = dataclasses.replace(whitened, generator=Chunked(whitened.generator, AT_ONCE))
    likelihood: tuple[Likelihood, ...] = (Pixel(0.5),)
    if features is not None and weights.perceptual:
        axes = [int(torch.tensor(scan.grid.spacing).argmax()) for scan in problem.scans]
        pictures = SlicesAsPictures(features, [p.shape for p in profiles], whole.weights, axes, whitened.image_shape)
        likelihood = (*likelihood, Perceptual(pictures, weights.perceptual * math.prod(whitened.image_shape)))
    corruption = nn.Sequential(StackAsVolume(), whole).to(device)
    prior = (GaussMarkov(whitened.correlation, weights.prior),)
    return Posterior(whitened, corruption, measured, likelihood, prior, noise="none", coupled=True)


def infer_stack(
    problem: Problem,
    bundle: PriorBundle,
    template: Template,
    *,
    steps: int = STEPS,
    features: PerceptualFeatures | None = None,
    weights: Weights,
    device: torch.device | None = None,
    callback: Callback | None = None,
) -> tuple[Tensor, Problem, tuple[Refined, ...]]:
    """MAP of all coronal slices of the prior's box at once, normalised [Y, 1, Z, X]; the problem with the poses and
    shadings that were fitted on the way; and what was fitted, for each scan."""
    device, box = device or torch.device("cpu"), template.box
    found = torch.zeros(box.shape[1], 1, bundle.whitened(device).w_dim, device=device)
    ends = [*(n for n in REFINED_AFTER if n < steps), steps]
    fits: tuple[Refined, ...] = ()
    for first, last in zip([0, *ends], ends, strict=False):
        posterior = stack_posterior(problem, bundle, box, features, weights, device)
        estimate = fit_lbfgs(
            posterior,
            found,
            steps=last - first,
            curvature=bundle.whitened(device).curvature,
            callback=None if callback is None else _counted_from(first, callback),
        )
        found = estimate.ws
        if last < steps:
            fits = tuple(fit(scan, estimate.image.cpu(), box, weights) for scan in problem.scans)
            problem = problem.refined([f.pose for f in fits], [f.bias_field for f in fits])
    return estimate.image.cpu(), problem, fits


def _counted_from(first: int, callback: Callback) -> Callback:
    return lambda step, terms: callback(first + step, terms)


def fit(scan: Scan, stack: Tensor, box: Grid, weights: Weights) -> Refined:
    """Pose and shading of one scan, see `refine`."""
    noise = deviation_of(scan, box, weights.noise)
    return refine(
        stack,
        box,
        scan.normalisation.forward(scan.image),
        scan.grid,
        scan.acquisition,
        scan.pose,
        scan.shading,
        noise,
    )


def observed(problem: Problem) -> tuple[Observed, ...]:
    """What an image on the fine grid must give: the first scan, and the others in its units and with its shading."""
    first = problem.first
    inside = problem.corruption.inside(first.grid.shape)
    found = [Observed(problem.corruption, first.image, inside, first.noise.deviation)]
    back = np.linalg.inv(first.pose)
    for scan in problem.scans[1:]:
        profile = oblique_profile(scan.acquisition, scan.grid, problem.fine, scan.pose @ back)
        used = profile.spread(torch.ones(1, len(profile.index)))
        values = first.shaded(scan.normalised(), scan.grid, scan.pose)
        scale = first.normalisation.scale / scan.normalisation.scale
        found.append(Observed(profile, values * used, used[0] > 0, scan.noise.deviation * scale))
    return tuple(found)


def combine(problem: Problem, stack: Tensor, box: Grid) -> Result:
    """The generator's slices, back on the first scan's axes, made consistent with all scans.

    One scan without noise: exactly. With noise: as far as the prior's error, which is told from the residual around
    each voxel, is larger than it (see `weighed`). Of several scans, `INTERPOLATION` of that error counts as noise.
    """
    volume, weight = placed(problem, stack, box)
    weight = weight.to(problem.interpolated.dtype)
    image = problem.interpolated.lerp(volume.to(problem.interpolated.dtype), weight)
    scans, covariance = observed(problem), problem.covariance
    deviation = scans[0].deviation
    system = SeparableSystem.of(problem.corruption, covariance, problem.fine.shape)
    if len(scans) == 1 and deviation == 0:
        made = project(image, problem.corruption, scans[0].values, covariance)
        return Result(made, image, weight, system.explained(0.0)[None].to(image.dtype), 0.0, scans)
    residual = scans[0].values.double() - problem.corruption(image.double())
    if len(scans) == 1:
        made, error = weighed(image, scans[0], residual, error_size(residual, system, problem), covariance)
        explained = explained_locally(system, deviation / error)
        return Result(made, image, weight, explained.to(image.dtype), 0.0, scans)
    together = Together([scan.corruption for scan in scans])
    values = together.join([scan.values for scan in scans])
    typical = math.sqrt(max(float(residual.square().mean()) - deviation**2, 0.0) / float(system.spectrum.mean()))
    noise = math.hypot(deviation / max(typical, 1e-3 * deviation) if deviation else 0.0, INTERPOLATION)
    made = project(image, together, values, covariance, noise, tol=5e-3)
    explained, spread = explained_estimate(together, covariance, noise, (1, *problem.fine.shape))
    return Result(made, image, weight, explained, spread, scans)


def weighed(
    image: Tensor, scan: Observed, residual: Tensor, error: Tensor, covariance: Separable
) -> tuple[Tensor, Tensor]:
    """The most probable image given a scan with noise, and the size of the prior's error that it rests on.

    `error` [1, X, Y, Z] is scaled down, if need be, until the residual keeps `RESIDUAL` of the noise (the discrepancy
    principle): a smaller one would mean that noise was taken for detail.
    """
    # So large an error leaves a residual well below the noise, and the system is no worse conditioned than it must be.
    largest = max(float(torch.quantile(thinned(error.flatten()), 0.95)), scan.deviation)
    scale = min(1.0, 3 * math.sqrt(scan.deviation / largest))
    spread = float((scan.values - scan.values.mean()).square().mean().sqrt())
    tolerance = min(5e-4, 0.05 * scan.deviation / spread)
    for _ in range(MOST_TRIALS):
        weighted = around(scale * error, covariance)
        made = project(image, scan.corruption, scan.values, weighted, scan.deviation, tol=tolerance)
        left = float((scan.values - scan.corruption(made)).square().mean().sqrt()) / scan.deviation
        used = scale
        if left < RESIDUAL[0]:
            scale *= 0.8
        elif left > RESIDUAL[1] and scale < 1:
            scale = min(1.0, 1.1 * scale)
        else:
            break
    return made, used * error


def around(error: Tensor, covariance: Separable) -> Callable[[Tensor], Tensor]:
    """The covariance of an error whose size, [1, X, Y, Z], differs from place to place: x -> D C D x."""

    def apply(x: Tensor) -> Tensor:
        return error.to(x) * covariance(error.to(x) * x)

    return apply


def error_size(residual: Tensor, system: SeparableSystem, problem: Problem) -> Tensor:
    """Standard deviation of the prior's own error around each voxel, [1, X, Y, Z], in the first scan's units: what its
    noise does not explain of the residual's square, averaged over `LOCAL_MM`, over the mean eigenvalue of A C A'."""
    scan = problem.first
    width = [2 * max(0, round(LOCAL_MM / s / 2)) + 1 for s in scan.grid.spacing]
    pad = [w // 2 for w in width]
    local = torch.nn.functional.avg_pool3d(residual.square()[None], width, 1, pad, count_include_pad=False)[0]
    unexplained = (local - scan.noise.deviation**2).clamp(min=0) / system.spectrum.mean()
    return resample(unexplained, scan.grid, problem.fine, padding="border").sqrt()


def explained_locally(system: SeparableSystem, noise: Tensor) -> Tensor:
    """`SeparableSystem.explained` for a noise (in units of the error) that differs between voxels, [1, X, Y, Z]: as if
    it were everywhere what it is at the voxel. Infinite noise explains nothing."""
    place = ((noise[0].log10() + 2) * 2).clamp(0, 8)
    found = torch.zeros_like(place)
    for number, level in enumerate(torch.logspace(-2, 2, 9, dtype=torch.float64).tolist()):
        found += (1 - (place - number).abs()).clamp(min=0) * system.explained(level)
    return torch.where(noise[0] < 100, found, 0.0)[None]
