"""The step `super_resolve`: scans of a head in, one finer volume out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from brgm_med.errors import UsageError
from brgm_med.pipelines.console import progress, say
from brgm_med.pipelines.reading import Flags, Profile, Thickness, called, check_together, doubtful, read_scan
from brgm_med.pipelines.reconstruct.compute import Network, computed_by, perceptual_features, set_up
from brgm_med.pipelines.results.certificate import Entry
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.dicom import SeriesTarget
from brgm_med.pipelines.results.intervals import (
    LEVEL,
    interval_maps,
    map_names,
    read_region,
    region_entry,
    uncertainty_entry,
)
from brgm_med.pipelines.results.publish import announce, check, check_space, publish
from brgm_med.pipelines.results.target import Target
from brgm_med.pipelines.steps.presets import Preset, check_preset, chosen_search
from brgm_med.priors import AUTO, SELF, population
from brgm_med.staging import scratch_beside
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices, Derivation


def super_resolve(
    scan: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    force: bool = False,
    prior: str = AUTO,
    steps: int | None = None,
    seed: int = 0,
    preset: Preset = "default",
    project: bool = True,
    perceptual: Network | None = None,
    lpips_weights: Path | None = None,
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | Sequence[str | None] | None = None,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    thickness: Thickness | None = None,
    profile: Profile | None = None,
    gap: float | None = None,
    slice_axis: str | None = None,
    spacing: float | None = None,
    noise: float | None = None,
    dtype: Literal["float32", "source"] = "float32",
    like: Path | None = None,
    same_world: bool = False,
    max_memory: float | None = None,
    level: float | None = None,
    samples: int = 0,
    roi: Path | None = None,
    choices: Choices = NO_CHOICES,
    allow_missing_files: bool = False,
    even_odd: Literal["correct"] | None = None,
    report: Callable[..., object] | None = None,
) -> Path:
    """Super-resolve the scan at `scan` into `out` (default: its name + `_brgm` beside it); returns `out`.

    `prior`: "self", the one that the scan's own planes teach; the name or folder of a population prior, which then
    reconstructs alone; "auto", the scan's own, and beside it the shipped population prior where it knows such scans.
    `scan` is NIfTI, or DICOM, of which `series` chooses one of several volumes (see `dicom.series.the_series`). Several
    scans of one head, in one world, give one result, which has the axes, the units and the format of the first;
    `series` then is one for each. `thickness`, `profile`, `gap` and `slice_axis` (R, A, S) describe them all; with
    "estimate" each scan's slices are as thick as they look. `even_odd` "correct" brings every second slice to the level
    of the others: the result then keeps the corrected values. DICOM of
    several patients is refused, and of several frames of reference unless `same_world`. `spacing`: of the result, mm,
    by default the finest of the scans and the prior. `noise`: its standard deviation in the scans' units; None:
    estimated from the scan itself. `preset`: "paper" searches a population prior's generator as the paper does (Eq. 5,
    `search.PAPER`); without `project` its answer is the result, which then keeps no measured value. `max_memory`: GB,
    above which it is refused; None: most of what is free. `level` (per cent): of intervals, whose bounds and standard
    deviation become maps beside the result, `samples`: so many samples of the truth as it may be, `roi`: a mask, in
    which volume and mean intensity are stated with an interval; each of the three brings the intervals, of 90 % where
    no level is named. For `out`, `like` and `choices` see `results.choose.target_of`, for `allow_missing_files` (of
    DICOM) `the_series`.

    The certificate (JSON) goes to `certificate`, by default beside the output, and so does the map of what was
    measured, and what `report` (such as `report.subject_report`) writes. Raises as the exit codes of `brgm_med.errors`
    say; nothing is left behind when it does.
    """
    paths = [Path(one) for one in ([scan] if isinstance(scan, str | Path) else scan)]
    out = None if out is None else Path(out)
    scratch_beside(out or paths[0])
    named = [series] * len(paths) if series is None or isinstance(series, str) else list(series)
    if len(named) != len(paths):
        raise UsageError(f"{len(paths)} scans, but {len(named)} series; name one for each scan, in their order")
    sources = zip(paths, named if like is None else [None] * len(paths), strict=True)
    flags = Flags(thickness, gap, profile, slice_axis)
    files = [read_scan(p, s, affine, flags, choices, noise, allow_missing_files, even_odd) for p, s in sources]
    uncertain = level is not None or bool(samples) or roi is not None
    if uncertain and prior not in (AUTO, SELF):
        raise UsageError(f"--level, --samples, --roi: are measured on the scan's own planes; --prior {prior} has none")
    level = LEVEL if level is None else level
    header, grid = files[0].header, files[0].scan.grid
    further = [file.header for file in files[1:]]
    target = target_of(
        paths[0],
        out,
        header,
        like=like,
        series=named[0],
        further=further,
        dtype=dtype,
        choices=choices,
        force=force,
        maps=("measured", *(map_names(samples) if uncertain else ())),
    )
    check_together(files, None if like is None or not isinstance(target, SeriesTarget) else target.like, same_world)
    certificate = check(target, paths, certificate, (like, lpips_weights, prior, roi), report is not None)
    finest = min(grid.spacing)
    if spacing is not None and spacing > finest * 1.001:
        raise UsageError(f"--spacing {spacing:g}: the scan's own is {finest:g} mm, which a coarser grid cannot keep")
    check_space(target, math.prod(n * s / (spacing or finest) for n, s in zip(grid.shape, grid.spacing, strict=True)))

    region = None if roi is None else read_region(roi)

    from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
    from brgm_med.pipelines.results.consistency import contradictions, residuals, super_resolved
    from brgm_med.priors.bundle import load
    from brgm_med.search import VOLUME

    own = prior in (AUTO, SELF)
    check_preset(preset, project, own)
    if prior == SELF and perceptual not in (None, "none"):
        raise UsageError(f"--perceptual {perceptual}: is a term of a population prior's search; leave it out")
    where = set_up(device, seed, threads)
    named_prior = population(prior)
    bundle = None if named_prior is None else load(named_prior)
    search, network, parameters = chosen_search(VOLUME, preset, steps, project, perceptual)
    features = None if bundle is None else perceptual_features(network, bundle, lpips_weights, where)
    if bundle is not None and not own and len(files) == 1 and (doubt := doubtful(files[0].scan, bundle.spacing)):
        say(f"warning: {called(paths[0], choices)}: {doubt}")
    result = reconstruct_volume(
        [file.scan for file in files],
        bundle,
        own=own,
        search=search,
        spacing=spacing,
        features=features,
        device=where,
        seed=seed,
        max_memory=None if max_memory is None else 1e9 * max_memory,
        message=say,
        phases=progress,
        uncertainty=uncertain,
    )

    model: Entry = {
        "seed": seed,
        "covariance_mm": search.correlation,
        "spacing_mm": result.grid.spacing[0],
        "noise": noise,
    }
    entries = super_resolved(files, {**parameters, **model, **computed_by(where, result.image)}, result)
    if uncertain:
        if len(files) > 1:
            say(
                "warning: intervals are calibrated for one scan; of several, they are an estimate (docs/uncertainty.md)"
            )
        there = None if region is None else region_entry(region, result, level, choices)
        entries = replace(entries, uncertainty=uncertainty_entry(result, level, samples), region=there)
    image, measured, grid = result.image[0].numpy(), result.measured[0].numpy(), result.grid

    def write_maps(to: Target, text: Derivation) -> None:
        to.write_map(measured, grid.affine, text)
        for quantity, array in interval_maps(result, level, samples, seed) if uncertain else ():
            to.write_map(array, grid.affine, text, quantity)

    written = publish(
        target,
        certificate,
        entries,
        "sr",
        lambda to, *text: to.write(image, grid.affine, *text),
        partial(residuals, result.measurements),
        write_maps,
        like=paths if roi is None else [*paths, roi],
        report=None
        if report is None
        else partial(report, scan=paths[0], prior=named_prior, series=named[0] if like is None else None),
    )
    assert written.consistency is not None
    if not project:
        residual = f"{written.consistency['relative_residual']:.1%}"
        say(f"warning: {target.path.name}: not projected, so it does not keep what was measured (off by {residual})")
    for clause in contradictions(written.consistency, [called(path, choices) for path in paths]):
        say(f"warning: {clause}")
    announce(
        target, certificate, f"relative residual {written.consistency['relative_residual']:.1e}", report is not None
    )
    return target.path
