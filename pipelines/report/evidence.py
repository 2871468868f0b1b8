"""Evidence of a report, worked out again from the files of one result: nothing is taken from the run that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brgm_med.errors import BrgmError, InputRefusedError, PriorError
from brgm_med.files import digest
from brgm_med.pipelines.report.entries import at, population_prior
from brgm_med.pipelines.report.images import Volume
from brgm_med.pipelines.results.records import file_record, source_record
from brgm_med.priors import AUTO, SELF
from brgm_med.priors.bundle import find
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.formats import for_reading, read_mask
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import head_centre, resample_cubic
from brgm_med.transforms.template import Template

HEAD_LEVEL = 0.25
"""Of the brain's mean: what is brighter than this in a template is drawn as the head."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence that could not be worked out is None, and `missing` says why.

    All but `scan` and `residual` are on the result's grid. `before` is the scan by cubic B-splines; `residual` is
    |A x - y| on the scan's grid, in its units; `inferred` in [0, 1], 1 where nothing was measured; `head` and `brain`
    are the template's, for level lines; `focus` is a world point (RAS mm) to look at, and `reach` [3] how far from it
    there is something to see, mm.
    """

    scan: Volume
    before: Volume
    after: Volume
    focus: NDArray[np.float64]
    reach: NDArray[np.float64]
    residual: Volume | None = None
    inferred: Volume | None = None
    head: Volume | None = None
    brain: Volume | None = None
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
    """Read the files and work out what is to be seen.

    Raises InputRefusedError where one cannot be read, or is not the one that the certificate names by its SHA-256.
    """
    form = at(certificate, "source", "affine")
    scan_image, scan_grid, record = _read(scan, form if form in ("sform", "qform") else "auto", series)
    same(scan, record["sha256"], certificate, "source")
    # A result in NIfTI holds its one affine in both forms where the scan did.
    after, grid, record = _read(result, form if form in ("sform", "qform") else "auto")
    same(result, record["sha256"], certificate, "result")
    missing: dict[str, str] = {}

    before = scan_image
    if not (scan_grid.shape == grid.shape and np.allclose(scan_grid.affine, grid.affine, atol=1e-4)):
        before = resample_cubic(scan_image, scan_grid, grid, outside=float(scan_image.min()))
    residual = None
    if "hole" not in certificate:
        try:
            residual = _residual(after, grid, scan_image, scan_grid, certificate.get("acquisition"))
        except (BrgmError, ValueError) as error:
            missing["residual"] = f"the scan's acquisition model could not be applied to the result ({error})"
    inferred = inferred_on(grid, measured, mask, certificate, missing)
    pose = _pose(certificate)
    head, brain = _template(pose, grid, certificate, prior, missing)

    if "hole" in certificate and inferred is not None and bool((inferred > 0.5).any()):
        points = np.argwhere(inferred[0].numpy() > 0.5)
        focus = (grid.affine @ np.append((points.min(0) + points.max(0)) / 2, 1.0))[:3]
        reach = np.abs(grid.affine[:3, :3]) @ (np.ptp(points, axis=0) + 1) / 4
    else:
        focus = pose[:3, 3] if pose is not None else head_centre(after[0].numpy(), grid)
        reach = np.full(3, 24.0)

    def turned(image: torch.Tensor | None, on: Grid = grid) -> Any:
        return None if image is None else Volume.turned(image[0].numpy(), on)

    images = (turned(scan_image, scan_grid), turned(before), turned(after))
    maps = (turned(residual, scan_grid), turned(inferred), turned(head), turned(brain))
    return Evidence(*images, focus, reach, *maps, missing)


def same(path: Path, sha256: str, certificate: dict[str, Any], key: str) -> None:
    """Refuse, with InputRefusedError, a file whose hash is not the one under `key`, if there is one there."""
    stated = at(certificate, key, "sha256")
    if isinstance(stated, str) and len(stated) == 64 and sha256 != stated:  # a withheld one is words
        raise InputRefusedError(
            f"{path}: is not the file that the certificate was written for (SHA-256 differs); give the two that belong "
            "together"
        )


def _read(path: Path, form: Any, series: str | None = None) -> tuple[torch.Tensor, Grid, dict[str, Any]]:
    """[1, X, Y, Z] float32, its grid and its record; voxels that are no number (in a hole) as the lowest value."""
    reader = for_reading(path, series=series, allow_missing_files=True)  # the reconstruction decided that
    header, stored = reader.read_stored(path, form)
    values = header.decode(stored).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise InputRefusedError(f"{path}: holds no number; give an image")
    values = np.where(finite, values, values[finite].min())
    return torch.from_numpy(values)[None], Grid(header.shape, header.affine), source_record(path, header)


def _residual(after: torch.Tensor, grid: Grid, scan: torch.Tensor, scan_grid: Grid, acquisition: Any) -> torch.Tensor:
    """|A x - y| [1, X', Y', Z'] on the scan's grid; 0 for samples that reach out of the result."""
    model = AcquisitionModel.from_sidecar({"BrgmMedAcquisition": acquisition}, scan_grid, "the certificate")
    if model is None:
        raise InputRefusedError("the certificate states none")
    corruption = model.corruption(grid, scan_grid)
    error = (corruption(after.double()) - scan.double()).abs()
    return torch.where(corruption.inside(scan_grid.shape), error, 0.0).float()


def inferred_on(
    grid: Grid, measured: Path | None, mask: Path | None, certificate: dict[str, Any], missing: dict[str, str]
) -> torch.Tensor | None:
    """Inferred part of each voxel of `grid`, [1, X, Y, Z] in [0, 1]: from the map of what was measured, or from the
    mask that was inpainted. None, and why in `missing`, where there is neither. Raises InputRefusedError for files that
    are not what they should be.
    """
    if measured is not None:
        same(measured, file_record(measured)["sha256"], certificate, "measured_map")
        image, on = _parametric_map(measured) if measured.is_dir() else _read(measured, "auto")[:2]
        if _backwards(on, grid):  # frames may come from either end
            image, on = image.flip(-1), grid
        if not (on.shape == grid.shape and np.allclose(on.affine, grid.affine, atol=1e-3)):
            raise InputRefusedError(f"{measured}: is not on the result's grid; give the map that was written with it")
        if image.min() < -1e-3 or image.max() > 1 + 1e-3:
            raise InputRefusedError(f"{measured}: holds values outside [0, 1]; give the map of what was measured")
        return 1 - image.clamp(0, 1)
    if mask is not None:
        from brgm_med.pipelines.reconstruct.hole import hole_on

        header, stored = read_mask(mask)
        same(mask, source_record(mask, header)["sha256"], certificate, "mask")
        on = Grid(header.shape, header.affine)
        hole, _ = hole_on(header.decode(stored), on, grid, bool(at(certificate, "mask", "known")))
        return hole.float()[None]
    missing["inferred"] = "no map of what was measured was given"
    return None


def _backwards(one: Grid, other: Grid) -> bool:
    """True where two grids are the same but for the direction of their last axis."""
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = one.shape[2] - 1
    return one.shape == other.shape and np.allclose(one.affine @ turn, other.affine, atol=1e-3)


def _parametric_map(folder: Path) -> tuple[torch.Tensor, Grid]:
    """[1, columns, rows, frames] and the grid of a DICOM parametric map (PS3.3 A.75) of floats, alone in `folder`."""
    import highdicom
    from pydicom.errors import InvalidDicomError

    try:
        (file,) = folder.iterdir()
        image = highdicom.imread(file)
        if "FloatPixelData" not in image:
            raise ValueError("its pixels are no floating point numbers")
        volume = image.get_volume(dtype=np.float32, apply_real_world_transform=False)
    except (OSError, ValueError, AttributeError, LookupError, RuntimeError, InvalidDicomError) as error:
        raise InputRefusedError(f"{folder}: is no map of what was measured ({error}); give the one written") from error
    values = np.ascontiguousarray(volume.array.T)  # from [frames, rows, columns]
    x, y, z = values.shape
    return torch.from_numpy(values)[None], Grid((x, y, z), RAS_LPS @ volume.affine[:, [2, 1, 0, 3]])


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
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The template's image and brain mask on `grid`, only of the population prior that the certificate names by its
    SHA-256. `prior`: its name or folder here; None, "auto" or "self": as in the certificate."""
    record = population_prior(certificate)
    name = record.get("name") if prior in (None, AUTO, SELF) else prior
    if pose is None or not isinstance(name, str):
        missing["registration"] = "the scan was not registered to a prior's template"
        return None, None
    try:
        folder = find(name)
        if record.get("sha256") not in (None, digest(folder / "configs" / "metadata.json")):
            missing["registration"] = "the prior here is not the one that the certificate names (SHA-256 differs)"
            return None, None
        template = Template.load(folder, grid)
    except (PriorError, OSError):
        missing["registration"] = "the template of the prior that the certificate names cannot be read here"
        return None, None
    back = np.linalg.inv(pose).astype(np.float64)
    image, mask = (resample(v, template.grid, grid, back) for v in (template.image, template.mask))
    return image, mask
