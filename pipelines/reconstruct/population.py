"""The population prior's part of a reconstruction: what its generator says of registered scans, and its weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from brgm_med.energies import GaussMarkov, summary
from brgm_med.errors import InputRefusedError
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.pipelines.reconstruct.measurement import PosedScan, PriorWeight, Registration, Scan
from brgm_med.pipelines.reconstruct.phases import Phases, silent
from brgm_med.pipelines.reconstruct.registration import check_known, register
from brgm_med.pipelines.reconstruct.stack import deviation_of, stack_paper, stack_posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import solve
from brgm_med.sampling import chain, perturbed
from brgm_med.search import KNOWN, POPULATION_WEIGHT, SAMPLING, Search
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.refine import Refined, refine
from brgm_med.transforms.register import scale_of
from brgm_med.transforms.template import load_template


@dataclass(frozen=True, eq=False)
class Population:
    """A population prior, its weight, and the scans as registered to its template; None where they do not register."""

    bundle: PriorBundle
    weight: PriorWeight
    registration: Registration | None

    def why(self) -> str:
        """The weight and its reason, in words."""
        use = f"weight {self.weight.weight:g}" if self.weight.weight else "not used"
        return f"{self.weight.name}: {use}, {self.weight.reason}"

    def lines(self) -> list[str]:
        """For the log: registration, weight, noise."""
        if self.registration is None:
            return [self.why()]
        scale = scale_of(self.registration.pose)
        larger = f", the head taken as {scale:.2f} times the template's size" if abs(scale - 1) > 0.01 else ""
        fit = f"registered to {self.weight.name}: correlation {self.registration.correlation:.2f}{larger}"
        noise = [f"noise: {s.noise.deviation:.3g} ({s.noise.kind})" for s in self.registration.scans]
        return [fit, self.why(), *(noise if self.weight.weight else [])]


def register_to(prior: PriorBundle, scans: Sequence[Scan], grid: Grid, search: Search, *, beside: bool) -> Population:
    """Registration of scans to a prior's template, for a result on `grid`, and the prior's weight.

    `beside` the scans' own prior, its weight is 0 where they do not register; alone, InputRefusedError is raised then.
    """
    registration = None
    try:
        registration = register(scans, grid, load_template(prior), search.correlation)
    except InputRefusedError as error:
        if not beside:
            raise
        weight, reason = 0.0, f"the scan does not register to its template ({error.__cause__})"
    else:
        weight, reason = weight_of(registration)
        if not beside:
            check_known(registration, prior.name)
            weight, reason = 1.0, "no other prior was asked for"
    return Population(prior, PriorWeight(prior.name, prior.sha256, prior.spacing, weight, reason), registration)


def weight_of(registration: Registration) -> tuple[float, str]:
    """Weight of the population prior beside the scan's own, and the reason: does it know such scans?"""
    correlation = registration.correlation
    if correlation < KNOWN:
        return 0.0, f"it does not know such scans (correlation with its template {correlation:.2f}, {KNOWN} needed)"
    return POPULATION_WEIGHT, f"it knows such scans (correlation with its template {correlation:.2f})"


@dataclass(frozen=True, eq=False)
class Searched:
    """Slices `stack` [Y, 1, Z, X] of the prior's `box`, as they are most probable given the scans of `registration`;
    `refined`: poses and bias fields as fitted, for each scan; `coordinates`: of the stack, as
    they were searched."""

    registration: Registration
    stack: Tensor
    box: Grid
    refined: tuple[Refined, ...]
    coordinates: Tensor


def most_probable(
    population: Population,
    search: Search,
    *,
    device: torch.device | str = "cpu",
    features: PerceptualFeatures | None = None,
    phases: Phases = silent,
) -> Searched:
    """The MAP over W+ of all slices of the prior's box together; poses and bias fields are fitted on the way, except
    by the paper's search, which knows none."""
    prior, registration = population.bundle, population.registration
    assert registration is not None
    box = load_template(prior).box
    if search.energy == "paper":
        posterior, start = stack_paper(registration, prior, box, torch.device(device), features)
        with phases(f"searching the most probable head of {prior.name}, as published", search.iterations) as advance:
            estimate = solve(posterior, start, search, None, partial(said, advance))
        return Searched(registration, estimate.image.cpu(), box, (), estimate.ws)
    whitened = prior.whitened(device)
    coordinates = torch.zeros(box.shape[1], 1, whitened.w_dim, device=device)
    ends = [*(n for n in search.refined_after if n < search.iterations), search.iterations]
    fits: tuple[Refined, ...] = ()
    with phases(f"searching the most probable head of {prior.name}", search.iterations) as advance:
        progress = partial(said, advance)
        for first, last in zip([0, *ends], ends, strict=False):
            posterior = stack_posterior(registration, prior, box, search, torch.device(device), features)
            estimate = solve(posterior, coordinates, search.limited_to(last - first), whitened.curvature, progress)
            coordinates, stack = estimate.ws, estimate.image.cpu()
            if last < search.iterations:
                fits = tuple(fit(posed, stack, box, search.misfit) for posed in registration.scans)
                registration = registration.refined(fits)
    return Searched(registration, stack, box, fits, coordinates)


def said(advance: Callable[[str], object], _iteration: int, terms: dict[str, Tensor]) -> None:
    """Progress of a search, as a solver calls it."""
    advance(summary(terms))


def sampled(
    population: Population, searched: Searched, search: Search, random: torch.Generator, device: torch.device | str
) -> Searched:
    """As most probable given perturbed data and a perturbed prior, from the most probable stack on: a sample of the
    posterior, see `sampling`. Poses and bias fields stay as they were fitted. Not for the paper's search, of which the
    prior is not Gaussian."""
    prior, box = population.bundle, searched.box
    posterior = stack_posterior(searched.registration, prior, box, search, torch.device(device))
    noise = torch.randn(posterior.measured.shape, generator=random)
    whitened = prior.whitened(device)
    offset = chain(GaussMarkov(whitened.correlation, search.prior_weight), len(searched.stack), random)
    moved = perturbed(posterior, noise.to(device), offset)
    estimate = solve(moved, searched.coordinates, search.limited_to(SAMPLING), whitened.curvature)
    return dataclasses.replace(searched, stack=estimate.image.cpu(), coordinates=estimate.ws)


def fit(posed: PosedScan, stack: Tensor, box: Grid, misfit: float) -> Refined:
    """Pose and bias field of one scan, see `refine`."""
    scan, deviation = posed.scan, deviation_of(posed, box, misfit)
    measured = posed.normalisation.forward(scan.values)
    return refine(
        stack, box, measured, scan.grid, scan.acquisition, posed.pose, posed.bias_field, deviation, posed.used
    )
