"""Volumes of DICOM slices: a folder, a DICOMDIR, a zip or a file in, ordered voxels and a RAS affine out.

Stored integers -> modality values by each slice's rescale (PS3.3 C.11.1, C.7.6.16.2.9). As in `radiograph`, windows are
not applied, and MONOCHROME1 is turned within the range that Bits Stored declares.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, UsageError, refuse
from brgm_med.transforms.formats.dicom.archive import is_directory, named_by_zip
from brgm_med.transforms.formats.dicom.classic import rescale
from brgm_med.transforms.formats.dicom.file import (
    check_integers,
    is_dicom,
    is_slice,
    read_header,
    read_whole,
    stored_pixels,
    strict,
)
from brgm_med.transforms.formats.dicom.series import Series, the_series
from brgm_med.transforms.formats.header import Header, Volume
from brgm_med.transforms.formats.visible import visible_files
from brgm_med.transforms.formats.zipped import is_zip

if TYPE_CHECKING:
    from pydicom import Dataset

FORM = "DICOM"
"""`Header.form` of DICOM."""


@dataclass(frozen=True)
class Reader:
    """The format of the DICOM volume called `choice`, of files that may be missing or not (see `the_series`)."""

    choice: str | None = None
    allow_missing_files: bool = False
    KIND: ClassVar[Literal["volume"]] = "volume"
    ENDINGS: ClassVar[tuple[str, ...]] = ()

    def read(self, path: Path | str, affine: str = "auto") -> Volume:
        """Read one volume, refusing what could be misunderstood.

        Raises InputRefusedError as `the_series` does; for pixels that are missing, truncated, damaged, in colour, not
        integers, compressed in an unknown way or beyond the bits that they declare; and for voxels that are all equal
        or beyond float32. Raises UsageError where `affine` chooses between a NIfTI file's.
        """
        return Volume.of(*self.read_stored(path, affine))

    def read_stored(self, path: Path | str, affine: str = "auto") -> tuple[Header, NDArray[np.generic]]:
        """The header and the stored voxels [columns, rows, slices]: integers, or floats where slices are rescaled
        differently.
        """
        if affine not in ("auto", FORM):
            raise UsageError(f"--affine {affine}: is for NIfTI, and {path} is DICOM; leave it out")
        return _read(Path(path), the_series(path, self.choice, self.allow_missing_files))

    def read_header(self, path: Path | str, affine: str = "auto") -> Header:
        return self.read_stored(path, affine)[0]


def is_volume(path: Path) -> bool:
    """True where `path` is a slice, a zip, a DICOMDIR, or a folder that holds a slice.

    Raises InputRefusedError for a damaged file; those in a folder are passed over.
    """
    if is_zip(path):
        return True
    if not path.is_dir():
        return is_directory(path) or _is_slice(path)
    for file in visible_files(path):
        if file.is_file() and is_dicom(file):
            with suppress(InputRefusedError):
                if _is_slice(file):
                    return True
    return False


def _is_slice(file: Path) -> bool:
    return is_slice(read_header(file, ["SOPClassUID", "ImagePositionPatient"], with_pixels=False))


def _read(path: Path, series: Series) -> tuple[Header, NDArray[np.generic]]:
    planes: list[NDArray[Any]] = []
    scales: list[tuple[float, float]] = []
    frames = [series.frames] if series.enhanced else [(frame,) for frame in series.frames]
    with named_by_zip():
        for file, header, wanted in zip(series.files, series.headers, frames, strict=True):
            with strict(file):
                pixels = _pixels(file)
                if pixels.shape[1:] != series.shape[1::-1] or len(pixels) <= max(wanted):
                    refuse(file, "holds other pixels than its header declares", "export it again")
                planes += [pixels[frame] for frame in wanted]
                scales += [_rescale(file, header, frame) for frame in wanted]
    slope, inter = scales[0]
    if len(set(scales)) > 1 or len({p.dtype for p in planes}) > 1:
        planes = [(p * s + i).astype(np.float32) for p, (s, i) in zip(planes, scales, strict=True)]
        slope, inter = 1.0, 0.0
    if any(header.get("RescaleSlope", 1) is None for header in series.headers):
        clause = "the Rescale Slope in some of its headers is empty; taken as 1"
        series = replace(series, tolerated=(*series.tolerated, clause))
    stored = np.stack(planes).transpose(2, 1, 0)
    return Header(path, series.shape, series.affine, FORM, stored.dtype, slope, inter, series=series), stored


def _pixels(file: Path) -> NDArray[Any]:
    """The integers of one file, [frames, rows, columns], bright where it is shown bright (PS3.3 C.7.6.3.1.2)."""
    image = read_whole(file)
    if "PixelData" not in image:
        refuse(file, "holds no integers as pixels", "export it again")
    low, high = check_integers(file, image, (8, 16, 32))
    if image.get("ModalityLUTSequence"):
        refuse(file, "has a modality look-up table", "export it with a rescale slope and intercept")
    pixels = stored_pixels(file, image).reshape(-1, int(image.Rows), int(image.Columns))
    turned = image.PhotometricInterpretation == "MONOCHROME1"
    dtype = f"{'i' if image.PixelRepresentation else 'u'}{int(image.BitsAllocated) // 8}"
    return (low + high - pixels.astype(np.int64) if turned else pixels).astype(dtype)


def _rescale(file: Path, header: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept of one slice, checked."""
    slope, intercept = rescale(header, frame)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        refuse(file, f"is rescaled by {slope:g} and {intercept:g}", "correct its header")
    return slope, intercept
