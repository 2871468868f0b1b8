"""Super-resolution of a volume from one or several scans: arrays in, arrays out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from brgm_med.corruptions import SliceProfile
from brgm_med.errors import InputRefusedError
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.pipelines.reconstruct.consistent import combine, exactly, generated, jointly
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan
from brgm_med.pipelines.reconstruct.memory import check_memory
from brgm_med.pipelines.reconstruct.own import Taught, teach
from brgm_med.pipelines.reconstruct.phases import Phases, silent
from brgm_med.pipelines.reconstruct.population import Population, Searched, most_probable, register_to, sampled
from brgm_med.pipelines.reconstruct.registration import error_covariance, output_grid
from brgm_med.pipelines.reconstruct.surroundings import put_back, taken_out
from brgm_med.pipelines.reconstruct.uncertainty import uncertainty_of
from brgm_med.priors.bundle import PriorBundle
from brgm_med.search import VOLUME, Search
from brgm_med.separable import SeparableSystem
from brgm_med.transforms.geometry import Grid

SMALLEST, LARGEST = 1e-15, 1e15
"""Least range and largest size of a scan's values."""

Message = Callable[[str], object]


def reconstruct_volume(
    scans: Scan | Sequence[Scan],
    prior: PriorBundle | None = None,
    *,
    own: bool = True,
    search: Search = VOLUME,
    spacing: float | None = None,
    features: PerceptualFeatures | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    max_memory: float | None = None,
    message: Message = lambda line: None,
    phases: Phases = silent,
    uncertainty: bool = False,
) -> Reconstruction:
    """The volume that most probably caused one or several scans of one object, and its measured fraction.

    scans: they lie in one world; the result has the first one's axes and units.
    prior: a population prior of a volume, see `load_prior`; None: none.
    own: a prior is learned from the scans' own planes. The population prior then enters where the scan registers to
        its template and it earns a weight; without `own` it reconstructs alone, and refuses what does not register.
    search: tuned numbers of both, see `brgm_med.search`.
    spacing: of the result, mm; None: the finest of the scans and of a population prior that has a weight.
    features: those that a perceptual term of that search compares, on `device`; None: no such term.
    device: of that search; all else is computed on the CPU.
    seed: of the learning.
    max_memory: bytes, above which it is refused by an estimate (see `memory`); None: most of what is free.
    message: called with a line when something is settled: registration, noise, weights.
    phases: progress.
    uncertainty: of the image too, which needs the scans' own prior.

    The scans' own prior and the population prior each correct the base, which is cubic interpolation made consistent:
    result = base + a (own - base) + b (population - base). All three keep what was measured, so the result does.
    Constant surroundings of the first scan (a stripped skull, padding) stay as they are; see `surroundings`.
    Deterministic. Raises InputRefusedError, which names the scan, where no prior can be used, and ValueError where
    none is asked for.
    """
    if prior is None and not own:
        raise ValueError("reconstruct_volume: neither the scan's own prior nor another is asked for")
    if uncertainty and not own:
        raise ValueError("reconstruct_volume: uncertainty is measured on the scan's own planes, with its own prior")
    scans = [scans] if isinstance(scans, Scan) else scans
    grids = [scan.grid for scan in scans]
    finest = output_grid(grids, math.inf if prior is None else prior.spacing, spacing)
    check_memory(scans, finest, prior is not None, max_memory)
    for scan in scans:
        check_range(scan)
    scans = [taken_out(scan, message) for scan in scans]
    population = None
    if own:
        check_coarser(scans, prior, spacing)
    if prior is not None:
        population = register_to(prior, scans, finest, search, beside=own)
        for line in population.lines():
            message(line)
    if not own:
        check_coarser(scans, prior, spacing)

    def searched(population: Population) -> Searched:
        return most_probable(population, search, device=device, features=features, phases=phases)

    used = None if population is None or not population.weight.weight else population
    if own:
        grid = output_grid(grids, math.inf if used is None else used.weight.finest, spacing)
        try:
            taught = teach(scans, grid, search, seed=seed, message=message, phases=phases)
        except InputRefusedError as error:
            if used is None:
                raise InputRefusedError(f"{error}" + (f"; {population.why()}" if population else "")) from error
            if uncertainty:
                raise InputRefusedError(f"{error}; intervals are measured on planes of thick slices") from error
            message(f"{error}; {used.weight.name} reconstructs alone")
        else:
            slices = None if used is None else searched(used)
            result = join(taught, grid, search, population, slices)
            if uncertainty:
                with phases("measuring errors on the scan's planes", 1) as advance:
                    unsure = uncertainty_of(scans, taught, result)
                    advance("")
                if used is not None and slices is not None and search.energy != "paper":
                    unsure = dataclasses.replace(unsure, population=partial(spread, used, slices, search, device))
                result = dataclasses.replace(result, uncertainty=unsure)
            return put_back(result, scans)
    assert used is not None
    alone = searched(used)
    result = put_back(combine(alone.registration, alone.stack, alone.box, alone.refined, search, phases), scans)
    return dataclasses.replace(result, population=dataclasses.replace(used.weight, weight=1.0))


