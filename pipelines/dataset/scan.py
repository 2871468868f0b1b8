"""A scan of a study, its derivative, and the reason why it cannot be worked on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.dataset.names import LONGEST_NAME

ONE_MASK = "one mask of its hole is needed"


@dataclass(frozen=True)
class Scan:
    """A scan to work on. `path` is where it is, `series` which of several DICOM volumes, `metadata` its JSON files'
    content. `further` are scans that go into its result, with such content each. Its derivative is `destination`, a
    name in the output folder without an ending, and `sidecar` what the JSON file beside that says. `group` are the
    scans of one subject. `problem` says why it cannot be worked on; if it is that no mask says where its hole is, there
    is nothing to be done, and it is `skipped`."""

    path: Path
    destination: str
    group: str
    sidecar: dict[str, Any]
    series: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    mask: Path | None = None
    problem: str | None = None
    skipped: bool = False
    further: tuple[tuple[Path, dict[str, Any]], ...] = ()


def the_mask(root: Path, scan: Path, masks: Sequence[Path]) -> Path:
    """The only one of `masks`. Raises InputRefusedError where there are none, or several."""
    if len(masks) == 1:
        return masks[0]
    names = ", ".join(m.relative_to(root).as_posix() for m in masks) or "none"
    raise InputRefusedError(f"{scan.name}: {ONE_MASK}, found: {names}; see --mask-pattern")


def each_once(scans: Sequence[Scan]) -> list[Scan]:
    """The scans; those that would have one derivative (.nii and .nii.gz of one name) are a problem: which is meant?

    So is a name that is too long for what is to be written.
    """
    names = Counter(scan.destination for scan in scans)
    text = "another scan has this name too, with another ending; rename one"
    long = f"its derivative's name would be longer than {LONGEST_NAME} bytes; rename it"
    checked = []
    for scan in scans:
        problem = long if len(os.fsencode(scan.destination.rsplit("/", 1)[-1])) > LONGEST_NAME else None
        problem = problem if names[scan.destination] == 1 else text
        checked.append(scan if problem is None else replace(scan, problem=f"{scan.path.name}: {problem}"))
    return checked
