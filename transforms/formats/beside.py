"""The JSON file beside a scan: a BIDS sidecar, or one that states the acquisition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brgm_med.files import read_json
from brgm_med.transforms.formats import stem


def metadata_beside(scan: Path) -> dict[str, Any]:
    """The content of the JSON file beside a scan, empty where there is none. Raises InputRefusedError for a damaged
    one."""
    sidecar = sidecar_of(scan, stem(scan))
    return read_json(sidecar) if sidecar.is_file() else {}


def sidecar_of(path: Path, stem: str) -> Path:
    """The JSON file beside a scan: same name, `.json`."""
    return path.with_name(f"{stem}.json")
