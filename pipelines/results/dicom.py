"""A result as a folder of DICOM files: a derived series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError
from brgm_med.extras import require
from brgm_med.files import check_new_folder
from brgm_med.pipelines.results.target import Target, taken_back
from brgm_med.transforms.formats.dicom import map as dicom_map
from brgm_med.transforms.formats.dicom import write as dicom_write
from brgm_med.transforms.formats.dicom.deidentify import check as check_identity
from brgm_med.transforms.formats.dicom.map import MEASURED, Quantity
from brgm_med.transforms.formats.dicom.mr import Scale, Voxels, check_source
from brgm_med.transforms.formats.format import ReadBack

if TYPE_CHECKING:
    from brgm_med.transforms.formats.affine import Affine
    from brgm_med.transforms.formats.dicom.derived import Derivation
    from brgm_med.transforms.formats.dicom.series import Series
    from brgm_med.transforms.formats.header import Header


@dataclass(frozen=True, eq=False)
class SeriesTarget(Target):
    """A folder of DICOM files, with patient and study of `like`: the scan itself, or another series than `scan`.

    `further`: series of further scans that the result is made of.
    """

    like: Series
    scan: Header | None = None
    further: tuple[Series, ...] = ()

    def beside(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}_{name}")

    def check(self) -> None:
        require("dicom", "highdicom")  # for the map of what was measured
        check_source(self.like)
        for path in self.paths:
            check_new_folder(path, dicom_write.ENDING if self.force else None)
        if self.choices.transform is not None:
            for header in self.like.headers:
                check_identity(header, "the series")

    def stored_type(self, known: NDArray[np.generic], header: Header) -> np.dtype:
        low, high = known.min(), known.max()
        for kind in (header.dtype, np.dtype(np.uint16), np.dtype(np.int16)):
            fits = kind in (np.uint16, np.int16) and np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
            if fits and np.array_equal(np.rint(known), known):
                return kind.newbyteorder("=")
        raise InputRefusedError(
            f"{header.path}: its voxels are no integers of 16 bits (or its slices are rescaled differently), so DICOM "
            "cannot keep them as they are; let the output's name end in .nii.gz"
        )

    def write(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, label: str, thickness: float | None = None
    ) -> ReadBack:
        scan = self.scan
        read_back = dicom_write.write(
            self.path,
            array,
            affine,
            self.like,
            text,
            self.choices,
            thickness=thickness,
            made_here=scan is None,
            further=self.further,
            scale=None if scan is None or scan.dtype.kind == "f" else Scale(scan.slope, scan.inter),
            force=self.force,
        )
        self.forget_map()
        return read_back

    def write_stored(
        self, stored: NDArray[np.generic], header: Header, text: Derivation, label: str
    ) -> NDArray[np.generic]:
        own = self.scan is None
        scale, thickness = Scale(header.slope, header.inter), self.like.thickness if own else None
        voxels = Voxels(cast("NDArray[np.integer]", stored), scale, header.affine, thickness)
        dicom_write.write_stored(self.path, voxels, self.like, text, self.choices, made_here=own, force=self.force)
        self.forget_map()
        return stored

    def write_map(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, quantity: Quantity = MEASURED
    ) -> Path:
        path = self.beside(quantity.name)
        with taken_back(self.remove):
            dicom_map.write(path, array, affine, self.path, quantity, text, self.choices, self.force)
        return path
