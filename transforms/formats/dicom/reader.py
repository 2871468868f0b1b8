"""Volumes of DICOM slices: a folder, a DICOMDIR, a zip or a file in, ordered voxels and a RAS affine out.

Stored integers -> modality values by each slice's rescale (PS3.3 C.11.1, C.7.6.16.2.9). As in `radiograph`, windows are
not applied, and MONOCHROME1 is turned within the range that Bits Stored declares. What comes after this module sees the
header of the NIfTI file that the volume would be, and needs to know nothing of DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, UsageError, refuse
from brgm_med.transforms.formats import nifti
from brgm_med.transforms.formats.dicom.archive import is_directory, is_zip, named_by_zip
from brgm_med.transforms.formats.dicom.file import (
    is_dicom,
    is_slice,
    read_header,
    stored_pixels,
    strict,
    transfer_syntax,
)
from brgm_med.transforms.formats.dicom.series import Series, the_series
from brgm_med.transforms.formats.nifti_affine import Affine
from brgm_med.transforms.formats.nifti_header import NiftiHeader

if TYPE_CHECKING:
    from pydicom import Dataset

KIND = "volume"
FORM = "DICOM"
"""What stands where a NIfTI scan says sform or qform."""


@dataclass(frozen=True, eq=False)
class DicomHeader(NiftiHeader):
    """The header of the NIfTI file that the volume would be, with the stored voxels' type and rescale, and its source.

    `path` is what was given: a file, a folder, a DICOMDIR or a zip.
    """

    series: Series


@dataclass(frozen=True, eq=False)
class DicomScan:
    """A volume: `array` [columns, rows, slices] float32, modality values; `affine` [4, 4], index -> world RAS mm."""

    array: NDArray[np.float32]
    affine: Affine
    header: DicomHeader


@dataclass(frozen=True)
class Reader:
    """What the module of a format offers, for the DICOM volume called `choice` (see `the_series`)."""

    choice: str | None = None
    KIND = KIND

    def read(self, path: Path | str, affine: str = "auto") -> DicomScan:
        """Read one volume, refusing what could be misunderstood.

        Raises InputRefusedError as `the_series` does; for pixels that are missing, truncated, damaged, in colour, not
        integers, compressed in an unknown way or beyond the bits that they declare; and for voxels that are all equal
        or beyond float32. Raises UsageError where `affine` chooses between a NIfTI file's.
        """
        path = Path(path)
        header, stored = self.read_stored(path, affine)
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(nifti.decode(header, stored), np.float32)
        if not np.isfinite(array).all():
            refuse(path, "has voxels beyond float32", "correct its rescale")
        if array.min() == array.max():
            refuse(path, f"all its voxels are {array.flat[0]:g}", "give an image that is not constant")
        return DicomScan(array, header.affine, header)

    def read_stored(self, path: Path | str, affine: str = "auto") -> tuple[DicomHeader, NDArray[np.generic]]:
        """The header and the stored voxels [columns, rows, slices]: integers, or floats where slices are rescaled
        differently.
        """
        if affine not in ("auto", FORM):
            raise UsageError(f"--affine {affine}: is for NIfTI, and {path} is DICOM; leave it out")
        return _read(Path(path), the_series(path, self.choice))

    def read_header(self, path: Path | str, affine: str = "auto") -> DicomHeader:
        return self.read_stored(path, affine)[0]

    def check(self, path: Path | str, affine: str = "auto") -> DicomHeader:
        """Refuse what `read` would refuse."""
        return self.read(path, affine).header


def is_volume(path: Path) -> bool:
    """Whether `path` is a slice, a zip, a DICOMDIR, or a folder that holds a slice.

    Raises InputRefusedError for a damaged file; those in a folder are passed over.
    """
    if is_zip(path):
        return True
    if not path.is_dir():
        return is_directory(path) or _is_slice(path)
    for file in sorted(path.rglob("*")):
        if file.is_file() and is_dicom(file):
            try:
                if _is_slice(file):
                    return True
            except InputRefusedError:
                continue
    return False


def _is_slice(file: Path) -> bool:
    return is_slice(read_header(file, ["SOPClassUID", "ImagePositionPatient"], with_pixels=False))


def _read(path: Path, series: Series) -> tuple[DicomHeader, NDArray[np.generic]]:
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
    stored = np.stack(planes).transpose(2, 1, 0)
    record = nifti.make_record(series.shape, series.affine, stored.dtype, None, None)
    record["scl_slope"], record["scl_inter"] = slope, inter
    offset, affine = int(record["vox_offset"]), series.affine
    return (
        DicomHeader(path, 1, record, series.shape, stored.dtype, offset, slope, inter, affine, FORM, True, series),
        stored,
    )


def _pixels(file: Path) -> NDArray[Any]:
    """The integers of one file, [frames, rows, columns], bright where it is shown bright (PS3.3 C.7.6.3.1.2)."""
    from pydicom import dcmread

    syntax = transfer_syntax(file)
    image = dcmread(file)
    if "PixelData" not in image:
        refuse(file, "holds no integers as pixels", "export it again")
    low, high, dtype = _levels(file, image)
    pixels = stored_pixels(file, syntax, image).reshape(-1, int(image.Rows), int(image.Columns))
    if pixels.min() < low or pixels.max() > high:
        refuse(file, f"has pixels beyond the {image.BitsStored} bits that it declares", "correct its header")
    turned = image.PhotometricInterpretation == "MONOCHROME1"
    return (low + high - pixels.astype(np.int64) if turned else pixels).astype(dtype)


def _levels(file: Path, image: Dataset) -> tuple[int, int, np.dtype]:
    """The lowest and the highest integer that the pixels may be, and their type (PS3.3 C.7.6.3)."""
    photometric = str(image.PhotometricInterpretation)
    if int(image.SamplesPerPixel) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        refuse(file, f"is not grey ({photometric})", "give slices in MONOCHROME1 or MONOCHROME2")
    allocated, stored, top = int(image.BitsAllocated), int(image.BitsStored), int(image.HighBit)
    if allocated not in (8, 16, 32) or not 1 < stored <= allocated or top != stored - 1:
        what = f"has {stored} bits stored in {allocated}, the highest of them bit {top}"
        refuse(file, what, "give slices of 2 to 32 bits, the lowest of 8, 16 or 32")
    if image.get("ModalityLUTSequence"):
        refuse(file, "has a modality look-up table", "export it with a rescale slope and intercept")
    signed = bool(image.PixelRepresentation)
    low = -(1 << stored - 1) if signed else 0
    return low, low + (1 << stored) - 1, np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")


def _rescale(file: Path, header: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept of one slice."""
    place = header
    if "SharedFunctionalGroupsSequence" in header:
        groups = header.PerFrameFunctionalGroupsSequence[frame], header.SharedFunctionalGroupsSequence[0]
        found = (g.PixelValueTransformationSequence[0] for g in groups if g.get("PixelValueTransformationSequence"))
        place = next(found, header)
    slope, intercept = (float(place.get(k, d)) for k, d in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        refuse(file, f"is rescaled by {slope:g} and {intercept:g}", "correct its header")
    return slope, intercept
