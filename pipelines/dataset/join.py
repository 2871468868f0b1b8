"""Stacks of one session that go into one result: scans whose names differ in one entity alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brgm_med.errors import UsageError
from brgm_med.pipelines.console import say
from brgm_med.pipelines.dataset.names import entities

Stacks = tuple[Path, ...]
"""Scans that go into one result, which has the axes and the name of the first."""


def joined(files: Sequence[Path], values: Sequence[str]) -> list[Stacks]:
    """The files in groups: those of one folder whose names differ in one entity alone, and have one of its `values`
    there, such as ("acq-axial", "acq-sagittal"), in the order of these. Every other file is by itself.

    Says which scan has none to be joined with. Raises UsageError for values that are not of one entity.
    """
    if not values:
        return [(file,) for file in files]
    key, labels = entity_of(values)
    groups: dict[object, list[tuple[int, Path]]] = {}
    for file in files:
        pairs = entities(file.name) or {}
        label = pairs.pop(key, "")
        if label in labels:
            groups.setdefault((file.parent, *pairs.items()), []).append((labels.index(label), file))
        else:
            groups[file] = [(0, file)]
    stacks: list[Stacks] = []
    for name, members in groups.items():
        ordered = [file for _, file in sorted(members)]
        twice = len({place for place, _ in members}) < len(members)  # .nii and .nii.gz: refused by their names
        if len(members) == 1 and not isinstance(name, Path):
            others = ", ".join(value for value in values if value not in members[0][1].name.split("_"))
            say(f"{members[0][1].name}: has no {others} beside it to be joined with; reconstructed by itself")
        stacks += [(file,) for file in ordered] if twice else [tuple(ordered)]
    return stacks


def entity_of(values: Sequence[str]) -> tuple[str, list[str]]:
    """The entity, and its labels, of values such as acq-axial. Raises UsageError where they are not two of one."""
    pairs = [value.partition("-") for value in values]
    labels = [label for _, _, label in pairs]
    keys = {key for key, _, _ in pairs}
    if len(keys) != 1 or not all((*keys, *labels)) or len(set(labels)) < len(labels) or len(labels) < 2:
        raise UsageError(f"--join {' '.join(values)}: give two or more labels of one entity: acq-axial acq-sagittal")
    return pairs[0][0], labels
