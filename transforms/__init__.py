"""Scans as MONAI transforms. Names are imported on first use, so that a refusal need not wait for torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers: what __getattr__ imports
    from brgm_med.transforms.frame import Frame
    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.intensity import NormaliseIntensity, NormaliseIntensityd
    from brgm_med.transforms.load import LoadScan, LoadScand
    from brgm_med.transforms.rigid import RegisterRigid, RegisterRigidd
    from brgm_med.transforms.save import SaveScan, SaveScand
    from brgm_med.transforms.slices import CoronalSlices, CoronalSlicesd

_NAMES = {
    "frame": ("Frame",),
    "geometry": ("Grid",),
    "intensity": ("NormaliseIntensity", "NormaliseIntensityd"),
    "load": ("LoadScan", "LoadScand"),
    "rigid": ("RegisterRigid", "RegisterRigidd"),
    "save": ("SaveScan", "SaveScand"),
    "slices": ("CoronalSlices", "CoronalSlicesd"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["CoronalSlices", "CoronalSlicesd", "Frame", "Grid", "LoadScan", "LoadScand", "NormaliseIntensity"]
__all__ += ["NormaliseIntensityd", "RegisterRigid", "RegisterRigidd", "SaveScan", "SaveScand"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
