"""`brgm-med series`: the DICOM volumes at a path, and why one cannot be used. No one's name is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats.dicom.archive import named_by_zip
from brgm_med.transforms.formats.dicom.elements import whole
from brgm_med.transforms.formats.dicom.passed import said
from brgm_med.transforms.formats.dicom.series import find_series

if TYPE_CHECKING:
    from brgm_med.transforms.formats.dicom.stack import Stack

UPRIGHT = 0.999
"""A slice normal whose largest cosine is below this is oblique."""


def list_series(path: Path, as_json: bool = False) -> None:
    """Print the volumes at `path`: a table, or JSON. Raises InputRefusedError where nothing there is DICOM."""
    files = find_series(path)
    with named_by_zip():
        volumes = [describe(stack, path) for stack in files.stacks]
    if as_json:
        content = {
            "volumes": volumes,
            "dicom_files_without_a_place": files.others,
            "files_not_dicom": files.skipped,
            "files_passed_over": [vars(one) for one in files.no_dicom],
        }
        print(json.dumps(content, indent=2))
        return
    rows: list[tuple[str, ...]] = [("series", "modality", "description", "voxels", "mm", "slices are", "")]
    for v in volumes:
        size = " x ".join(str(n) for n in v["shape"])
        spacing = " x ".join(f"{s:.3g}" for s in v["spacing"] or ())
        note = (
            f"cannot be used: {v['problem']}" if v["problem"] else "; ".join(filter(None, (v["part"], *v["tolerated"])))
        )
        cells = (v["series"], v["modality"], v["description"], size, spacing, v["orientation"] or "", note)
        rows.append(tuple(printable(cell) for cell in cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] + [0]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if files.others or files.no_dicom:
        print(f"Beside these: {files.others} DICOM files that are no slices, {files.skipped} files that are no DICOM.")
    if files.no_dicom:
        print(printable(said(files.no_dicom)) + ".")
    if any(one.missing for one in files.no_dicom):
        print("A part of a volume may be missing: read only with --allow-missing-files.")


def printable(text: str) -> str:
    """A text without what moves the cursor."""
    return "".join(c for c in text if c.isprintable())


def describe(stack: Stack, source: Path) -> dict[str, Any]:
    """Description of a volume. `series` is what `--series` takes; `problem` is None where its geometry is one, and
    `tolerated` then says what in its headers was passed over."""
    header, spacing, problem = stack.header, None, None
    tolerated: tuple[str, ...] = ()
    try:
        placement = stack.placed()
        spacing = [round(float(s), 6) for s in np.linalg.norm(placement.affine[:3, :3], axis=0)]
        tolerated = placement.tolerated
    except InputRefusedError as error:
        problem = str(error).removeprefix(f"{source if source.is_dir() else source.parent}/")
    return {
        "series": stack.name,
        "uid": str(header.get("SeriesInstanceUID", "")),
        "number": whole(header.get("SeriesNumber")),
        "modality": str(header.get("Modality") or ""),
        "description": str(header.get("SeriesDescription") or ""),
        "part": stack.part,
        "shape": [whole(header.get(k)) or 0 for k in ("Columns", "Rows")] + [len(stack.slices)],
        "spacing": spacing,
        "orientation": _orientation(stack),
        "files": len({s.file for s in stack.slices}),
        "problem": problem,
        "tolerated": list(tolerated),
    }


def _orientation(stack: Stack) -> str | None:
    first = stack.slices[0]
    if first.directions is None:
        return None
    normal = np.abs(first.normal)
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    return name if normal.max() >= UPRIGHT else f"oblique {name}"
