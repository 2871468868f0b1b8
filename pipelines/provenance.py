"""What every result says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.transforms.formats import replacing

STATEMENT = "Derived image: part measured, part inferred by a statistical model. For research, not for diagnosis."


def description(prior: str) -> str:
    """For the 79 bytes of a NIfTI header."""
    return f"brgm-med {__version__} {prior}: DERIVED, research only, not for diagnosis"[:79]


def sidecar_of(path: Path, stem: str) -> Path:
    """The JSON file beside a scan: same name, `.json`."""
    return path.with_name(f"{stem}.json")


def write_json(path: Path, content: dict[str, Any], force: bool) -> None:
    """Atomically; raises as `replacing` does."""
    with replacing(path, force) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def ranges(indices: list[int]) -> list[list[int]]:
    """Sorted indices as [first, last] runs."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return runs
