"""Super-resolution of a head from one or several scans: arrays in, arrays out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from brgm_med.chunks import Chunked
from brgm_med.corruptions import StackAsVolume, Together
from brgm_med.energies import GaussMarkov, Likelihood, Perceptual, Pixel
from brgm_med.perceptual import PerceptualFeatures, SlicesAsPictures
from brgm_med.pipelines.reconstruct.consistent import combine
from brgm_med.pipelines.reconstruct.measurement import PosedScan, Reconstruction, Registration, Scan
from brgm_med.pipelines.reconstruct.registration import output_grid, register
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import Progress, solve
from brgm_med.search import VOLUME, Search
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile, stack_grid
from brgm_med.transforms.refine import Refined, refine
from brgm_med.transforms.register import scale_of
from brgm_med.transforms.template import load_template

AT_ONCE = 16
"""Slices whose activations are in memory together."""


def reconstruct_volume(
    scans: Scan | Sequence[Scan],
    prior: PriorBundle,
    *,
    search: Search = VOLUME,
    spacing: float | None = None,
    features: PerceptualFeatures | None = None,
    device: torch.device | str = "cpu",
    registered: Callable[[Registration], object] | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """The volume that most probably caused one or several scans of one head, and its measured fraction.

    scans: they lie in one world; the result has the first one's axes and units.
    prior: of a volume, see `load_prior`.
    search: tuned numbers, see `brgm_med.search`.
    spacing: of the result, mm; None: the finest of the scans and the prior.
    features: those that a perceptual term compares, on `device`; None: no such term.
    device: of the search; all else is computed on the CPU.
    registered: called once, when the scans are registered.
    progress: called after each iteration with its number and the energies.

    Deterministic. Raises InputRefusedError, which names the scan, where one cannot be registered.
    """
    scans = [scans] if isinstance(scans, Scan) else scans
    template = load_template(prior)
    grid = output_grid([scan.grid for scan in scans], prior.spacing, spacing)
    registration = register(scans, grid, template, search.correlation)
    if registered is not None:
        registered(registration)
    box, whitened = template.box, prior.whitened(device)
    coordinates = torch.zeros(box.shape[1], 1, whitened.w_dim, device=device)
    ends = [*(n for n in search.refined_after if n < search.iterations), search.iterations]
    fits: tuple[Refined, ...] = ()
    for first, last in zip([0, *ends], ends, strict=False):
        posterior = stack_posterior(registration, prior, box, search, torch.device(device), features)
        counted = None if progress is None else _counted_from(first, progress)
        estimate = solve(posterior, coordinates, search.limited_to(last - first), whitened.curvature, counted)
        coordinates, stack = estimate.ws, estimate.image.cpu()
        if last < search.iterations:
            fits = tuple(fit(posed, stack, box, search.misfit) for posed in registration.scans)
            registration = registration.refined(fits)
    return combine(registration, stack, box, fits, search)


def deviation_of(posed: PosedScan, box: Grid, misfit: float) -> float:
    """Standard deviation of a sample of the scan around what a prior on `box` says, normalised units.

    The scan's noise, and `misfit` for each voxel of the box, as if independent: a sample of several averages it.
    """
    voxels = math.prod(posed.scan.grid.spacing) / (math.prod(box.spacing) * scale_of(posed.pose) ** 3)
    return math.hypot(posed.noise.deviation / posed.normalisation.scale, misfit / math.sqrt(voxels))


def stack_posterior(
    registration: Registration,
    prior: PriorBundle,
    box: Grid,
    search: Search,
    device: torch.device,
    features: PerceptualFeatures | None = None,
) -> Posterior:
    """Posterior of all slices of the prior's box together, given the scans where and as they were measured."""
    scans = registration.scans
    profiles = [oblique_profile(s.scan.acquisition, s.scan.grid, stack_grid(box), s.pose) for s in scans]
    whole = Together(profiles, [1 / deviation_of(s, box, search.misfit) for s in scans])
    used = [p.spread(torch.ones(1, len(p.index))) for p in profiles]
    measured = whole.join([s.normalised() * u for s, u in zip(scans, used, strict=True)]).to(device)
    whitened = prior.whitened(device)
    whitened = dataclasses.replace(whitened, generator=Chunked(whitened.generator, AT_ONCE))
    likelihood: tuple[Likelihood, ...] = (Pixel(0.5),)
    if features is not None and search.perceptual_weight:
        axes = [int(torch.tensor(s.scan.grid.spacing).argmax()) for s in scans]
        pictures = SlicesAsPictures(features, [p.shape for p in profiles], whole.weights, axes, whitened.image_shape)
        weight = search.perceptual_weight * math.prod(whitened.image_shape)
        likelihood = (*likelihood, Perceptual(pictures, weight))
    corruption = nn.Sequential(StackAsVolume(), whole).to(device)
    innovations = GaussMarkov(whitened.correlation, search.prior_weight)
    return Posterior(whitened, corruption, measured, likelihood, (innovations,), noise="none", coupled=True)


def _counted_from(first: int, progress: Progress) -> Progress:
    return lambda step, terms: progress(first + step, terms)


def fit(posed: PosedScan, stack: Tensor, box: Grid, misfit: float) -> Refined:
    """Pose and bias field of one scan, see `refine`."""
    scan, deviation = posed.scan, deviation_of(posed, box, misfit)
    measured = posed.normalisation.forward(scan.values)
    return refine(stack, box, measured, scan.grid, scan.acquisition, posed.pose, posed.bias_field, deviation)
