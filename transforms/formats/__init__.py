"""The file formats of scans: one module each, with its `KIND`, `read` and, where it can, `write`. No torch in here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Literal

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.transforms.formats import nifti, picture, radiograph
from brgm_med.transforms.formats.atomic import check_new_folder, check_output, new_folder, replacing
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
"""The end of a file's name -> the module that reads and writes it. Other DICOM files are known by content."""

__all__ = [
    "FORMATS",
    "Kind",
    "check_new_folder",
    "check_output",
    "default_output",
    "endings",
    "for_reading",
    "for_writing",
    "kind_of",
    "new_folder",
    "pictures_in",
    "replacing",
    "stem",
]


def endings(kind: Kind) -> tuple[str, ...]:
    """How the names of volumes or of pictures end."""
    return tuple(suffix for suffix, module in FORMATS.items() if kind == module.KIND)


def _suffix(path: Path) -> str | None:
    return next((s for s in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(s)), None)


def _module(path: Path) -> ModuleType:
    suffix = _suffix(path)
    if suffix is not None:
        return FORMATS[suffix]
    if radiograph.is_dicom(path):
        return radiograph
    if not path.exists():
        raise InputRefusedError(f"{path}: no such file; check the name")
    raise InputRefusedError(f"{path}: is not named like a scan ({', '.join(FORMATS)}); convert it")


def kind_of(path: Path | str) -> Kind:
    """Whether `path` is a volume or a picture, by its name; by its content where no format claims the name.

    Raises InputRefusedError where neither tells.
    """
    kind: Kind = _module(Path(path)).KIND
    return kind


def for_reading(path: Path | str, kind: Kind = "volume") -> ModuleType:
    """The module that reads `path`. Raises InputRefusedError for a file of the other kind, and as `kind_of` does."""
    module = _module(Path(path))
    if kind != module.KIND:
        raise InputRefusedError(f"{path}: is a {module.KIND}, not a {kind}; give a {kind} ({', '.join(endings(kind))})")
    return module


def for_writing(path: Path | str, kind: Kind = "volume") -> ModuleType:
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
    found = [p for p in files if _suffix(p) in claimed or (_suffix(p) is None and radiograph.is_dicom(p))]
    if not found:
        raise InputRefusedError(f"{folder}: holds no picture ({', '.join(claimed)}); give a folder of pictures")
    return sorted(found, key=lambda p: (p.name, p.as_posix()))


def stem(path: Path | str) -> str:
    """The name of `path` without its folder and its format's suffix: "a/scan.nii.gz" -> "scan"."""
    name = Path(path).name
    return name[: len(name) - len(_suffix(Path(path)) or "")]
