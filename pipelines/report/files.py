"""Files of a result, read for its report: images, maps beside them, and whether they belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.report.entries import at
from brgm_med.pipelines.report.images import Volume
from brgm_med.pipelines.results.records import file_record, source_record
from brgm_med.transforms.formats import for_reading, read_mask, stem
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.geometry import Grid


def read_certificate(path: Path) -> dict[str, Any]:
    """A certificate's JSON object. Raises InputRefusedError for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputRefusedError(f"{path}: is no readable certificate ({error}); give the JSON of a result") from error
    if not isinstance(content, dict):
        raise InputRefusedError(f"{path}: is no certificate (a JSON object); give the JSON of a result")
    return content


def same(path: Path, sha256: str, certificate: dict[str, Any], key: str) -> None:
    """Refuse, with InputRefusedError, a file whose hash is not the one under `key`, if there is one there."""
    stated = at(certificate, key, "sha256")
    if isinstance(stated, str) and len(stated) == 64 and sha256 != stated:  # a withheld one is words
        raise InputRefusedError(
            f"{path}: is not the file that the certificate was written for (SHA-256 differs); give the two that belong "
            "together"
        )


def read(path: Path, form: Any, series: str | None = None) -> tuple[torch.Tensor, Grid, dict[str, Any]]:
    """[1, X, Y, Z] float32, its grid and its record; voxels that are no number (in a hole) as the lowest value."""
    reader = for_reading(path, series=series, allow_missing_files=True)  # the reconstruction decided that
    header, stored = reader.read_stored(path, form)
    values = header.decode(stored).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise InputRefusedError(f"{path}: holds no number; give an image")
    if not finite.all():
        values = np.where(finite, values, values[finite].min())
    return torch.from_numpy(values)[None], Grid(header.shape, header.affine), source_record(path, header)


def beside(result: Path, quantity: str) -> Path | None:
    """The map of a result, called as the result with `_` and the quantity after it: a folder where the result is one,
    else a NIfTI file. None where there is none."""
    endings = ("",) if result.is_dir() else (".nii.gz", ".nii")
    name = result.name if result.is_dir() else stem(result)
    paths = (result.with_name(f"{name}_{quantity}{ending}") for ending in endings)
    return next((path for path in paths if path.exists()), None)


def map_on(grid: Grid, result: Path, quantity: str) -> Volume | None:
    """A map beside a result on its `grid`; None where there is none."""
    path = beside(result, quantity)
    return None if path is None else Volume.turned(_on(grid, path)[0].numpy(), grid)


def _on(grid: Grid, path: Path) -> torch.Tensor:
    """A map [1, X, Y, Z]. Raises InputRefusedError where it is on another grid than `grid`."""
    image, on = _parametric_map(path) if path.is_dir() else read(path, "auto")[:2]
    if _backwards(on, grid):  # frames may come from either end
        image, on = image.flip(-1), grid
    if not (on.shape == grid.shape and np.allclose(on.affine, grid.affine, atol=1e-3)):
        raise InputRefusedError(f"{path}: is not on the result's grid; give the map that was written with it")
    return image


def inferred_on(
    grid: Grid, measured: Path | None, mask: Path | None, certificate: dict[str, Any], missing: dict[str, str]
) -> torch.Tensor | None:
    """Inferred part of each voxel of `grid`, [1, X, Y, Z] in [0, 1]: from the map of what was measured, or from the
    mask that was inpainted. None, and why in `missing`, where there is neither. Raises InputRefusedError for files that
    are not what they should be.
    """
    if measured is not None:
        same(measured, file_record(measured)["sha256"], certificate, "measured_map")
        image = _on(grid, measured)
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
