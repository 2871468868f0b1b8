"""DICOM series: which slices make a volume, what they are called, and which of several is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brgm_med.errors import refuse
from brgm_med.transforms.formats.affine import TOLERANCE_MM, Affine, corner_distance
from brgm_med.transforms.formats.dicom.archive import files_in, named_by_zip
from brgm_med.transforms.formats.dicom.classic import SHARED
from brgm_med.transforms.formats.dicom.file import is_slice, read_header, strict
from brgm_med.transforms.formats.dicom.passed import Passed, refuse_missing
from brgm_med.transforms.formats.dicom.slice import GRIDS, MARKS, Slice, slices_of
from brgm_med.transforms.formats.dicom.stack import IDENTITY, Stack, divided, identity

if TYPE_CHECKING:
    from pydicom import Dataset

TAGS: list[str | tuple[int, int]] = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *(*IDENTITY, "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ConcatenationUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(classic for classic, _, _ in MARKS.values()),
    *(tag for group, element in GRIDS for tag in ((group, 0x0010), (group, element))),
]
"""Read before one series is chosen."""

SAME_THICKNESS = 1e-3

LARGE_BYTES, MAX_RATIO = 2**28, 256
"""A volume of more bytes than the first is refused where it is more than so many times the size of its files."""


@dataclass(frozen=True, eq=False)
class Series:
    """One volume of DICOM slices, in order along the slice normal, or the frames of one enhanced file.

    `files` and `headers` (without pixel data) are one a slice and in the order of slices, or one in all where the file
    is enhanced. `frames` says, for every slice, which frame of its file it is, counted from 0. `shape` is (columns,
    rows, slices); `affine` [4, 4], float64, index -> world RAS mm. `thickness` is the Slice Thickness, mm, where all
    slices state one and the same. `tolerated`: oddities of the headers that were passed over, a clause each.
    `offsets`: of each slice along the normal from its place on the affine's even grid, mm; empty where all are even.
    `others`: the files beside those of DICOM.
    """

    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: Affine
    thickness: float | None
    tolerated: tuple[str, ...] = ()
    offsets: tuple[float, ...] = ()
    others: tuple[Passed, ...] = ()

    @property
    def enhanced(self) -> bool:
        """True if geometry and rescale lie in functional groups (PS3.3 C.7.6.16)."""
        return SHARED in self.headers[0]

    def is_on(self, shape: tuple[int, ...], affine: Affine) -> bool:
        """True if voxels of `shape` and `affine` (index -> RAS mm) are on this series' grid, to 0.1 mm at the corners.

        Of a single slice the step to the next is not compared: it is only as deep as its Slice Thickness.
        """
        if len(self.files) == 1:
            affine = np.c_[affine[:, :2], self.affine[:, 2], affine[:, 3]]
        return shape == self.shape and corner_distance(self.affine, affine, self.shape) <= TOLERANCE_MM


@dataclass(frozen=True, eq=False)
class Found:
    """The volumes of a place, how many DICOM files are no slices (`others`), and the files that are no DICOM."""

    stacks: tuple[Stack, ...]
    others: int
    no_dicom: tuple[Passed, ...]

    @property
    def skipped(self) -> int:
        """The number of files that are no DICOM."""
        return len(self.no_dicom)


def find_series(path: Path) -> Found:
    """The volumes that `path` (file, folder, DICOMDIR, zip) holds, by their series, sound or not.

    For how a series is divided into volumes, see `dicom.stack.divided`. Raises InputRefusedError for files that cannot
    be read, and where there is no DICOM file.
    """
    files = files_in(path)
    by_uid: dict[str, list[Slice]] = defaultdict(list)
    others = 0
    with named_by_zip():
        for file in files.dicom:
            header = read_header(file, TAGS)
            if is_slice(header):
                with strict(file):
                    by_uid[str(header.get("SeriesInstanceUID", ""))] += slices_of(file, header)
            else:
                others += 1
    numbers = [_number(slices[0]) for slices in by_uid.values()]
    stacks: list[Stack] = []
    for uid, slices in by_uid.items():
        number = _number(slices[0])
        name = number if number and numbers.count(number) == 1 else uid or "-"
        parts = list(divided(slices))
        stacks += [Stack(name if len(parts) == 1 else f"{name}/{i}", *part) for i, part in enumerate(parts, 1)]
    stacks.sort(key=lambda s: (_order(_number(s.slices[0])), str(s.header.get("SeriesInstanceUID", ""))))
    return Found(tuple(stacks), others, files.others)


def _number(one: Slice) -> str:
    return str(one.header.get("SeriesNumber") or "")


def _order(number: str) -> tuple[int, str]:
    return int(number) if number.isdecimal() else 1 << 32, number


def series_of(stack: Stack) -> Series:
    """The volume that a stack is, with whole headers. Raises InputRefusedError where it is none."""
    placement = stack.placed()
    ordered = placement.slices
    header = stack.header
    files = tuple(dict.fromkeys(s.file for s in ordered))
    shape = int(header.Columns), int(header.Rows), len(ordered)
    nbytes = 2 * shape[0] * shape[1] * shape[2]
    if nbytes > max(LARGE_BYTES, MAX_RATIO * sum(f.stat().st_size for f in files)):
        problem = f"and its series declare {nbytes >> 20} MiB, more than files of their size can hold"
        refuse(files[0], problem, "do not trust them")
    thickness = ordered[0].thickness
    if thickness is not None and any(abs((s.thickness or 0.0) / thickness - 1) > SAME_THICKNESS for s in ordered):
        thickness = None
    headers = tuple(read_header(f) for f in files)
    frames = tuple(s.frame for s in ordered)
    return Series(files, headers, frames, shape, placement.affine, thickness, placement.tolerated, placement.offsets)


def the_series(path: Path | str, choice: str | None = None, allow_missing_files: bool = False) -> Series:
    """The one volume of DICOM slices at `path`, or, of several, the one called `choice`.

    `choice` is the number or UID of a series, and /1, /2 ... after it for one of several volumes in it, as `brgm-med
    series` lists them. Raises InputRefusedError where nothing, or not one alone, is chosen, for slices that are not one
    volume, and, unless `allow_missing_files`, where a file that is passed over may be one of its slices (see `passed`).
    """
    path = Path(path)
    volumes = find_series(path)
    if not allow_missing_files:
        refuse_missing(path, volumes.no_dicom)
    if not volumes.stacks:
        problem = f"{volumes.others} DICOM files without a place in space (such as secondary captures), and no slices"
        refuse(path, f"holds {problem}", "give slices of MR or CT")
    with named_by_zip():
        return replace(series_of(chosen(path, volumes.stacks, choice)), others=volumes.no_dicom)


def chosen(path: Path, stacks: Sequence[Stack], choice: str | None) -> Stack:
    """The stack that `choice` names; the only one without it. Raises InputRefusedError."""
    named = [s for s in stacks if choice is None or choice in _names(s)]
    names = ", ".join(s.name for s in (named or stacks)[:9]) + (" ..." if len(named or stacks) > 9 else "")
    if choice is not None and not named:
        refuse(path, f"has no series {choice}", f"choose with --series: {names}")
    patients = len({identity(s.header) for s in stacks})
    of_them = f" of {patients} patients" if patients > 1 else ""
    which = "" if choice is None else f" called {choice}"
    if len(named) > 1:
        problem = f"holds {len(named)} volumes{which}{of_them}"
        refuse(path, problem, f"choose one with --series: {names} (brgm-med series)")
    return named[0]


def _names(stack: Stack) -> set[str]:
    """The names of a stack: its own name, its series' UID or number, and these with its part."""
    uid, number = str(stack.header.get("SeriesInstanceUID", "")), _number(stack.slices[0])
    part = stack.name.partition("/")[1:]
    return {stack.name, uid, number, uid + "".join(part), number + "".join(part)} - {""}
