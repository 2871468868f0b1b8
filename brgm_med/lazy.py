"""Public names of a package that are imported on first use, so that importing the package itself costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, imports: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` (PEP 562) of the module `package`.

    `imports` reads as import statements do, from a module below `package` to names: {"solvers": "Estimate, fit_map",
    "priors.bundle": "load as load_prior"}. A package that uses this states the same imports under TYPE_CHECKING, for
    type checkers and editors.
    """
    homes = {}
    for module, names in imports.items():
        for name in names.split(", "):
            attribute, _, alias = name.partition(" as ")
            homes[alias or attribute] = module, attribute

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes[name]
        return getattr(import_module(f"{package}.{module}"), attribute)

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return sorted(homes), get, listed