def spread(
    population: Population,
    searched: Searched,
    search: Search,
    device: torch.device | str,
    random: torch.Generator,
) -> Tensor:
    """Difference [1, X, Y, Z] between the corrections by a sample of the population prior's posterior and by its most
    probable slices, with that prior's weight."""
    stack = sampled(population, searched, search, random, device).stack
    images = [generated(searched.registration, slices, searched.box) for slices in (stack, searched.stack)]
    (other, weight), (best, _) = images
    return population.weight.weight * weight * (other - best)


def check_range(scan: Scan) -> None:
    """Raise InputRefusedError for values whose squares are no normal numbers of 32 bits."""
    low, high = float(scan.values.min()), float(scan.values.max())
    if high - low < SMALLEST or max(abs(low), abs(high)) > LARGEST:
        raise InputRefusedError(
            f"{scan.name}: its values go from {low:.3g} to {high:.3g}, too far from 1 to compute with (a range of at "
            f"least {SMALLEST:g}, and at most {LARGEST:g}); give it in other units"
        )


def check_coarser(scans: Sequence[Scan], prior: PriorBundle | None, spacing: float | None) -> None:
    """Raise InputRefusedError for one scan that measured every voxel of the finest result as it is, unless a person
    states noise that is to be taken off it."""
    scan = scans[0]
    grid = output_grid([scan.grid], math.inf if prior is None else prior.spacing, spacing)
    matrices = scan.acquisition.corruption(grid, scan.grid).matrices
    if len(scans) > 1 or scan.noise or any(matrix is not None for matrix in matrices):
        return
    size = " x ".join(f"{s:.3g}" for s in grid.spacing)
    unused = "" if prior is None else f"; {prior.name}: not used, its voxels of {prior.spacing:g} mm are no finer"
    raise InputRefusedError(
        f"{scan.name}: is measured on voxels of {size} mm as it is: no thick slices, nothing to learn, and the result "
        f"would be the scan itself{unused}; state the --slice-thickness if it is thicker, or a finer --spacing"
    )


def join(
    taught: Taught,
    grid: Grid,
    search: Search,
    population: Population | None,
    searched: Searched | None,
) -> Reconstruction:
    """The corrections of both priors, each with its weight, made consistent with all scans.

    One scan keeps every value that it measured, its noise included; several: see `jointly`.
    """
    guess = taught.image
    if population is not None and searched is not None:
        image, weight = generated(searched.registration, searched.stack, searched.box)
        guess = guess + population.weight.weight * weight.to(guess) * (image.to(guess) - taught.base)
    first, covariance = taught.measurements[0], error_covariance(grid, search.correlation)
    assert isinstance(first.operator, SliceProfile)
    system = SeparableSystem.of(first.operator, covariance, grid.shape)
    if len(taught.measurements) == 1:
        (image, measured), error = exactly(guess, first, covariance, system), 0.0
    else:
        image, measured, error = jointly(guess, taught.measurements, covariance, system, search)
    result = Reconstruction(
        *(grid, image, guess, torch.ones_like(guess), measured, error, taught.measurements, taught.noise),
        own=taught.weight,
    )
    if population is not None:
        result = dataclasses.replace(result, population=population.weight, registration=population.registration)
    if searched is None:
        return result
    slices, fits = (0, len(searched.stack) - 1), searched.refined
    return dataclasses.replace(result, registration=searched.registration, slices=slices, refined=fits)
