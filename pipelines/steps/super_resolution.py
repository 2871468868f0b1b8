"""The step `super_resolve`: scans of a head in, one finer volume out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, UsageError
from brgm_med.files import write_json
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import Profile, called, doubtful, read_scan
from brgm_med.pipelines.reconstruct.compute import (
    Network,
    choose_device,
    computed_by,
    perceptual_features,
    set_up_torch,
)
from brgm_med.pipelines.results.certificate import (
    STATEMENT,
    account,
    check_certificate,
    default_certificate,
    description,
    result_record,
    source_record,
    super_resolved,
)
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.deidentification import withhold
from brgm_med.pipelines.results.target import taken_back
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.measurement import Registration


def super_resolve(
    scan: Path | Sequence[Path],
    out: Path | None = None,
    *,
    force: bool = False,
    prior: str = "brain-t1-coronal",
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
    flags = (thickness, gap, profile)
    first, *others = (
        read_scan(path, name if like is None else None, affine, flags, choices, noise)
        for path, name in zip(paths, named, strict=True)
    )
    target = target_of(
        paths[0], out, first.header, like=like, series=named[0], dtype=dtype, choices=choices, force=force
    )
    out = target.path
    certificate = certificate or default_certificate(out)
    files = (*paths, out, target.map_path, certificate)
    if len({p.resolve() for p in files}) < len(files):
        raise UsageError(f"{out}: inputs, output, its map and the certificate must all be different files")
    target.check()
    check_certificate(certificate, out, force)
    if spacing is not None and spacing > min(first.scan.grid.spacing) * 1.001:
        finest = min(first.scan.grid.spacing)
        raise UsageError(f"--spacing {spacing:g}: the scan's own is {finest:g} mm, which a coarser grid cannot keep")

    import torch

    from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
    from brgm_med.pipelines.results.consistency import consistency, finding, scan_record
    from brgm_med.priors.bundle import load
    from brgm_med.search import VOLUME

    set_up_torch(threads)
    torch.manual_seed(seed)
    where = choose_device(device)
    bundle = load(prior)
    if not others and (doubt := doubtful(first.scan, bundle.spacing)):
        say(f"warning: {called(paths[0], choices)}: {doubt}")
    search = VOLUME.limited_to(steps)
    with search_progress(search.iterations) as progress:
        result = reconstruct_volume(
            [file.scan for file in (first, *others)],
            bundle,
            search=search,
            spacing=spacing,
            features=perceptual_features(perceptual, bundle, lpips_weights, where),
            device=where,
            registered=lambda registration: say_registered(bundle.name, registration),
            progress=progress,
        )

    told = {
        "software": f"brgm-med {__version__}",
        "prior": {"name": bundle.name, "sha256": bundle.sha256, "finest_detail_mm": bundle.spacing},
        "acquisition": first.acquisition,
        "parameters": {
            "steps": search.iterations,
            "seed": seed,
            "perceptual": perceptual,
            "weights": {
                "noise": search.misfit,
                "perceptual": search.perceptual_weight,
                "prior": search.prior_weight,
            },
            "covariance_mm": search.correlation,
            "spacing_mm": result.grid.spacing[0],
            "noise": noise,
            **computed_by(where, result.image),
        },
        **finding(result),
    }
    how = super_resolved(bundle.name, bundle.sha256, account(told))
    held, step = target.write(result.image[0].numpy(), result.grid.affine, how, description(bundle.name))
    with taken_back(target):
        measured = target.write_map(result.measured[0].numpy(), result.grid.affine, how)
        kept = consistency(torch.from_numpy(held)[None], result.measurements, step)
        if not math.isfinite(kept["relative_residual"]):
            raise BrgmError(f"{out}: the result is not consistent with the scan; this is a defect, please report it")
        content = {
            "statement": STATEMENT,
            **told,
            "source": source_record(paths[0], first.header),
            "further_scans": [scan_record(s) for s in others],
            "result": result_record(out),
            "measured_map": result_record(measured),
            "consistency": kept,
        }
        write_json(certificate, withhold(content, choices), force)
    residual = f"relative residual {kept['relative_residual']:.1e}"
    say(f"wrote {out}, {measured.name} and {certificate.name} ({residual})")
    return out


def say_registered(prior: str, registration: Registration) -> None:
    """Say how the scans were registered, and how noisy they are."""
    from brgm_med.transforms.register import scale_of

    scale = scale_of(registration.pose)
    larger = f", the head taken as {scale:.2f} times the template's size" if scale > 1.01 else ""
    say(f"registered to {prior}: correlation {registration.correlation:.2f}{larger}")
    for posed in registration.scans:
        say(f"noise: {posed.noise.deviation:.3g} ({posed.noise.kind})")
