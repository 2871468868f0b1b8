"""The step `reconstruct`: super-resolution or inpainting of a scan, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brgm_med.errors import UsageError
from brgm_med.pipelines.results.certificate import Task
from brgm_med.transforms.formats import stem


def reconstruct(
    scan: Path,
    folder: Path,
    *,
    task: Task = "sr",
    mask: Path | None = None,
    name: str | None = None,
    force: bool = False,
    **options: Any,
) -> tuple[Path, Path]:
    """`steps.super_resolve` or `steps.inpaint` of `scan` into `folder`, as `name` (default: the scan's, and the task)
    and .nii.gz, with its map and certificate; returns the paths of result and certificate. `options` are theirs."""
    out = folder / f"{name or f'{stem(scan)}_{task}'}.nii.gz"
    if task == "sr":
        from brgm_med.pipelines.steps import super_resolve

        super_resolve(scan, out, force=force, **options)
    else:
        from brgm_med.pipelines.steps.inpaint import inpaint

        if mask is None:
            raise UsageError(f"{scan}: to inpaint it, a mask is needed")
        inpaint(scan, mask, out, force=force, **options)
    return out, folder / f"{stem(out)}_certificate.json"
