"""The file formats of scans: one module each, with `read`, `check` and `write`. No torch in here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.transforms.formats import nifti
from brgm_med.transforms.formats.atomic import check_new_folder, check_output, new_folder, replacing

FORMATS: dict[str, ModuleType] = {".nii": nifti, ".nii.gz": nifti}
"""The end of a file's name -> the module that reads and writes it."""

__all__ = [
    "FORMATS",
    "check_new_folder",
    "check_output",
    "for_reading",
    "for_writing",
    "new_folder",
    "replacing",
    "stem",
]


def _suffix(path: Path) -> str | None:
    return next((s for s in sorted(FORMATS, key=len, reverse=True) if path.name.lower().endswith(s)), None)


def for_reading(path: Path | str) -> ModuleType:
    """The module that reads `path`. Raises InputRefusedError for a name that no format claims."""
    suffix = _suffix(Path(path))
    if suffix is None:
        if not Path(path).exists():
            raise InputRefusedError(f"{path}: no such file; check the name")
        raise InputRefusedError(f"{path}: is not named like a scan ({', '.join(FORMATS)}); convert it")
    return FORMATS[suffix]


def for_writing(path: Path | str) -> ModuleType:
    """The module that writes `path`. Raises UsageError for a name that no format claims."""
    suffix = _suffix(Path(path))
    if suffix is None:
        raise UsageError(f"{path}: the output's name must end in {' or '.join(FORMATS)}")
    return FORMATS[suffix]


def stem(path: Path | str) -> str:
    """The name of `path` without its folder and its format's suffix: "a/scan.nii.gz" -> "scan"."""
    name = Path(path).name
    return name[: len(name) - len(_suffix(Path(path)) or "")]
