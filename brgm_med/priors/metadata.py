"""The metadata of a prior, as far as they are read here: what must be there, of which kind and within which limits."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Any

MAX_SIDE, MAX_VOXELS = 1 << 14, 1 << 30


def check(metadata: Any) -> None:
    """Raise ValueError, with the entry and what it must be, for metadata that this software cannot use."""
    if not isinstance(metadata, dict):
        raise ValueError("it must be an object")
    for name in ("name", "version", "description"):
        if not isinstance(metadata.get(name), str):
            raise ValueError(f"{name} must be a text")
    _check_hashes(metadata.get("sha256"))
    image = metadata.get("network_data_format")
    for key in ("outputs", "pred"):
        image = image.get(key) if isinstance(image, dict) else None
    if not isinstance(image, dict) or not _sides(image.get("spatial_shape"), 2):
        raise ValueError("network_data_format.outputs.pred.spatial_shape must be two numbers of pixels")
    if type(image.get("num_channels")) is not int or not 1 <= image["num_channels"] <= 64:
        raise ValueError("network_data_format.outputs.pred.num_channels must be a number of channels")
    if "grid" in metadata:
        _check_grid(metadata["grid"])


def _check_hashes(hashes: Any) -> None:
    if not isinstance(hashes, dict) or not hashes:
        raise ValueError("sha256 must be an object of files")
    for name, value in hashes.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
            raise ValueError(f"sha256 names {ascii(name)[:80]}, which is no file of the prior")
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"sha256 of {ascii(name)[:80]} must be 64 hexadecimal digits")


def _check_grid(grid: Any) -> None:
    entries: dict[str, Any] = grid if isinstance(grid, dict) else {}
    shape: Any = entries.get("shape")
    affine: Any = entries.get("affine")
    if not _sides(shape, 3) or math.prod(shape) > MAX_VOXELS:
        raise ValueError("grid.shape must be three numbers of voxels")
    rows = affine if isinstance(affine, list) and len(affine) == 4 else []
    if not rows or not all(isinstance(row, list) and len(row) == 4 and all(map(_finite, row)) for row in rows):
        raise ValueError("grid.affine must be four rows of four numbers")
    if not affine[0][0] > 0:
        raise ValueError("grid.affine must begin with the voxels' size")


def _sides(value: Any, count: int) -> bool:
    ok = isinstance(value, list) and len(value) == count
    return ok and all(type(n) is int and 0 < n <= MAX_SIDE for n in value)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # NaN is not
