"""Every step of the package as a plain function on paths. Heavy imports happen after the cheap refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, InputRefusedError, UsageError
from brgm_med.pipelines.deidentification import called, withhold
from brgm_med.pipelines.progress import search_progress
from brgm_med.pipelines.provenance import (
    STATEMENT,
    degraded,
    description,
    ranges,
    sidecar_of,
    super_resolved,
    write_json,
)
from brgm_med.pipelines.sources import result_record, series_of, source_record, stated_by
from brgm_med.pipelines.targets import target_of
from brgm_med.transforms.formats import check_output, for_reading, stem
from brgm_med.transforms.formats.dicom_derived import NO_CHOICES, Choices

if TYPE_CHECKING:
    import torch

    from brgm_med.perceptual import PerceptualFeatures
    from brgm_med.priors.bundle import PriorBundle
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.dicom_series import Series
    from brgm_med.transforms.geometry import Grid

Profile = Literal["box", "gaussian"]
Network = Literal["discriminator", "alex", "vgg", "none"]


def say(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)


def set_up_torch(threads: int | None = None) -> None:
    """Allocation and denormal settings that matter for speed on a CPU; `threads` None leaves torch's choice."""
    import torch

    from brgm_med.ops.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


def choose_device(device: str) -> Any:
    """auto (CUDA where there is one), cpu or cuda -> torch.device. Raises UsageError for cuda without one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu (see brgm-med doctor)")
    return torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def acquisition_of(
    scan: Path,
    grid: Grid,
    thickness: float | None,
    gap: float | None,
    profile: Profile | None,
    series: Series | None = None,
) -> tuple[AcquisitionModel, str]:
    """The acquisition model and where it comes from: flags, else the sidecar beside the scan, else the header.

    Of DICOM, the header states the slices' thickness (`sources.stated_by`).

    Raises InputRefusedError for a damaged sidecar and UsageError for flags that contradict the scan.
    """
    from brgm_med.transforms.acquire import AcquisitionModel

    if not (thickness is None and gap is None and profile is None):
        return AcquisitionModel.from_flags(grid, thickness, gap, profile or "box"), "stated on the command line"
    sidecar = sidecar_of(scan, stem(scan))
    if sidecar.is_file():
        try:
            content = json.loads(sidecar.read_text())
        except (OSError, ValueError) as error:
            raise InputRefusedError(f"{sidecar}: is no readable JSON ({error}); mend or remove it") from error
        if isinstance(content, dict):
            model = AcquisitionModel.from_sidecar(content, grid, str(sidecar))
            if model is not None:
                return model, "stated in the JSON file beside the scan"
    stated = stated_by(series, grid)
    if stated is not None:
        return stated, "stated in the DICOM header"
    return AcquisitionModel.from_header(grid), "assumed from the header's spacing"


def perceptual_features(
    network: Network, bundle: PriorBundle, weights: Path | None, device: torch.device
) -> PerceptualFeatures | None:
    """The features that the perceptual term compares, on `device`.

    Raises PriorError where LPIPS weights are wanted and missing.
    """
    if network == "none":
        return None
    from brgm_med.networks.discriminator import DiscriminatorFeatures
    from brgm_med.perceptual import LPIPS

    if network == "discriminator":
        return DiscriminatorFeatures(bundle.discriminator.to(device))
    from brgm_med.weights import lpips_features, lpips_heads

    return LPIPS(network, lpips_features(network, weights, download=True), lpips_heads(network)).to(device)


def super_resolve(
    scan: Path,
    out: Path | None = None,
    *,
    force: bool = False,
    prior: str = "brain-t1-coronal",
    steps: int | None = None,
    seed: int = 0,
    perceptual: Network = "none",
    lpips_weights: Path | None = None,
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    thickness: float | None = None,
    profile: Profile | None = None,
    gap: float | None = None,
    dtype: Literal["float32", "source"] = "float32",
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Super-resolve the head scan at `scan` into `out` (default: its name + `_brgm` beside it); returns `out`.

    `scan` is NIfTI, or DICOM, of which `series` chooses one of several volumes (see `dicom_series.the_series`). What
    `out` may be, and what `like` and `choices` are for, says `targets.target_of`. The certificate (JSON) goes to
    `certificate`, by default beside the output. Raises as the exit codes of `brgm_med.errors` say; nothing is left
    behind when it does.
    """
    source = for_reading(scan, series=series if like is None else None).read(scan, affine)
    target = target_of(scan, out, source.header, like=like, series=series, dtype=dtype, choices=choices, force=force)
    out = target.path
    certificate = certificate or out.with_name(f"{stem(out)}_certificate.json")
    if len({p.resolve() for p in (scan, out, certificate)}) < 3:
        raise UsageError(f"{out}: input, output and certificate must be three different files")
    target.check()
    check_output(certificate, force)

    from brgm_med.transforms.geometry import Grid

    grid = Grid(source.header.shape, source.affine)
    model, origin = acquisition_of(scan, grid, thickness, gap, profile, series_of(source.header))
    widths = " x ".join(f"{t:g}" for t in model.thickness)
    spacing = " x ".join(f"{s:g}" for s in grid.spacing)
    say(f"{called(scan, choices)}: {spacing} mm, {model.profile} profile {widths} mm ({origin})")

    import torch

    from brgm_med.consistency import certificate as certify
    from brgm_med.pipelines import super_resolution as sr
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
    try:
        problem = sr.pose_problem(torch.from_numpy(source.array)[None], grid, model, bundle.spacing, template)
    except InputRefusedError as error:
        raise InputRefusedError(f"{scan}: {error}") from error
    scale = scale_of(problem.pose)
    larger = f", the head taken as {scale:.2f} times the template's size" if scale > 1.01 else ""
    say(f"registered to {bundle.name}: correlation {problem.correlation:.2f}{larger}")
    steps = sr.STEPS if steps is None else steps
    with search_progress(steps) as callback:
        stack = sr.infer_stack(
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

    how = super_resolved(bundle.name, bundle.sha256)
    held, step = target.write(result.image[0].numpy(), problem.fine.affine, how, description(bundle.name))
    consistency = certify(
        torch.from_numpy(held)[None], problem.corruption, problem.scan, problem.corruption.inside(grid.shape), step
    )
    coronal = problem.fine.index_axis(1)
    reach = result.weight[0].amax([a for a in range(3) if a != coronal])
    content = {
        "statement": STATEMENT,
        "software": f"brgm-med {__version__}",
        "source": source_record(scan, source.header),
        "result": result_record(out),
        "prior": {"name": bundle.name, "sha256": bundle.sha256, "finest_detail_mm": bundle.spacing},
        "acquisition": {**model.to_sidecar(grid)["BrgmMedAcquisition"], "Origin": origin, "Stated": model.stated},
        "parameters": {
            "steps": steps,
            "seed": seed,
            "perceptual": perceptual,
            "weights": vars(Weights()),
            "covariance_mm": sr.CORRELATION_MM,
            "device": str(where),
        },
        "registration": {
            "correlation": problem.correlation,
            "scale": scale,
            "template_to_scan": problem.pose.tolist(),
        },
        "consistency": consistency,
        "coverage": {
            "voxels_with_prior": float((result.weight > 0).float().mean()),
            "slice_axis": coronal,
            "interpolated_slices": ranges([i for i, w in enumerate(reach.tolist()) if w == 0]),
        },
    }
    if not math.isfinite(consistency["relative_residual"]):
        target.remove()
        raise BrgmError(f"{out}: the result is not consistent with the scan; this is a defect, please report it")
    write_json(certificate, withhold(content, choices), force)
    say(f"wrote {out} and {certificate.name} (relative residual {consistency['relative_residual']:.1e})")
    return out


def degrade(
    scan: Path,
    out: Path,
    *,
    thickness: float | None = None,
    axis: str | None = None,
    profile: Profile = "box",
    gap: float = 0.0,
    factor: int | None = None,
    dtype: Literal["float32", "source"] = "float32",
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | None = None,
    force: bool = False,
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Simulate an acquisition of `scan` into `out`, with a JSON sidecar that states the acquisition model.

    Either slices of `thickness` mm (and `gap`) along world axis R, A or S, or `factor` in the coronal plane.
    """
    source = for_reading(scan, series=series if like is None else None).read(scan, affine)
    target = target_of(scan, out, source.header, like=like, series=series, dtype=dtype, choices=choices, force=force)
    sidecar = sidecar_of(out, stem(out))
    target.check()
    check_output(sidecar, force)
    if (factor is None) == (thickness is None) or (thickness is not None) != (axis is not None):
        raise UsageError("give either --slice-thickness with --axis, or --factor")

    import torch

    from brgm_med.transforms.acquire import coarse_in_plane, thick_slices
    from brgm_med.transforms.acquire import degrade as acquire
    from brgm_med.transforms.geometry import Grid

    grid = Grid(source.header.shape, source.affine)
    if factor is not None:
        coarse, model = coarse_in_plane(grid, factor)
    else:
        assert thickness is not None
        assert axis is not None
        coarse, model = thick_slices(grid, axis, thickness, gap, profile)
    image = acquire(torch.from_numpy(source.array)[None], grid, coarse, model)
    text = f"brgm-med {__version__}: simulated acquisition, research only"
    target.write(image[0].numpy(), coarse.affine, degraded(), text, model.thickness[2])
    write_json(sidecar, {"Source": called(scan, choices), **model.to_sidecar(coarse)}, force)
    say(f"wrote {out} ({' x '.join(f'{s:g}' for s in coarse.spacing)} mm) and {sidecar.name}")
    return out
