"""Filters of scans by the entities of their names, in a JSON file as fMRIPrep's `--bids-filter-file` takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import UsageError
from brgm_med.files import read_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.dataset.names import entities

SHORT = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "ceagent": "ce",
    "tracer": "trc",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "echo": "echo",
    "flip": "flip",
    "inv": "inv",
    "mt": "mt",
    "part": "part",
    "processing": "proc",
    "space": "space",
    "split": "split",
    "chunk": "chunk",
    "suffix": "suffix",
    "datatype": "datatype",
    "extension": "extension",
}
"""Entities by the names of PyBIDS, and as file names have them."""

ABSENT, PRESENT = (None, "Query.NONE"), ("*", "Query.ANY")
"""Values that mean: has no such entity; has one, whichever."""

Filters = Mapping[str, Mapping[str, Any]]
"""Of each suffix, in lower case, the values of entities that its scans must have."""


def read_filters(path: Path, suffixes: Sequence[str]) -> Filters:
    """The filters in a JSON file: {"t2w": {"acquisition": "axial", "run": [1, 2], "ceagent": null}}.

    A value is a label, a list of such, null (without this entity) or "*" (with it). Entities are named as PyBIDS does,
    or as file names do. Entries for other images than `suffixes` (bold, say) are left out, and that is said. Raises
    UsageError for a file that says something else, InputRefusedError for one that is no readable JSON.
    """
    content = read_json(path)
    images = {suffix.lower() for suffix in suffixes}
    filters: dict[str, Mapping[str, Any]] = {}
    for suffix, wanted in content.items():
        if not isinstance(wanted, dict):
            raise UsageError(f'--bids-filter-file {path}: {suffix}: give entities: {{"acquisition": "axial"}}')
        if suffix.lower() not in images:
            say(f"{path.name}: {suffix}: no such images are taken, so its entry is left out")
            continue
        named: dict[str, Any] = {}
        for name, value in wanted.items():
            entity = SHORT.get(str(name), str(name))
            if entity not in SHORT.values():
                known = ", ".join(SHORT)
                raise UsageError(f"--bids-filter-file {path}: {suffix}: {name} is no entity; take one of {known}")
            if not all(one is None or isinstance(one, str | int) for one in several(value)):
                raise UsageError(
                    f"--bids-filter-file {path}: {suffix}: {name}: give a label, a list of them, null or *"
                )
            named[entity] = value
        filters[suffix.lower()] = named
    return filters


def passes(file: Path, filters: Filters) -> bool:
    """True if the name of a BIDS image has what the filter of its suffix wants; without one it passes."""
    pairs = entities(file.name) or {}
    pairs |= {"datatype": "anat", "extension": ".nii.gz" if file.name.endswith(".gz") else ".nii"}
    wanted = filters.get(pairs.get("suffix", "").lower(), {})
    return all(any(fits(pairs.get(name), one) for one in several(value)) for name, value in wanted.items())


def fits(label: str | None, wanted: str | int | None) -> bool:
    """True if an entity's label (None: it is not there) is the one that is wanted; numbers count as such: 1 is 01."""
    if label is None or wanted in ABSENT:
        return label is None and wanted in ABSENT
    if isinstance(wanted, int):
        return label.isdecimal() and int(label) == wanted
    return wanted in PRESENT or label == wanted


def several(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
