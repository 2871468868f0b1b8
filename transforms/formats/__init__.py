"""The file formats of scans: one module each, with its `KIND`, `read` and, where it can, `write`. No torch in here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.transforms.formats import dicom, nifti, picture, radiograph
from brgm_med.transforms.formats.dicom.archive import is_zip
from brgm_med.transforms.formats.dicom.file import is_dicom
from brgm_med.transforms.formats.picture import default_output

Kind = Literal["volume", "picture"]

FORMATS: dict[str, ModuleType] = {
    ".nii": nifti,
    ".nii.gz": nifti,
    ".png": picture,
    ".jpg": picture,
    ".jpeg": picture,
    ".tif": picture,
    ".tiff": picture,
    ".dcm": radiograph,
}
"""The end of a file's name -> the module that reads and writes it. DICOM is a volume or a picture by content."""

__all__ = [
    "FORMATS",
    "Kind",
    "default_output",
    "endings",
    "for_reading",
    "for_writing",
    "kind_of",
    "pictures_in",
    "stem",
]


def endings(kind: Kind) -> tuple[str, ...]:
    """How the names of volumes or of pictures end."""
    return tuple(suffix for suffix, module in FORMATS.items() if kind == module.KIND)


def _suffix(path: Path) -> str | None:
    return next((s for s in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(s)), None)


def _module(path: Path) -> Any:
    suffix = _suffix(path)
    if suffix not in (None, ".dcm"):
        return FORMATS[suffix]
    if path.is_dir() or is_zip(path) or is_dicom(path):
        return dicom.Reader() if dicom.is_volume(path) else radiograph
    if suffix is not None:
        return FORMATS[suffix]
    if not path.exists():
        raise InputRefusedError(f"{path}: no such file; check the name")
    raise InputRefusedError(f"{path}: is not named like a scan ({', '.join(FORMATS)}); convert it")


def kind_of(path: Path | str) -> Kind:
    """Whether `path` is a volume or a picture, by its name; DICOM, and where no format claims the name, by its content.

    A folder is a volume where it holds slices in DICOM, else one of pictures. Raises InputRefusedError where neither
    tells.
    """
    kind: Kind = _module(Path(path)).KIND
    return kind


def for_reading(path: Path | str, kind: Kind = "volume", series: str | None = None) -> Any:
    """What reads `path`: a module, or for DICOM volumes a `dicom.Reader` of `series` (see `dicom.series.the_series`).

    Raises InputRefusedError for a file of the other kind, and as `kind_of` does; UsageError for `series` of no DICOM.
    """
    path = Path(path)
    reader = dicom.Reader() if kind == "volume" and path.is_dir() else _module(path)
    if kind != reader.KIND:
        raise InputRefusedError(f"{path}: is a {reader.KIND}, not a {kind}; give a {kind} ({', '.join(endings(kind))})")
    if isinstance(reader, dicom.Reader):
        return dicom.Reader(series)
    if series is not None:
        raise UsageError(f"--series: is for DICOM; {path} holds one {reader.KIND}; leave it out")
    return reader


def for_writing(path: Path | str, kind: Kind = "volume") -> Any:
    """The module that writes `path`. Raises UsageError for a name that no format of that kind claims for writing."""
    writers = {s: FORMATS[s] for s in endings(kind) if hasattr(FORMATS[s], "write")}
    suffix = _suffix(Path(path))
    if suffix not in writers:
        raise UsageError(f"{path}: the output's name must end in {' or '.join(writers)}")
    return writers[suffix]


def pictures_in(folder: Path | str) -> list[Path]:
    """The pictures in `folder` and below, hidden ones aside, by name and then by place.

    Raises InputRefusedError where there are none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputRefusedError(f"{folder}: is not a folder; give a folder of pictures")
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    claimed = endings("picture")
    found = [p for p in files if _suffix(p) in claimed or (_suffix(p) is None and is_dicom(p))]
    if not found:
        raise InputRefusedError(f"{folder}: holds no picture ({', '.join(claimed)}); give a folder of pictures")
    return sorted(found, key=lambda p: (p.name, p.as_posix()))


def stem(path: Path | str) -> str:
    """The name of `path` without its folder and its format's suffix: "a/scan.nii.gz" -> "scan"."""
    name = Path(path).name
    suffix = ".zip" if is_zip(Path(path)) else _suffix(Path(path))
    return name[: len(name) - len(suffix or "")]
