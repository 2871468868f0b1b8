"""`brgm-med inpaint`: a scan with a hole and a mask that says where in, the scan with the hole filled out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import BrgmError, InputRefusedError, UsageError
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import acquisition_of, acquisition_record, called, say_tolerated
from brgm_med.pipelines.reconstruct.compute import computed_by, set_up
from brgm_med.pipelines.results.certificate import Certificate, Entry
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.publish import announce, check, check_space, publish
from brgm_med.pipelines.results.records import file_record, prior_record, registration_record, source_record
from brgm_med.priors import DEFAULT
from brgm_med.staging import scratch_beside
from brgm_med.transforms.formats import for_reading, read_mask
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices

if TYPE_CHECKING:
    from torch import Tensor

    from brgm_med.pipelines.reconstruct.measurement import Registration
    from brgm_med.transforms.formats.header import Header
    from brgm_med.transforms.geometry import Grid


def inpaint(
    scan: Path,
    mask: Path,
    out: Path | None = None,
    *,
    mask_known: bool = False,
    force: bool = False,
    prior: str = DEFAULT,
    steps: int | None = None,
    seed: int = 0,
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
    allow_missing_files: bool = False,
    report: Callable[..., object] | None = None,
) -> Path:
    """Fill the voxels of the head scan at `scan` that `mask` marks, into `out` (default: its stem + `_brgm`).

    The mask is any integer image, on the scan's grid or another: not 0 is unknown (0 is, if `mask_known`). Outside the
    hole the stored voxels, their type and scaling are those of the scan, to the last bit; the scan may hold NaN inside
    it. Beside the output goes a map, `_measured` after its name: 0 in the hole, 1 elsewhere. The certificate (JSON)
    goes to `certificate`, by default beside the output, and so does what `report` (such as `report.subject_report`)
    writes. `allow_missing_files`: of DICOM, see `the_series`. Raises as
    the exit codes of `brgm_med.errors` say; nothing is left behind when it does.
    """
    scratch_beside(out or scan)
    own_series = series if like is None else None
    reader = for_reading(scan, series=own_series, allow_missing_files=allow_missing_files)
    header, stored = reader.read_stored(scan, affine)
    say_tolerated(header, called(scan, choices))
    mask_header, mask_stored = read_mask(mask)
    if swapped(stored, mask_stored):
        raise UsageError(
            f"--in holds but two values and --mask {mask} many: they seem to be swapped; --mask says where the hole is"
        )
    target = target_of(scan, out, header, like=like, series=series, choices=choices, force=force)
    certificate = check(target, (scan, mask), certificate, (like, prior), report is not None)
    check_space(target, stored.size)

    import torch

    from brgm_med.pipelines.reconstruct.hole import finest_of, inpaint_volume
    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.priors.bundle import load
    from brgm_med.search import HOLE
    from brgm_med.transforms.geometry import Grid

    grid = Grid(header.shape, header.affine)
    hole, resampled = _hole(mask, mask_header, mask_stored, grid, mask_known, choices)
    values = torch.from_numpy(header.decode(stored).astype(np.float32))
    outside = ~hole.numpy()
    check_known(scan, values.numpy(), hole.numpy())
    stored_type = target.stored_type(stored[outside], header)
    model, origin = acquisition_of(scan, grid, None, None, None, header.series)

    where = set_up(device, seed, threads)
    bundle = load(prior)
    search = HOLE.limited_to(steps)
    with search_progress(search.iterations) as progress:
        known = Scan(values[None], grid, model, name=str(scan))
        result = inpaint_volume(known, hole, bundle, search=search, device=where, progress=progress)

    assert result.registration is not None
    assert result.slices is not None
    assert result.population is not None
    new, clipped = stored_like(result.image[0].numpy(), stored, hole.numpy(), header, stored_type)
    weight = result.prior_weight[0][hole]
    parameters = {"steps": search.iterations, "noise": search.misfit, "seed": seed}
    entries = Certificate(
        prior=prior_record(bundle, finest_detail_mm=bundle.spacing),
        acquisition=acquisition_record(model, grid, origin),
        parameters={**parameters, **computed_by(where, result.image)},
        hole={
            "voxels": weight.numel(),
            "inferred_by_the_prior": float((weight > 0).float().mean()),
            "interpolated_from_its_rim": float((weight == 0).float().mean()),
            "weight_of_the_prior": round(result.population.weight, 3),
            "why": result.population.reason,
            "texture_of_the_scan_finer_than_mm": finest_of(bundle, grid),
            "clipped_to_the_voxel_type": clipped,
        },
        source=source_record(scan, header),
        mask={**file_record(mask), "known": mask_known, "resampled": resampled},
        coronal_slices_searched=list(result.slices),
        outside_the_hole={"voxels": int(outside.sum()), "changed": 0},
    )
    publish(
        target,
        certificate,
        entries,
        "inpaint",
        lambda to, *text: to.write_stored(new, header, *text),
        partial(read_back, stored, outside, result.registration),
        lambda to, text: to.write_map(outside.astype(np.float32), header.affine, text),
        like=(scan, mask),
        report=None if report is None else partial(report, scan=scan, mask=mask, prior=prior, series=own_series),
    )
    beyond = f"; {clipped} clipped to {stored_type.name}" if clipped else ""
    used = f"{bundle.name} with weight {result.population.weight:.2g}: {result.population.reason}"
    announce(
        target,
        certificate,
        f"{weight.numel()} voxels filled, all others as they were{beyond}; {used}",
        report is not None,
    )
    return target.path


def _hole(
    mask: Path, header: Header, stored: NDArray[np.generic], grid: Grid, known: bool, choices: Choices
) -> tuple[Tensor, bool]:
    """`hole_on` for a mask as it is read; says where it had to be resampled."""
    from brgm_med.pipelines.reconstruct.hole import hole_on
    from brgm_med.transforms.geometry import Grid

    try:
        hole, resampled = hole_on(header.decode(stored), Grid(header.shape, header.affine), grid, known)
    except InputRefusedError as error:
        raise InputRefusedError(f"{mask}: {error}") from error
    if resampled:
        grids = f"{called(mask, choices)} is on another grid; taken nearest-neighbour"
        say(f"warning: {grids}, {int(hole.sum())} voxels of the scan are unknown")
    return hole, resampled


def swapped(scan: NDArray[np.generic], mask: NDArray[np.generic]) -> bool:
    """Whether the scan holds at most two values, as masks do, and the mask more than labels are."""
    first, few = scan.ravel()[0], 64
    others = scan[scan != first]
    two = others.size == 0 or bool((others == others[0]).all())
    return two and np.unique(mask.ravel()[:: max(1, mask.size // 100_000)]).size > few


def read_back(
    stored: NDArray[np.generic], outside: NDArray[np.bool_], registration: Registration, written: NDArray[np.generic]
) -> Entry:
    """Entries of a certificate that Image Comments do not carry. Raises BrgmError where a voxel `outside` changed."""
    native = stored.dtype.newbyteorder("=")  # the bytes tell NaN payloads apart
    if written[outside].astype(native).tobytes() != stored[outside].astype(native).tobytes():
        raise BrgmError("voxels outside the hole changed; this is a defect, please report it")
    return {"registration": registration_record(registration.correlation, registration.pose)}


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
    stored_type: np.dtype,
) -> tuple[NDArray[np.generic], int]:
    """`stored` [X, Y, Z] as `stored_type`, the hole's voxels from `values` (scaled), and the number of those clipped.

    They are clipped to the range of both the scan's type and `stored_type`.
    """
    new = stored.copy()
    new[hole] = 0
    new = new.astype(stored_type)
    exact = (values[hole].astype(np.float64) - header.inter) / header.slope
    if stored_type.kind == "f":
        new[hole] = exact.astype(stored_type)
        return new, 0
    limits = [np.iinfo(kind) for kind in (stored_type, header.dtype) if kind.kind != "f"]
    low, high = max(-(2**53), *(n.min for n in limits)), min(2**53, *(n.max for n in limits))  # floats are integers
    levels = np.rint(exact)
    new[hole] = np.clip(levels, low, high).astype(stored_type)
    return new, int(((levels < low) | (levels > high)).sum())
