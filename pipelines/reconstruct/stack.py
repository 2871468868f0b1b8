"""The posteriors of all slices of a prior's box together, given registered scans."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.chunks import Chunked
from brgm_med.corruptions import StackAsVolume, Together
from brgm_med.energies import GaussMarkov, Likelihood, Perceptual, Pixel
from brgm_med.perceptual import PerceptualFeatures, SlicesAsPictures
from brgm_med.pipelines.reconstruct.measurement import PosedScan, Registration
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import paper_posterior
from brgm_med.search import Search
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile, stack_grid
from brgm_med.transforms.register import scale_of

PAPER_SIZE = (256, 256)
"""Rows and columns at which the paper's perceptual term compares."""

AT_ONCE = 16
"""Slices whose activations are in memory together."""


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
    deviations = [deviation_of(posed, box, search.misfit) for posed in registration.scans]
    whole, measured = profiles_of(registration, box, [1 / deviation for deviation in deviations])
    whitened = prior.whitened(device)
    whitened = dataclasses.replace(whitened, generator=Chunked(whitened.generator, AT_ONCE))
    likelihood: tuple[Likelihood, ...] = (Pixel(0.5),)
    if features is not None and search.perceptual_weight:
        pictures = slices_as_pictures(features, registration, whole, whitened.image_shape)
        weight = search.perceptual_weight * math.prod(whitened.image_shape)
        likelihood = (*likelihood, Perceptual(pictures, weight))
    corruption = nn.Sequential(StackAsVolume(), whole).to(device)
    innovations = GaussMarkov(whitened.correlation, search.prior_weight)
    return Posterior(whitened, corruption, measured.to(device), likelihood, (innovations,), noise="none", coupled=True)


def stack_paper(
    registration: Registration, prior: PriorBundle, box: Grid, device: torch.device, features: PerceptualFeatures | None
) -> tuple[Posterior, Tensor]:
    """The paper's posterior (`brgm_posterior`) of all slices of the prior's box together, and where its search starts.

    Every slice of the box has the paper's priors of w, and every sample of the scans its pixelwise term, on grey
    values; the perceptual term is the sum over the scans' slices, compared at `PAPER_SIZE`.
    """
    profiles, measured = profiles_of(registration, box, [1.0] * len(registration.scans))
    pictures = None
    if features is not None:
        pictures = slices_as_pictures(features, registration, profiles, PAPER_SIZE)
    corruption = nn.Sequential(StackAsVolume(), profiles).to(device)
    positions = range(box.shape[1])
    posterior, start = paper_posterior(prior, positions, corruption, measured.to(device), pictures)
    generator = Chunked(posterior.generator, AT_ONCE)
    return dataclasses.replace(posterior, generator=generator, coupled=True), start


def profiles_of(registration: Registration, box: Grid, weights: Sequence[float]) -> tuple[Together, Tensor]:
    """The scans' acquisitions of a volume on `box`, joined with `weights`, and what they measured there."""
    source = stack_grid(box)
    scans = registration.scans
    profiles = [oblique_profile(s.scan.acquisition, s.scan.grid, source, s.pose, measured=s.used) for s in scans]
    whole = Together(profiles, weights)
    used = [p.spread(torch.ones(1, len(p.index))) for p in profiles]
    return whole, whole.join([s.normalised() * u for s, u in zip(scans, used, strict=True)])


def slices_as_pictures(
    features: PerceptualFeatures, registration: Registration, whole: Together, size: tuple[int, int]
) -> SlicesAsPictures:
    """The scans' slices as the pictures that `features` compare, along each scan's coarsest axis."""
    scans = registration.scans
    axes = [int(torch.tensor(s.scan.grid.spacing).argmax()) for s in scans]
    return SlicesAsPictures(features, [s.scan.grid.shape for s in scans], whole.weights, axes, size)
