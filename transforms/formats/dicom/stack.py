"""Slices that belong together: how a DICOM series is divided into volumes, and what one is refused for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from brgm_med.errors import refuse
from brgm_med.transforms.formats.dicom.file import strict
from brgm_med.transforms.formats.dicom.geometry import SAME_DIRECTION, Placement, one_value, placement_of
from brgm_med.transforms.formats.dicom.slice import MARKS, Slice

if TYPE_CHECKING:
    from pydicom import Dataset

IDENTITY = ("PatientID", "PatientName", "PatientBirthDate")
MAX_VOXELS = 2**30


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that are one volume, if any. `name` chooses them; `part`: the marks that set them apart from others."""

    name: str
    part: str
    slices: tuple[Slice, ...]

    @property
    def header(self) -> Dataset:
        return self.slices[0].header

    def placed(self) -> Placement:
        """The slices in order, and where they are. Raises InputRefusedError where they are not one volume."""
        with strict(self.slices[0].file):
            self._check()
            placement = placement_of(self.slices)
            return replace(placement, tolerated=placement.tolerated + self._tolerated())

    def _check(self) -> None:
        for one in self.slices:
            if one.grid is not None:
                problem = f"is {one.grid}: many slices in one image, at places that DICOM does not tell"
                refuse(one.file, problem, "convert it with dcm2niix")
            if one.header.get("ConcatenationUID"):
                refuse(one.file, "is a part of a concatenation (PS3.3 C.7.6.16)", "export it as one file")
            if "SharedFunctionalGroupsSequence" not in one.header and int(one.header.get("NumberOfFrames") or 1) > 1:
                refuse(one.file, "holds several frames and nothing that says where they are", "export single slices")
        known = next((s for s in self.slices if s.header.get("PatientBirthDate")), self.slices[0])
        for one in self.slices:
            if not one_patient(one.header, known.header):
                refuse(one.where, f"has another patient than {known.name}", "separate them")
        one_value(self.slices, "FrameOfReferenceUID", "frame of reference")
        rows, columns = int(self.header.get("Rows") or 0), int(self.header.get("Columns") or 0)
        if not 0 < rows * columns * len(self.slices) <= MAX_VOXELS:
            problem = f"and its series declare {columns} x {rows} x {len(self.slices)} voxels"
            refuse(self.slices[0].file, problem, "choose less")

    def _tolerated(self) -> tuple[str, ...]:
        """Clauses on differences between the slices' patients that are none. They hold no name and no date."""
        clauses = []
        if len({str(s.header.get("PatientName") or "") for s in self.slices}) > 1:
            clauses.append("the patient's name ends in carets or blanks in some of its slices; taken as one patient")
        undated = sum(not s.header.get("PatientBirthDate") for s in self.slices)
        if 0 < undated < len(self.slices):
            lack = f"{undated} of its slices lack" if undated > 1 else "one of its slices lacks"
            clauses.append(f"{lack} the patient's birth date; taken as one patient")
        return tuple(clauses)


def identity(header: Dataset) -> tuple[str, str, str]:
    """A patient's ID, name without carets and blanks at its end, and birth date; empty where they are not stated."""
    number, name, born = (str(header.get(keyword) or "") for keyword in IDENTITY)
    return number, name.rstrip("^ "), born


def one_patient(a: Dataset, b: Dataset) -> bool:
    """True if the headers of two images say one patient; a birth date may be missing."""
    (*named, born), (*other, other_born) = identity(a), identity(b)
    return named == other and (born == other_born or "" in (born, other_born))


def divided(slices: Sequence[Slice]) -> Iterable[tuple[str, tuple[Slice, ...]]]:
    """The slices of one series as volumes: what tells each from the others, and its slices.

    Every enhanced file is divided for itself. What is not parallel is separate. Where positions repeat, the first of
    `MARKS`, or the first two or three together, that tell apart just as many volumes as there are slices at one place,
    with no place twice in any, divide them; where none do, they stay together (and will be refused).
    """
    enhanced = {s.file for s in slices if "SharedFunctionalGroupsSequence" in s.header}
    whole = [[s for s in slices if s.file == file] for file in sorted(enhanced)]
    whole.append([s for s in slices if s.file not in enhanced])
    for group in whole:
        planes: list[list[Slice]] = []
        for one in group:
            same = next((p for p in planes if _parallel(one, p[0])), None)
            planes.append([one]) if same is None else same.append(one)
        for plane in planes:
            yield from _by_marks(plane)


def _parallel(a: Slice, b: Slice) -> bool:
    if a.directions is None or b.directions is None:
        return True  # it will be refused, beside the others
    return bool(np.abs(a.directions - b.directions).max() <= SAME_DIRECTION)


def _natural(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _repeats(slices: Sequence[Slice]) -> int:
    """The largest number of slices at one position."""
    return max(Counter(None if s.position is None else tuple(np.round(s.position, 3)) for s in slices).values())


def _by_marks(slices: list[Slice]) -> Iterable[tuple[str, tuple[Slice, ...]]]:
    most = _repeats(slices)
    if most == 1 or any(s.grid is not None for s in slices):
        return [("", tuple(slices))]
    for names in (c for count in (1, 2, 3) for c in combinations(MARKS, count)):
        groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
        for one in slices:
            groups[tuple(one.marks.get(name, "") for name in names)].append(one)
        if len(groups) == most and all(_repeats(group) == 1 for group in groups.values()):
            varying = [i for i in range(len(names)) if len({key[i] for key in groups}) > 1]
            return [
                (", ".join(f"{names[i]} {key[i]}" for i in varying), tuple(group))
                for key, group in sorted(groups.items(), key=lambda pair: [_natural(value) for value in pair[0]])
            ]
    return [("", tuple(slices))]
