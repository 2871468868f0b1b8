"""Evidence of a report, worked out again from the files of one result: nothing is taken from the run that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brgm_med.errors import BrgmError, InputRefusedError
from brgm_med.files import digest, read_json
from brgm_med.pipelines.report.beside import same
from brgm_med.pipelines.report.entries import at, population_prior
from brgm_med.pipelines.report.files import inferred_on, map_on, read
from brgm_med.pipelines.report.images import Volume
from brgm_med.priors import AUTO, SELF
from brgm_med.priors.bundle import find
from brgm_med.transforms.acquire import AcquisitionModel, interpolate, respaced
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.pyramid import shrink
from brgm_med.transforms.register import head_centre, resample_cubic
from brgm_med.transforms.template import Template

HEAD_LEVEL = 0.25
"""Of the brain's mean: what is brighter than this in a template is drawn as the head."""

OUTLINE_MM = 2.0
"""Voxels in which a template is laid over a scan, at least."""

INTERVALS = ("lower", "upper", "std")
SAMPLES = 16
"""No more samples than this are looked for."""


@dataclass(frozen=True, eq=False)
class Slices:
    """Mean intensity of every measured slice, [slices], in the scan's units: in the scan, and as the scanner's sampling
    makes it of the result; over samples that lie in the result alone. `positions`: of the slices, mm along `axis` (R, A
    or S)."""

    measured: NDArray[np.float64]
    of_result: NDArray[np.float64]
    positions: NDArray[np.float64]
    axis: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence that could not be worked out is None, and `missing` says why.

    All but `scan` and `residual` are in the result's field of view. `before` is the scan by cubic B-splines; `residual`
    is |A x - y| on the scan's grid, in its units; `inferred` in [0, 1], 1 where nothing was measured; `lower`, `upper`
    and `std` the result's intervals; `samples` of its distribution; `head` and `brain` are the template's, for level
    lines; `box` [4, 4] takes world points (RAS mm, homogeneous) to where the prior's box is 0 to 1. `focus` is a world
    point to look at.
    """

    scan: Volume
    before: Volume
    after: Volume
    focus: NDArray[np.float64]
    residual: Volume | None = None
    slices: Slices | None = None
    inferred: Volume | None = None
    head: Volume | None = None
    brain: Volume | None = None
    box: NDArray[np.float64] | None = None
    intervals: dict[str, Volume] = field(default_factory=dict)
    samples: tuple[Volume, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def gather(
    scan: Path,
    result: Path,
    certificate: dict[str, Any],
    *,
    measured: Path | None = None,
    mask: Path | None = None,
    prior: str | None = None,
    series: str | None = None,
) -> Evidence:
    """Read the files and work out what is to be seen. Intervals and samples are looked for beside the result.

    Raises InputRefusedError where one cannot be read, or is not the one that the certificate names by its SHA-256.
    """
    chosen = at(certificate, "source", "affine")
    form = chosen if chosen in ("sform", "qform") else "auto"
    scan_image, scan_grid, record = read(scan, form, series)
    same(scan, record["sha256"], certificate, "source")
    # A result in NIfTI holds its one affine in both forms where the scan did.
    after, grid, record = read(result, "auto" if result.is_dir() else form)
    same(result, record["sha256"], certificate, "result")
    missing: dict[str, str] = {}

    residual = slices = None
    if "hole" not in certificate:
        try:
            residual, slices = _residual(after, grid, scan_image, scan_grid, certificate.get("acquisition"))
        except (BrgmError, ValueError) as error:
            missing["residual"] = f"the scan's acquisition model could not be applied to the result ({error})"
    inferred = inferred_on(grid, measured, mask, certificate, missing)
    pose = _pose(certificate)
    template = _template(pose, grid, certificate, prior, missing)

    if "hole" in certificate and inferred is not None and bool((inferred > 0.5).any()):
        points = np.argwhere(inferred[0].numpy() > 0.5)
        focus = (grid.affine @ np.append((points.min(0) + points.max(0)) / 2, 1.0))[:3]
    else:
        focus = pose[:3, 3] if pose is not None else head_centre(*shrink(after[0].numpy(), grid, 4.0, 0.0))

    before = Volume.turned(interpolated(scan_image, scan_grid, grid)[0].numpy(), grid)
    head, brain, box = template
    beside = {name: map_on(grid, result, name) for name in INTERVALS}
    intervals = {name: image for name, image in beside.items() if image is not None}
    drawn = [map_on(grid, result, f"sample-{k}") for k in range(1, SAMPLES + 1)]
    return Evidence(
        scan=Volume.turned(scan_image[0].numpy(), scan_grid),
        before=before,
        after=Volume.turned(after[0].numpy(), grid),
        focus=focus,
        residual=None if residual is None else Volume.turned(residual[0].numpy(), scan_grid),
        slices=slices,
        inferred=None if inferred is None else Volume.turned(inferred[0].numpy(), grid),
        head=head,
        brain=brain,
        box=box,
        intervals=intervals,
        samples=tuple(image for image in drawn if image is not None),
        missing=missing,
    )


def interpolated(image: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """The scan [1, X', Y', Z'] by cubic B-splines on `target`, [1, X, Y, Z]; axis by axis where the grids allow it."""
    if source.shape == target.shape and np.allclose(source.affine, target.affine, atol=1e-4):
        return image
    if np.allclose(respaced(source, target.spacing, target.shape).affine, target.affine, rtol=0, atol=1e-3):
        return interpolate(image, source, target)
    return resample_cubic(image, source, target, outside=float(image.min()))


def _residual(
    after: torch.Tensor, grid: Grid, scan: torch.Tensor, scan_grid: Grid, acquisition: Any
) -> tuple[torch.Tensor, Slices]:
    """|A x - y| [1, X', Y', Z'] on the scan's grid, 0 for samples that reach out of the result; and means of slices."""
    model = AcquisitionModel.from_sidecar({"BrgmMedAcquisition": acquisition}, scan_grid, "the certificate")
    if model is None:
        raise InputRefusedError("the certificate states none")
    corruption = model.corruption(grid, scan_grid)
    image = corruption(after.double())
    inside = corruption.inside(scan_grid.shape)
    residual = torch.where(inside, (image - scan.double()).abs(), 0.0).float()

    axis = int(np.argmax(scan_grid.spacing)) if model.axis is None else model.axis
    used = inside.expand(scan.shape)[0].double()
    plane = [other for other in range(3) if other != axis]
    count = used.sum(plane).numpy()
    measured, of_result = ((values[0].double() * used).sum(plane).numpy() for values in (scan, image))
    index = np.tile([*((n - 1) / 2 for n in scan_grid.shape), 1.0], (scan_grid.shape[axis], 1))
    index[:, axis] = np.arange(scan_grid.shape[axis])
    world = scan_grid.world_axis(axis)
    there = count > 0
    positions = (index @ scan_grid.affine.T)[there, world]
    return residual, Slices(measured[there] / count[there], of_result[there] / count[there], positions, "RAS"[world])


def _pose(certificate: dict[str, Any]) -> NDArray[np.float64] | None:
    try:
        pose = np.asarray(at(certificate, "registration", "template_to_scan"), np.float64)
    except (TypeError, ValueError):
        return None
    sound = pose.shape == (4, 4) and bool(np.isfinite(pose).all()) and abs(np.linalg.det(pose)) > 1e-6
    return pose if sound else None


def _template(
    pose: NDArray[np.float64] | None,
    grid: Grid,
    certificate: dict[str, Any],
    prior: str | None,
    missing: dict[str, str],
) -> tuple[Volume | None, Volume | None, NDArray[np.float64] | None]:
    """The template's image and brain mask in the field of view of `grid`, and the prior's box, only of the population
    prior that the certificate names by its SHA-256. `prior`: its name or folder here; None, "auto" or "self": as in the
    certificate."""
    record = population_prior(certificate)
    name = record.get("name") if prior in (None, AUTO, SELF) else prior
    if pose is None or not isinstance(name, str):
        missing["registration"] = "the scan was not registered to a prior's template"
        return None, None, None
    try:
        folder = find(name)
        if record.get("sha256") not in (None, digest(folder / "configs" / "metadata.json")):
            missing["registration"] = "the prior here is not the one that the certificate names (SHA-256 differs)"
            return None, None, None
        grid_of_prior = read_json(folder / "configs" / "metadata.json")["grid"]
        x, y, z = (int(n) for n in grid_of_prior["shape"])
        template = Template.load(folder, Grid((x, y, z), np.asarray(grid_of_prior["affine"], np.float64)))
    except (BrgmError, OSError, LookupError, TypeError, ValueError):
        missing["registration"] = "the template of the prior that the certificate names cannot be read here"
        return None, None, None
    back = np.linalg.inv(pose).astype(np.float64)
    sides = list(zip(grid.shape, grid.spacing, strict=True))
    counts = [max(1, round(n * s / max(s, OUTLINE_MM))) for n, s in sides]
    on = respaced(grid, [n * s / count for (n, s), count in zip(sides, counts, strict=True)], counts)
    image, mask = (resample(v, template.grid, on, back)[0].numpy() for v in (template.image, template.mask))
    edges = np.diag([1 / n for n in template.box.shape] + [1.0])
    edges[:3, 3] = 0.5 / np.asarray(template.box.shape)
    return Volume.turned(image, on), Volume.turned(mask, on), edges @ np.linalg.inv(template.box.affine) @ back
