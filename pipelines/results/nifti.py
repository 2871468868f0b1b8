"""A result as a NIfTI file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med.files import check_output
from brgm_med.pipelines.results.target import OutputType, Target, taken_back
from brgm_med.transforms.formats import nifti, stem
from brgm_med.transforms.formats.affine import TOLERANCE_MM, corner_distance
from brgm_med.transforms.formats.dicom import map as dicom_map
from brgm_med.transforms.formats.dicom.map import MEASURED, Quantity
from brgm_med.transforms.formats.format import ReadBack

if TYPE_CHECKING:
    from brgm_med.transforms.formats.affine import Affine
    from brgm_med.transforms.formats.dicom.derived import Derivation
    from brgm_med.transforms.formats.header import Header


@dataclass(frozen=True, eq=False)
class NiftiTarget(Target):
    """A NIfTI file, with the conventions of `like`."""

    like: Header
    dtype: OutputType

    def beside(self, name: str) -> Path:
        return self.path.with_name(f"{stem(self.path)}_{name}.nii.gz")

    def check(self) -> None:
        for path in self.paths:
            check_output(path, self.force)

    def stored_type(self, known: NDArray[np.generic], header: Header) -> np.dtype:
        return header.dtype

    def write(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, label: str, thickness: float | None = None
    ) -> ReadBack:
        form = self.like, self.dtype, label, self.force
        written = nifti.write(self.path, array, affine, *form, conventional=True)
        self.forget_map()
        rounded = self.dtype == "source" and self.like.dtype.kind in "iu"
        return ReadBack(written, nifti.read_header(self.path).slope if rounded else None)

    def write_stored(
        self, stored: NDArray[np.generic], header: Header, text: Derivation, label: str
    ) -> NDArray[np.generic]:
        written = nifti.write_stored(self.path, stored, header, label, self.force)
        self.forget_map()
        return written

    def write_map(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, quantity: Quantity = MEASURED
    ) -> Path:
        path = self.beside(quantity.name)
        with taken_back(self.remove):
            values, result = dicom_map.check_values(array, quantity), nifti.read_header(self.path)
            if values.shape != result.shape or corner_distance(result.affine, affine, result.shape) > TOLERANCE_MM:
                raise ValueError(f"{path}: the map is on another grid than {self.path}")
            label = f"{quantity.text}; research only, not for diagnosis"
            nifti.write(path, values, affine, result, "float32", label, self.force, display=quantity.limits)
        return path


def measured_beside(image: Path) -> Path:
    """The measured map of `image`, which may not be there."""
    return image.with_name(f"{stem(image)}_measured.nii.gz")
