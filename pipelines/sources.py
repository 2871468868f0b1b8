"""What a volume was read from: where its result goes, what its header states, and what its certificate says of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.transforms.formats import stem

if TYPE_CHECKING:
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.dicom_series import Series
    from brgm_med.transforms.formats.nifti_header import NiftiHeader
    from brgm_med.transforms.geometry import Grid


def default_result(scan: Path, ending: str = ".nii.gz") -> Path:
    """Beside the scan, its name + `_brgm` + `ending`; beside the folder of a DICOMDIR."""
    place = scan.resolve().parent if scan.name.upper() == "DICOMDIR" else scan
    place = Path(os.path.abspath(place))  # "." has no name
    return place.with_name(f"{stem(place)}_brgm{ending}")


def series_of(header: NiftiHeader) -> Series | None:
    """The DICOM series that a scan was read from; None for NIfTI."""
    return getattr(header, "series", None)


def stated_by(series: Series | None, grid: Grid) -> AcquisitionModel | None:
    """A box profile as wide as DICOM's Slice Thickness (PS3.3 C.7.6.2.1.1), where it is stated, across the slices."""
    from brgm_med.transforms.acquire import AcquisitionModel

    if series is None or series.thickness is None or not series.thickness > 0:
        return None
    return AcquisitionModel((*grid.spacing[:2], series.thickness), "box", 2, True)


def source_record(scan: Path, header: NiftiHeader) -> dict[str, Any]:
    """For the certificate: the file or folder, a hash of what was read, and where the affine comes from.

    Of DICOM the hash is that of the slices' hashes (binary SHA-256), in the order of slices; no element that names a
    person, and no UID, is told.
    """
    series = series_of(header)
    if series is None:
        return {"file": scan.name, "sha256": _digest(scan), "affine": header.form}
    return {
        "file": scan.name,
        "sha256": _together(series.files),
        "affine": header.form,
        "dicom_files": len(series.files),
    }


def result_record(out: Path) -> dict[str, Any]:
    """For the certificate: the file or folder, and the hash that `source_record` would give it as a source."""
    if not out.is_dir():
        return {"file": out.name, "sha256": _digest(out)}
    files = sorted(out.iterdir())
    return {"file": out.name, "sha256": _together(files), "dicom_files": len(files)}


def _together(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(_digest(file)) for file in files)).hexdigest()


def _digest(file: Path) -> str:
    from brgm_med.files import digest

    return digest(file)
