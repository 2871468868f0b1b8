"""Optional packages: which extra of this package brings them, and for what they are needed.

`pip install 'brgm-med[dicom]'` installs an extra. Whatever needs one calls `require` before it begins, so that a
missing package is one line and not a traceback after a minute's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from brgm_med.errors import BrgmError


class MissingPackageError(BrgmError):
    """An optional package is needed and not installed."""


@dataclass(frozen=True)
class Extra:
    """An extra: what it is for, and its packages by the module that each one is imported as."""

    purpose: str
    packages: dict[str, str]


EXTRAS = {
    "dicom": Extra(
        "DICOM out (the map of what was measured), compressed DICOM in, segmentations, --deidentify",
        {"highdicom": "highdicom", "gdcm": "python-gdcm", "dicomanonymizer": "dicom-anonymizer"},
    ),
    "pacs": Extra("send, to an archive", {"pynetdicom": "pynetdicom", "dicomweb_client": "dicomweb-client"}),
    "pictures": Extra("PNG and TIFF", {"imagecodecs": "imagecodecs", "tifffile": "tifffile"}),
    "train": Extra(
        "train, whose curves TensorBoard draws, and MONAI's own command on a prior",
        {"tensorboard": "tensorboard", "fire": "fire"},
    ),
    "report": Extra("pages of results", {"jinja2": "jinja2"}),
    "evaluate": Extra(
        "the baselines and figures of evaluate",
        {
            "deepinv": "deepinv",
            "skimage": "scikit-image",
            "cv2": "opencv-python-headless",
            "matplotlib": "matplotlib",
            "psutil": "psutil",
        },
    ),
}
"""By name, as in pyproject.toml."""


@cache
def installed(module: str) -> bool:
    """True where the module's package is installed; nothing is imported."""
    return find_spec(module) is not None


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for module, package in EXTRAS[extra].packages.items() if not installed(module)]


def require(extra: str, *modules: str) -> None:
    """Raise MissingPackageError unless the `modules` of an extra (all by default) are installed."""
    one = EXTRAS[extra]
    absent = [one.packages[module] for module in modules or one.packages if not installed(module)]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        names = " and ".join(absent)
        raise MissingPackageError(
            f"{names} {verb} not installed, needed for {one.purpose}; pip install 'brgm-med[{extra}]'"
        )
