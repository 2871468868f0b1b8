"""Heads of 4 mm that register to the shipped template and belong to nobody: quick to work on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brgm_med.priors import bundle


def small_head(path: Path, seed: int = 0, pose: NDArray[np.float64] | None = None, thick: bool = False) -> Path:
    """The shipped template in voxels of 4 mm (`thick`: in slices of 8 mm along S) with texture of `seed`, moved by
    `pose` [4, 4] (world, mm), int16, as a scan with both forms set, written to `path`."""
    source = nib.load(bundle.find(bundle.DEFAULT) / "template.nii.gz")
    assert isinstance(source, nib.Nifti1Image)
    values = source.get_fdata()
    factors = (2, 2, 4 if thick else 2)
    for axis, factor in enumerate(factors):
        count = values.shape[axis] // factor
        values = np.moveaxis(values, axis, 0)[: count * factor]
        values = np.moveaxis(values.reshape(count, factor, *values.shape[1:]).mean(1), 0, axis)
    values = values + np.random.default_rng(seed).normal(0, 0.02, values.shape) * values
    affine = source.affine @ np.diag([*factors, 1])
    affine[:3, 3] += source.affine[:3, :3] @ ((np.asarray(factors) - 1) / 2)
    affine = (np.eye(4) if pose is None else pose) @ affine
    image = nib.Nifti1Image(np.clip(values * 400, 0, 4000).astype(np.int16), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def truncated(path: Path) -> Path:
    """The first half of the file at `path`, which replaces it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path
