"""The file formats of scans, as `format` describes them. No torch in here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, UsageError, refuse
from brgm_med.transforms.formats import dicom, nifti, picture, radiograph
from brgm_med.transforms.formats.absent import refuse_absent
from brgm_med.transforms.formats.dicom import segmentation
from brgm_med.transforms.formats.dicom.file import is_dicom
from brgm_med.transforms.formats.format import Kind, PictureFormat, VolumeFormat, VolumeWriter
from brgm_med.transforms.formats.header import Header
from brgm_med.transforms.formats.visible import visible_files
from brgm_med.transforms.formats.zipped import is_zip

READERS: tuple[VolumeFormat | PictureFormat, ...] = (nifti, picture, radiograph)
"""The formats that are known by a name. DICOM is a volume or a picture by its content (see `_format`)."""

FORMATS = {ending: each for each in READERS for ending in each.ENDINGS}
VOLUME_WRITERS: dict[str, VolumeWriter] = dict.fromkeys(nifti.ENDINGS, nifti)


def endings(kind: Kind) -> tuple[str, ...]:
    """The endings of the names of volumes or of pictures."""
    return tuple(ending for ending, each in FORMATS.items() if kind == each.KIND)


def _ending(path: Path) -> str | None:
    return next((e for e in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(e)), None)


def _format(path: Path) -> VolumeFormat | PictureFormat:
    refuse_absent(path)
    ending = _ending(path)
    if ending is not None and ending != ".dcm":
        return FORMATS[ending]
    if path.is_dir() or is_zip(path) or is_dicom(path):
        if segmentation.is_segmentation(path):
            refuse(path, "is a segmentation, no image", "give the image, and this as its mask (inpaint --mask)")
        return dicom.Reader() if dicom.is_volume(path) else radiograph
    if ending is not None:
        return FORMATS[ending]
    if not path.exists():
        raise InputRefusedError(f"{path}: no such file; check the name")
    raise InputRefusedError(f"{path}: is not named like a scan ({', '.join(FORMATS)}); convert it")


def kind_of(path: Path | str) -> Kind:
    """Volume or picture, by the name of `path`; DICOM, and where no format claims the name, by its content.

    A folder is a volume where it holds slices in DICOM, else one of pictures. Raises InputRefusedError where neither
    tells.
    """
    return _format(Path(path)).KIND


@overload
def for_reading(
    path: Path | str, kind: Literal["volume"] = "volume", series: str | None = None, allow_missing_files: bool = False
) -> VolumeFormat: ...


@overload
def for_reading(path: Path | str, kind: Literal["picture"], series: str | None = None) -> PictureFormat: ...


def for_reading(
    path: Path | str, kind: Kind = "volume", series: str | None = None, allow_missing_files: bool = False
) -> VolumeFormat | PictureFormat:
    """The format that reads `path`; of DICOM volumes that called `series`, perhaps without some of its files (see
    `dicom.series.the_series`).

    Raises InputRefusedError for a file of the other kind, and as `kind_of` does; UsageError for `series` of no DICOM.
    """
    path = Path(path)
    reader = dicom.Reader() if kind == "volume" and path.is_dir() else _format(path)
    if kind != reader.KIND:
        raise InputRefusedError(f"{path}: is a {reader.KIND}, not a {kind}; give a {kind} ({', '.join(endings(kind))})")
    if isinstance(reader, dicom.Reader):
        return dicom.Reader(series, allow_missing_files)
    if series is not None:
        raise UsageError(f"--series: is for DICOM; {path} holds one {reader.KIND}; leave it out")
    return reader


def read_mask(path: Path | str) -> tuple[Header, NDArray[np.generic]]:
    """The header and the stored voxels [X, Y, Z] of a mask: a volume, or a DICOM segmentation.

    Raises InputRefusedError as the format's `read_stored` does.
    """
    path = Path(path)
    refuse_absent(path)
    if segmentation.is_segmentation(path):
        return segmentation.read_stored(path)
    return for_reading(path).read_stored(path, "auto")


def for_writing(path: Path | str) -> VolumeWriter:
    """The format that writes the volume `path`. Raises UsageError for a name that none claims for writing."""
    writer = VOLUME_WRITERS.get(_ending(Path(path)) or "")
    if writer is None:
        raise UsageError(f"{path}: the output's name must end in {' or '.join(VOLUME_WRITERS)}")
    return writer


def pictures_in(folder: Path | str) -> list[Path]:
    """The pictures in `folder` and below, hidden ones aside, by name and then by path.

    Raises InputRefusedError where there are none, and for one whose content is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputRefusedError(f"{folder}: is not a folder; give a folder of pictures")
    claimed = endings("picture")
    files = [p for p in visible_files(folder) if not p.is_dir()]
    pictures = [p for p in files if _ending(p) in claimed or (_ending(p) is None and p.is_file() and is_dicom(p))]
    for path in pictures:
        refuse_absent(path)
    if not pictures:
        kinds = f"no picture ({', '.join(claimed)}) and no series of DICOM"
        raise InputRefusedError(f"{folder}: holds {kinds}; give a folder of one of these, or a file")
    return sorted(pictures, key=lambda p: (p.name, p.as_posix()))


def stem(path: Path | str) -> str:
    """The name of `path` without its folder and its format's suffix: "a/scan.nii.gz" -> "scan"."""
    name = Path(path).name
    ending = ".zip" if is_zip(Path(path)) else _ending(Path(path))
    return name[: len(name) - len(ending or "")]
