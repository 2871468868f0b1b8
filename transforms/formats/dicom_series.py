"""DICOM series: which slices make a volume, what they are called, and which of several is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.transforms.formats import dicom_geometry
from brgm_med.transforms.formats.dicom_archive import files_in
from brgm_med.transforms.formats.dicom_file import read_header, strict
from brgm_med.transforms.formats.dicom_geometry import MARKS, Slice, slices_of

if TYPE_CHECKING:
    from pydicom import Dataset

VOLUMES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT, Enhanced CT, Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4",  # MR, Enhanced MR, Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.128",  # PET, Enhanced PET, Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.128.1",
}
"""SOP classes of slices (PS3.4 B.5). An image of another class is a slice where it has a position of its own."""

IDENTITY = ("PatientID", "PatientName", "PatientBirthDate")
TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *(*IDENTITY, "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "ConcatenationUID"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *(classic for classic, _, _ in MARKS.values())),
]
"""What is looked at before one series is chosen."""

MAX_VOXELS, LARGE_BYTES, MAX_RATIO = 2**30, 2**28, 256
"""A volume of more voxels is refused; and one of more bytes than the second that its files hold packed so many times."""


@dataclass(frozen=True, eq=False)
class Series:
    """One volume of DICOM slices, in order along the slice normal, or the frames of one enhanced file.

    `files` and `headers` (without pixel data) are one a slice and in the order of slices, or one in all where the file
    is enhanced. `frames` says, for every slice, which frame of its file it is, counted from 0. `shape` is (columns,
    rows, slices); `affine` [4, 4], float64, index -> world RAS mm. `thickness` is the Slice Thickness, mm, where all
    slices state one and the same.
    """

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    thickness: float | None

    @property
    def enhanced(self) -> bool:
        """Whether geometry and rescale lie in functional groups (PS3.3 C.7.6.16)."""
        return "SharedFunctionalGroupsSequence" in self.headers[0]


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that are one volume, if they are any. `name` is how they are chosen; `part` what tells them from others."""

    name: str
    part: str
    slices: tuple[Slice, ...]

    @property
    def header(self) -> Dataset:
        return self.slices[0].header

    def placed(self) -> tuple[list[Slice], NDArray[np.float64]]:
        """The slices in order, and their affine. Raises InputRefusedError where they are not one volume."""
        first = self.slices[0]
        for one in self.slices:
            if "MOSAIC" in one.marks.get("image type", ""):
                what = "is a Siemens mosaic: many slices in one image, at places that DICOM does not tell"
                refuse(one.file, what, "convert it with dcm2niix")
            if one.header.get("ConcatenationUID"):
                refuse(one.file, "is a part of a concatenation (PS3.3 C.7.6.16.2.2.4)", "export it as one file")
            if "PerFrameFunctionalGroupsSequence" not in one.header and int(one.header.get("NumberOfFrames") or 1) > 1:
                refuse(one.file, "holds several frames and no functional groups that place them", "export single slices")
        for keyword in IDENTITY:
            if len({str(one.header.get(keyword, "")) for one in self.slices}) > 1:
                other = next(s for s in self.slices if str(s.header.get(keyword, "")) != str(self.header.get(keyword, "")))
                refuse(other.file, f"is of another patient than {first.name}, in one series", "separate them")
        dicom_geometry.one_value(self.slices, "FrameOfReferenceUID", "frame of reference")
        rows, columns = int(self.header.get("Rows") or 0), int(self.header.get("Columns") or 0)
        if not 0 < rows * columns * len(self.slices) <= MAX_VOXELS:
            refuse(first.file, f"and its series declare {columns} x {rows} x {len(self.slices)} voxels", "choose less")
        return dicom_geometry.affine_of(self.slices)

    def series(self) -> Series:
        """The volume, with whole headers. Raises InputRefusedError where there is none."""
        ordered, affine = self.placed()
        header = self.header
        files = tuple(dict.fromkeys(s.file for s in ordered))
        nbytes = 2 * int(header.Rows) * int(header.Columns) * len(ordered)
        if nbytes > max(LARGE_BYTES, MAX_RATIO * sum(f.stat().st_size for f in files)):
            what = f"and its series declare {nbytes >> 20} MiB, more than files of their size can hold"
            refuse(files[0], what, "do not trust them")
        thicknesses = {s.thickness for s in ordered}
        return Series(
            files,
            tuple(read_header(f) for f in files),
            tuple(s.frame for s in ordered),
            (int(header.Columns), int(header.Rows), len(ordered)),
            affine,
            thicknesses.pop() if len(thicknesses) == 1 else None,
        )


@dataclass(frozen=True, eq=False)
class Found:
    """The volumes of a place; how many DICOM files are no slices (`others`), and how many files no DICOM (`skipped`)."""

    stacks: tuple[Stack, ...]
    others: int
    skipped: int


