"""DICOM segmentations (PS3.3 A.51) as masks: a voxel is 1 where any segment covers it. highdicom reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.extras import require
from brgm_med.transforms.formats import affine as affines
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.formats.dicom.file import is_dicom, read_header, read_whole, strict
from brgm_med.transforms.formats.header import Header

CLASSES = {f"1.2.840.10008.5.1.4.1.1.66.{number}" for number in (4, 7)}
"""Segmentation Storage, and Label Map Segmentation Storage (PS3.4 B.5)."""
FORM = "DICOM"
MAX_VOXELS = 2**30


def is_segmentation(path: Path) -> bool:
    """True where the file at `path` is a DICOM segmentation. Raises InputRefusedError for a damaged file of DICOM."""
    if not path.is_file() or not is_dicom(path):
        return False
    return read_header(path, ["SOPClassUID"], with_pixels=False).get("SOPClassUID") in CLASSES


def read_stored(path: Path) -> tuple[Header, NDArray[np.uint8]]:
    """The header and the voxels [columns, rows, slices] of a segmentation: 1 in any segment, 0 elsewhere.

    Of fractions, half and more count. Frames that are left out, being empty, are 0. Raises InputRefusedError for a
    damaged file, and for frames that are not evenly spaced.
    """
    require("dicom", "highdicom")
    with strict(path):
        from highdicom.seg import Segmentation

        segmentation = Segmentation.from_dataset(read_whole(path), copy=False)
        geometry = segmentation.get_volume_geometry()
        if geometry is None:
            refuse(path, "is a segmentation whose frames are not one evenly spaced volume", "resample it")
        shape = tuple(int(n) for n in geometry.spatial_shape[::-1])
        if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
            refuse(path, f"declares a volume of {' x '.join(map(str, shape))} voxels", "do not trust it")
        segments = segmentation.get_volume(combine_segments=False).array
        stored = np.any(segments >= 0.5 if segments.dtype.kind == "f" else segments > 0, axis=-1)
    affine = RAS_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    try:
        affines.check(affine, shape)
    except affines.AffineProblem as problem:
        refuse(path, f"is a segmentation whose geometry {problem}", "export it again")
    voxels = np.asarray(stored, np.uint8).transpose(2, 1, 0)
    return Header(path, (shape[0], shape[1], shape[2]), affine, FORM, voxels.dtype), voxels
