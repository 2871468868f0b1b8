"""`brgm-med inpaint`: a scan with a hole and a mask that says where in, the scan with the hole filled out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, InputRefusedError, UsageError
from brgm_med.files import write_json
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import acquisition_of, acquisition_record, called
from brgm_med.pipelines.reconstruct.compute import choose_device, computed_by, set_up_torch
from brgm_med.pipelines.results.certificate import (
    STATEMENT,
    account,
    check_certificate,
    default_certificate,
    description,
    inpainted,
    result_record,
    source_record,
)
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.deidentification import withhold
from brgm_med.pipelines.results.target import taken_back
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices

if TYPE_CHECKING:
    from brgm_med.transforms.formats.header import Header


def inpaint(
    scan: Path,
    mask: Path,
    out: Path | None = None,
    *,
    mask_known: bool = False,
    force: bool = False,
    prior: str = "brain-t1-coronal",
    steps: int | None = None,
    seed: int = 0,
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Fill the voxels of the head scan at `scan` that `mask` marks, into `out` (default: its stem + `_brgm`).

    The mask is any integer image, on the scan's grid or another: not 0 is unknown (0 is, if `mask_known`). Outside the
    hole the stored voxels, their type and scaling are those of the scan, to the last bit; the scan may hold NaN inside
    it. Beside the output goes a map, `_measured` after its name: 0 in the hole, 1 elsewhere. The certificate (JSON)
    goes to `certificate`, by default beside the output. Raises as the exit codes of `brgm_med.errors` say; nothing is
    left behind when it does.
    """
    header, stored = for_reading(scan, series=series if like is None else None).read_stored(scan, affine)
    mask_header, mask_stored = for_reading(mask).read_stored(mask, "auto")
    target = target_of(scan, out, header, like=like, series=series, choices=choices, force=force)
    out = target.path
    certificate = certificate or default_certificate(out)
    files = (scan, mask, out, target.map_path, certificate)
    if len({p.resolve() for p in files}) < len(files):
        raise UsageError(f"{out}: scan, mask, output, its map and the certificate must all be different files")
    target.check()
    check_certificate(certificate, out, force)

    import torch

    from brgm_med.files import digest
    from brgm_med.pipelines.reconstruct.hole import hole_on, inpaint_volume
    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.priors.bundle import load
    from brgm_med.search import HOLE
    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.register import scale_of

    grid = Grid(header.shape, header.affine)
    try:
        hole, resampled = hole_on(
            mask_header.decode(mask_stored), Grid(mask_header.shape, mask_header.affine), grid, mask_known
        )
    except InputRefusedError as error:
        raise InputRefusedError(f"{mask}: {error}") from error
    count = int(hole.sum())
    if resampled:
        grids = f"{called(mask, choices)} is on another grid; taken nearest-neighbour"
        say(f"warning: {grids}, {count} voxels of the scan are unknown")
    values = torch.from_numpy(header.decode(stored).astype(np.float32))
    outside = ~hole.numpy()
    check_known(scan, values.numpy(), hole.numpy())
    kept = target.kept_as(stored[outside], header)
    model, origin = acquisition_of(scan, grid, None, None, None, header.series)

    set_up_torch(threads)
    torch.manual_seed(seed)
    where = choose_device(device)
    bundle = load(prior)
    search = HOLE.limited_to(steps)
    with search_progress(search.iterations) as progress:
        result = inpaint_volume(
            Scan(values[None], grid, model, name=str(scan)),
            hole,
            bundle,
            search=search,
            device=where,
            progress=progress,
        )

    new, clipped = stored_like(result.image[0].numpy(), stored, hole.numpy(), header, kept)
    registration, weight = result.registration, result.prior_weight[0][hole]
    told: dict[str, Any] = {
        "software": f"brgm-med {__version__}",
        "prior": {"name": bundle.name, "sha256": bundle.sha256, "finest_detail_mm": bundle.spacing},
        "acquisition": acquisition_record(model, grid, origin),
        "parameters": {
            "steps": search.iterations,
            "noise": search.misfit,
            "seed": seed,
            **computed_by(where, result.image),
        },
        "hole": {
            "voxels": count,
            "inferred_by_the_prior": float((weight > 0).float().mean()),
            "interpolated_from_its_rim": float((weight == 0).float().mean()),
            "clipped_to_the_voxel_type": clipped,
        },
    }
    how = inpainted(bundle.name, bundle.sha256, account(told))
    held = target.write_stored(new, header, how, description(bundle.name))
    with taken_back(target):
        if not same_bits(held[outside].astype(stored.dtype), stored[outside]):
            raise BrgmError(f"{out}: voxels outside the hole changed; this is a defect, please report it")
        measured = target.write_map(outside.astype(np.float32), header.affine, how)
        content = {
            "statement": STATEMENT,
            **told,
            "source": source_record(scan, header),
            "mask": {"file": mask.name, "sha256": digest(mask), "known": mask_known, "resampled": resampled},
            "result": result_record(out),
            "measured_map": result_record(measured),
            "coronal_slices_searched": list(result.slices),
            "registration": {
                "correlation": registration.correlation,
                "scale": scale_of(registration.pose),
                "template_to_scan": registration.pose.tolist(),
            },
            "outside_the_hole": {"voxels": int(outside.sum()), "changed": 0},
        }
        write_json(certificate, withhold(content, choices), force)
    beyond = f"; {clipped} clipped to {kept.name}" if clipped else ""
    say(f"wrote {out}, {measured.name} and {certificate.name} ({count} voxels filled, all others as they were{beyond})")
    return out


def check_known(scan: Path, values: NDArray[np.float32], hole: NDArray[np.bool_]) -> None:
    """Refuse, with InputRefusedError, a scan whose voxels outside the hole are not finite, or all equal."""
    known = values[~hole]
    bad = known.size - int(np.isfinite(known).sum())
    if bad:
        raise InputRefusedError(
            f"{scan}: {bad} voxels outside the mask are NaN, infinite or beyond float32; mark them as unknown too"
        )
    if known.min() == known.max():
        raise InputRefusedError(f"{scan}: all its known voxels are {known[0]:g}; give an image that is not constant")


def stored_like(
    values: NDArray[np.floating],
    stored: NDArray[np.generic],
    hole: NDArray[np.bool_],
    header: Header,
    kept: np.dtype,
) -> tuple[NDArray[np.generic], int]:
    """`stored` [X, Y, Z] as `kept`, with the hole's voxels from `values` (scaled), and how many of those were clipped.

    They are clipped to what both the scan's type and `kept` hold.
    """
    new = stored.copy()
    new[hole] = 0
    new = new.astype(kept)
    wanted = (values[hole].astype(np.float64) - header.inter) / header.slope
    if kept.kind == "f":
        new[hole] = wanted.astype(kept)
        return new, 0
    limits = [np.iinfo(kind) for kind in (kept, header.dtype) if kind.kind != "f"]
    low, high = max(-(2**53), *(n.min for n in limits)), min(2**53, *(n.max for n in limits))  # floats are integers
    levels = np.rint(wanted)
    new[hole] = np.clip(levels, low, high).astype(kept)
    return new, int(((levels < low) | (levels > high)).sum())


def same_bits(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    """Equal to the last bit, NaN payloads included, whatever the byte order."""
    native = a.dtype.newbyteorder("=")
    return a.astype(native).tobytes() == b.astype(native).tobytes()
