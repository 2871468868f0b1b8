"""Small BIDS data sets of heads that belong to nobody."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tests.small_heads import small_head, truncated


def bids_study(root: Path, subjects: int = 3, bad: Sequence[int] = (2,)) -> Path:
    """sub-01, sub-02, ... with a scan of 4 x 4 x 8 mm each; those in `bad` are truncated."""
    root.mkdir(parents=True)
    description = {"Name": "heads of nobody", "BIDSVersion": "1.10.0", "Authors": ["A", "B"]}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README").write_text("Heads made of a template. They belong to nobody, and are here for tests only.\n")
    (root / "T1w.json").write_text(json.dumps({"SliceThickness": 8.0}))
    for i in range(1, subjects + 1):
        scan = small_head(root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz", seed=i, thick=True)
        if i in bad:
            truncated(scan)
    return root


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` and below, hidden and unfinished ones too, by relative name."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
