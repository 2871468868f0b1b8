"""Heads to test with, made of the shipped template: they register, and belong to nobody."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from brgm_med.priors import bundle
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid

BOX = centred_grid(BOX_SHAPE, SPACING, (0, 0, 0))
"""The region of the shipped prior, in the template's world."""


def template_head(path: Path, dtype: type[np.generic] = np.int16) -> Path:
    """The shipped prior's template with a little texture, as a scan with both forms set, written to `path`."""
    source = nib.load(bundle.find(bundle.DEFAULT) / "template.nii.gz")
    assert isinstance(source, nib.Nifti1Image)
    values = source.get_fdata()
    texture = np.random.default_rng(0).normal(0, 0.02, values.shape) * values
    image = nib.Nifti1Image(np.clip((values + texture) * 400, 0, 4000).astype(dtype), source.affine)
    image.set_sform(source.affine, 1)
    image.set_qform(source.affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path
