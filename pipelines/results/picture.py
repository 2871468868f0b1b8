"""A result as a picture: PNG, TIFF, JPEG, or the DICOM of a radiograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import UsageError
from brgm_med.extras import require
from brgm_med.files import check_output
from brgm_med.pipelines.results.target import Destination
from brgm_med.transforms.formats import picture, radiograph_write
from brgm_med.transforms.formats.dicom.deidentify import check as check_identity
from brgm_med.transforms.formats.dicom.derived import Derivation
from brgm_med.transforms.formats.dicom.file import is_dicom, read_header
from brgm_med.transforms.formats.picture import Picture, Written


@dataclass(frozen=True, eq=False)
class PictureTarget(Destination):
    """A picture with the bits and conventions of `like`; DICOM where its name ends in .dcm."""

    like: Picture

    @property
    def to_dicom(self) -> bool:
        return self.path.suffix.lower() == ".dcm"

    @property
    def lossy(self) -> bool:
        return self.path.suffix.lower() in (".jpg", ".jpeg")

    def check(self) -> None:
        if not self.to_dicom:
            picture.check_output_name(self.path, self.like)
            if self.path.suffix.lower() not in (".jpg", ".jpeg"):
                require("pictures")
        elif not is_dicom(self.like.path):
            raise UsageError(f"{self.path}: only a DICOM image gives a DICOM image; let the name end in .png or .tif")
        if self.choices.transform is not None:
            check_identity(read_header(self.like.path), "the image")
        check_output(self.path, self.force)

    def write(self, values: NDArray[np.floating], text: Derivation, label: str) -> Written:
        """Write `values` [C, H, W] in the units of `like`; DICOM is described by `text`, other formats by `label`."""
        if self.to_dicom:
            return radiograph_write.write(self.path, values, self.like, text, self.choices, self.force)
        return picture.write(self.path, values, self.like, label, self.force)
