"""Public names of a package that are imported on first use, so that importing the package itself costs nothing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` (PEP 562) of the module `package`.

    Its public names are those that its source imports under `if TYPE_CHECKING`, for type checkers and editors: one
    table for them and for the interpreter.
    """
    module = sys.modules[package]
    blocks = [
        node for node in ast.parse(Path(str(module.__file__)).read_text("utf-8")).body if isinstance(node, ast.If)
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname or alias.name: (str(node.module), alias.name) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, attribute = homes[name]
        return getattr(import_module(home), attribute)

    return sorted(homes), get, lambda: sorted({*vars(module), *homes})
