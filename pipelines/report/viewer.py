"""Volumes for the interactive view: small NIfTI files of one byte a voxel, as base64."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import nibabel as nib
import numpy as np

from brgm_med.pipelines.report.images import Volume, bytes_of
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.register import shrink

STEPS_MM = (0.0, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Block means to at most these sizes are tried in turn."""


def small_nifti(volume: Volume, low: float, high: float, budget: int) -> tuple[str, Grid]:
    """The volume between `low` and `high` in 256 levels, as base64 of a gzipped NIfTI of at most `budget` bytes, and
    its grid: the volume's, or with as many voxels averaged in blocks as that takes. The same bytes for the same volume.
    """
    for step in STEPS_MM:
        values, grid = shrink(volume.values, volume.grid, step, 0.0) if step else (volume.values, volume.grid)
        image = nib.nifti1.Nifti1Image(bytes_of(values, low, high), grid.affine)
        image.header.set_xyzt_units("mm")
        image.header.set_slope_inter((high - low) / 255, low)
        packed = base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0))
        if len(packed) <= budget:
            break
    return packed.decode("ascii"), grid


def entry(label: str, volume: Volume, low: float, high: float, budget: int, colours: str = "gray") -> dict[str, Any]:
    """Input of viewer.js for one volume; `colours` is one of niivue's colour maps."""
    packed, grid = small_nifti(volume, low, high, budget)
    same = np.allclose(grid.spacing, volume.grid.spacing)
    size = " x ".join(f"{s:.3g}" for s in grid.spacing)
    return {
        "label": label,
        "base64": packed,
        "low": low,
        "high": high,
        "colours": colours,
        "size": f"{size} mm" + ("" if same else ", averaged to keep this file small"),
    }
