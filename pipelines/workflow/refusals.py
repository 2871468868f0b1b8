"""A scan that was refused: a small JSON file that stands in for every later result of it, so that the others go on."""

from __future__ import annotations

import json
from pathlib import Path

from brgm_med.files import write_json
from brgm_med.pipelines.console import shown
from brgm_med.transforms.formats import stem

ENDING = "_refused.json"


def is_refusal(path: Path | str) -> bool:
    """True where the file at `path` stands in for a scan that was refused."""
    return Path(path).name.endswith(ENDING)


def write_refusal(folder: Path, scan: Path, step: str, error: Exception) -> Path:
    """Note in `folder` why `step` refused `scan`; the reason names files without their folders."""
    out = folder / f"{stem(scan)[:60]}{ENDING}"  # the name may be as long as names can be
    reason = shown(error)
    for part in sorted({folder, folder.resolve(), scan.parent, scan.parent.resolve()}, key=lambda p: -len(str(p))):
        reason = reason.replace(f"{part}/", "")
    write_json(out, {"scan": scan.name, "step": step, "reason": reason}, True, [scan] if scan.exists() else [])
    return out


def reason_of(refusal: Path) -> str:
    """Why, in one line."""
    return str(json.loads(refusal.read_text())["reason"])
