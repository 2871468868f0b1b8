"""A volume as it is read, whatever its format: the header's facts and the voxels. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats.affine import Affine
from brgm_med.transforms.formats.nifti_record import NiftiRecord

if TYPE_CHECKING:
    from brgm_med.transforms.formats.dicom.series import Series


@dataclass(frozen=True, eq=False)
class Header:
    """The facts of a volume's header, checked.

    `path`: the file, folder, DICOMDIR or zip that was read. `shape` (X, Y, Z); `affine` [4, 4], index -> world RAS mm,
    from `form` ("sform", "qform" or "DICOM"). `dtype`: the stored voxels' type with its byte order; value = slope *
    stored + inter. A format that can write a volume like this one finds in its own part what it needs beyond that:
    `nifti` (the raw header) or `series` (the slices); the other part is None.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    form: str
    dtype: np.dtype
    slope: float = 1.0
    inter: float = 0.0
    nifti: NiftiRecord | None = None
    series: Series | None = None

    def decode(self, stored: NDArray[np.generic]) -> NDArray[np.floating]:
        """slope * stored + inter in float64; float voxels without scaling as they are."""
        if (self.slope, self.inter) == (1.0, 0.0):
            native = self.dtype.newbyteorder("=")
            return stored.astype(native if native.kind == "f" else np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return stored.astype(np.float64) * self.slope + self.inter


@dataclass(frozen=True, eq=False)
class Volume:
    """`array` [X, Y, Z] float32, scaled, finite and not constant, and the header that it came with."""

    array: NDArray[np.float32]
    header: Header

    @property
    def affine(self) -> Affine:
        """[4, 4], index -> world RAS mm."""
        return self.header.affine

    @classmethod
    def of(cls, header: Header, stored: NDArray[np.generic]) -> Volume:
        """Raises InputRefusedError for voxels that are NaN, infinite, beyond float32, or all equal."""
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(header.decode(stored), np.float32)
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            refuse(header.path, f"{bad} of its voxels are NaN, infinite or beyond float32", "correct or mask them")
        if array.min() == array.max():
            refuse(header.path, f"all its voxels are {array.flat[0]:g}", "give an image that is not constant")
        return cls(array, header)