def is_slice(header: Dataset) -> bool:
    """Whether an image is (to be) a slice of a volume, rather than a picture, a report or a plan."""
    return header.SOPClassUID in VOLUMES or "ImagePositionPatient" in header


def find_series(path: Path) -> Found:
    """The volumes that `path` (file, folder, DICOMDIR, zip) holds, by their series, sound or not.

    A series is divided by orientation, and where its slices repeat positions by what tells them apart there: the first
    of `dicom_geometry.MARKS` that leaves no position twice, else all of them if they do. Raises InputRefusedError for
    files that cannot be read, and where there is no DICOM file.
    """
    files = files_in(path)
    by_uid: dict[str, list[Slice]] = defaultdict(list)
    others = 0
    for file in files.dicom:
        header = read_header(file, TAGS)
        if not is_slice(header):
            others += 1
            continue
        with strict(file):
            by_uid[str(header.get("SeriesInstanceUID", ""))] += slices_of(file, header)
    numbers = [_number(slices[0]) for slices in by_uid.values()]
    stacks: list[Stack] = []
    for uid, slices in by_uid.items():
        number = _number(slices[0])
        name = number if number and numbers.count(number) == 1 else uid
        parts = list(divided(slices))
        stacks += [Stack(name if len(parts) == 1 else f"{name}/{i}", *part) for i, part in enumerate(parts, 1)]
    stacks.sort(key=lambda s: (_order(_number(s.slices[0])), s.header.get("SeriesInstanceUID", "")))
    return Found(tuple(stacks), others, files.skipped)


def _number(one: Slice) -> str:
    return str(one.header.get("SeriesNumber") or "")


def _order(number: str) -> float:
    return float(number) if number else float("inf")


def divided(slices: Sequence[Slice]) -> Iterable[tuple[str, tuple[Slice, ...]]]:
    """The slices of one series as volumes: what tells each from the others, and its slices."""
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
    return bool(np.abs(a.directions - b.directions).max() <= dicom_geometry.SAME_DIRECTION)


def _repeats(slices: Sequence[Slice]) -> bool:
    places = [tuple(np.round(s.position, 3)) for s in slices if s.position is not None]
    return len(set(places)) < len(places)


def _by_marks(slices: list[Slice]) -> Iterable[tuple[str, tuple[Slice, ...]]]:
    if not _repeats(slices):
        return [("", tuple(slices))]
    for names in (*((name,) for name in MARKS), tuple(MARKS)):
        groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
        for one in slices:
            groups[tuple(one.marks.get(name, "") for name in names)].append(one)
        if not any(_repeats(group) for group in groups.values()):
            varying = [i for i in range(len(names)) if len({key[i] for key in groups}) > 1]
            return [
                (", ".join(f"{names[i]} {key[i]}" for i in varying), tuple(group)) for key, group in sorted(groups.items())
            ]
    return [("", tuple(slices))]


def the_series(path: Path | str, choice: str | None = None) -> Series:
    """The one volume of DICOM slices at `path`, or, of several, the one called `choice`.

    `choice` is the number or UID of a series, and /1, /2 ... after it for one of several volumes in it, as `brgm-med
    series` lists them. Raises InputRefusedError where nothing, or not one alone, is chosen, and for slices that are not
    one volume.
    """
    path = Path(path)
    found = find_series(path)
    if not found.stacks:
        what = f"{found.others} DICOM files without a place in space (such as secondary captures), and no slices"
        refuse(path, f"holds {what}", "give slices of MR or CT")
    return chosen(path, found.stacks, choice).series()


def chosen(path: Path, stacks: Sequence[Stack], choice: str | None) -> Stack:
    """The stack that `choice` names; the only one without it. Raises InputRefusedError."""
    named = [s for s in stacks if choice is None or choice in _names(s)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(s.name for s in (named or stacks)[:9]) + (" ..." if len(named or stacks) > 9 else "")
    if choice is not None and not named:
        refuse(path, f"has no series {choice}", f"choose with --series: {names}")
    patients = len({tuple(str(s.header.get(k, "")) for k in IDENTITY) for s in stacks})
    of_them = f" of {patients} patients" if patients > 1 else ""
    which = "" if choice is None else f" called {choice}"
    refuse(path, f"holds {len(named)} volumes{which}{of_them}", f"choose one with --series: {names} (brgm-med series)")


def _names(stack: Stack) -> set[str]:
    """What a stack may be called: its name, its series' UID or number, and these with its part."""
    uid, number = str(stack.header.get("SeriesInstanceUID", "")), _number(stack.slices[0])
    part = stack.name.partition("/")[1:]
    return {stack.name, uid, number, uid + "".join(part), number + "".join(part)} - {""}
