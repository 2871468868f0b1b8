"""The step `super_resolve`: scans of a head in, one finer volume out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import Measured, Profile, called, doubtful, read_measured
from brgm_med.pipelines.reconstruct.compute import (
    Network,
    choose_device,
    computed_by,
    perceptual_features,
    set_up_torch,
)
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.publish import announce, check, publish
from brgm_med.priors.bundle import DEFAULT_PRIOR
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices


def super_resolve(
    scan: Path | Sequence[Path],
    out: Path | None = None,
    *,
    force: bool = False,
    prior: str = DEFAULT_PRIOR,
    steps: int | None = None,
    seed: int = 0,
    perceptual: Network = "none",
    lpips_weights: Path | None = None,
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | Sequence[str | None] | None = None,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    thickness: float | None = None,
    profile: Profile | None = None,
    gap: float | None = None,
    spacing: float | None = None,
    noise: float | None = None,
    dtype: Literal["float32", "source"] = "float32",
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Super-resolve the head scan at `scan` into `out` (default: its name + `_brgm` beside it); returns `out`.

    `scan` is NIfTI, or DICOM, of which `series` chooses one of several volumes (see `dicom.series.the_series`). Several
    scans of one head, in one world, give one result, which has the axes, the units and the format of the first;
    `series` then is one for each. `thickness`, `profile` and `gap` describe them all. `spacing`: of the result, mm, by
    default the finest of the scans and the prior. `noise`: its standard deviation in the scans' units; None: estimated
    in the air around the head. For `out`, `like` and `choices` see `results.choose.target_of`.

    The certificate (JSON) goes to `certificate`, by default beside the output, and so does the map of what was
    measured. Raises as the exit codes of `brgm_med.errors` say; nothing is left behind when it does.
    """
    paths = [scan] if isinstance(scan, Path) else list(scan)
    named = [series] * len(paths) if series is None or isinstance(series, str) else list(series)
    if len(named) != len(paths):
        raise UsageError(f"{len(paths)} scans, but {len(named)} series; name one for each scan, in their order")
    flags, series_of_scans = (thickness, gap, profile), named if like is None else [None] * len(paths)
    first, *others = (read_measured(p, s, affine, flags, choices) for p, s in zip(paths, series_of_scans, strict=True))
    target = target_of(
        paths[0], out, first.header, like=like, series=named[0], dtype=dtype, choices=choices, force=force
    )
    certificate = check(target, paths, certificate)
    if spacing is not None and spacing > min(first.grid.spacing) * 1.001:
        finest = min(first.grid.spacing)
        raise UsageError(f"--spacing {spacing:g}: the scan's own is {finest:g} mm, which a coarser grid cannot keep")

    import torch

    from brgm_med.pipelines.reconstruct import volume as sr
    from brgm_med.pipelines.reconstruct.measurement import CORRELATION_MM, output_grid, pose_problem, with_scan
    from brgm_med.pipelines.results.consistency import residuals, super_resolved
    from brgm_med.posterior import Weights
    from brgm_med.priors.bundle import load
    from brgm_med.transforms.register import scale_of
    from brgm_med.transforms.template import load_template

    set_up_torch(threads)
    torch.manual_seed(seed)
    where = choose_device(device)
    bundle = load(prior)
    template = load_template(bundle)
    features = perceptual_features(perceptual, bundle, lpips_weights, where)
    scans: list[Measured] = [first, *others]
    fine = output_grid([s.grid for s in scans], bundle.spacing, spacing)
    if not others and (doubt := doubtful(first, bundle.spacing)):
        say(f"warning: {called(paths[0], choices)}: {doubt}")
    at = first
    try:
        problem = pose_problem(first.values, first.grid, first.model, bundle.spacing, template, noise, fine)
        for at in others:
            problem = with_scan(problem, at.values, at.grid, at.model, template, noise)
    except InputRefusedError as error:
        raise InputRefusedError(f"{at.path}: {error}") from error
    scale = scale_of(problem.pose)
    larger = f", the head taken as {scale:.2f} times the template's size" if scale > 1.01 else ""
    say(f"registered to {bundle.name}: correlation {problem.correlation:.2f}{larger}")
    for s in problem.scans:
        say(f"noise: {s.noise.deviation:.3g} ({s.noise.kind})")
    steps = sr.STEPS if steps is None else steps
    with search_progress(steps) as callback:
        stack, problem, fits = sr.infer_stack(
            problem,
            bundle,
            template,
            steps=steps,
            features=features,
            weights=Weights(),
            device=where,
            callback=callback,
        )
    result = sr.combine(problem, stack, template.box)

    options = {"steps": steps, "seed": seed, "perceptual": perceptual, "weights": vars(Weights())}
    model = {"covariance_mm": CORRELATION_MM, "spacing_mm": fine.spacing[0], "noise": noise}
    parameters = {**options, **model, **computed_by(where, stack)}
    written = publish(
        target,
        certificate,
        super_resolved(scans, bundle, parameters, problem, result, fits),
        "sr",
        partial(target.write, result.image[0].numpy(), problem.fine.affine),
        partial(residuals, result.scans),
        partial(target.write_map, result.explained[0].numpy(), problem.fine.affine),
    )
    assert written.consistency is not None
    announce(target, certificate, f"relative residual {written.consistency['relative_residual']:.1e}")
    return target.path
