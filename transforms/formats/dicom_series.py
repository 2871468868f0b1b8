"""A DICOM series as a value: the slices of one volume, in order, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class Series:
    """One volume of DICOM slices, in order along the slice normal, or the frames of one enhanced file.

    `files` and `headers` (without pixel data) are one a slice and in the order of slices, or one in all where the file
    is enhanced (`enhanced`). `frames` says, for every slice, which frame of its file it is, counted from 0. `shape` is
    (columns, rows, slices); `affine` [4, 4], float64, index -> world RAS mm.
    """

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def enhanced(self) -> bool:
        """Whether the geometry lies in functional groups (PS3.3 C.7.6.16)."""
        return "SharedFunctionalGroupsSequence" in self.headers[0]
