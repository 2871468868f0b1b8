"""Files beside those of DICOM that are passed over, why, and which of them may be slices that are missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from brgm_med.errors import refuse
from brgm_med.transforms.formats.absent import LONGEST, absence_in, absence_of

NAMES = (".dcm", ".ima")
"""A file of such a name is one of DICOM, or meant to be."""

NO_DICOM = "is no DICOM file (PS3.10)"
NO_PREAMBLE = "is DICOM without the preamble of PS3.10"
GROUPS = (b"\x02\0\0\0UL", b"\x02\0\x01\0OB", b"\x08\0\0\0", b"\x08\0\x01\0", b"\x08\0\x05\0", b"\x08\0\x08\0")
"""First elements of data sets in little endian: of the file meta information, or group 0008."""


@dataclass(frozen=True)
class Passed:
    """A file that is passed over: its name from the source on, why, and whether it may be a slice that is `missing`."""

    name: str
    reason: str
    missing: bool
    advice: str = "copy or export it again, or remove it"


def passed(path: Path, name: PurePosixPath | Path) -> Passed:
    """The file at `path`, which is no DICOM; `name`: from the source on."""
    absence = absence_of(path)
    if absence is not None and path.is_symlink():
        return Passed(name.as_posix(), absence.problem, True, absence.advice)
    if not path.is_file():
        return Passed(name.as_posix(), "is a link to a folder" if path.is_dir() else "is no regular file", False)
    try:
        with path.open("rb") as file:
            return passed_content(file.read(LONGEST), name)
    except OSError as error:
        return Passed(name.as_posix(), f"cannot be read ({error.strerror})", True)


def passed_content(start: bytes, name: PurePosixPath | Path) -> Passed:
    """The same, of a file that starts with these bytes."""
    absence = absence_in(start)
    if absence is not None and (start or name.suffix.lower() not in NAMES):
        return Passed(name.as_posix(), absence.problem, True, absence.advice)
    if start.startswith(GROUPS):
        return Passed(name.as_posix(), NO_PREAMBLE, True)
    if name.suffix.lower() in NAMES:
        return Passed(name.as_posix(), f"is named like DICOM and is none ({'PS3.10' if start else 'empty'})", True)
    return Passed(name.as_posix(), NO_DICOM, False)


def with_missing(others: Sequence[Passed], dicom: Collection[str]) -> tuple[Passed, ...]:
    """The same files; those whose names differ from names of `dicom` files only by a number are `missing`, too."""
    patterns = {_pattern(name) for name in dicom}
    return tuple(replace(one, missing=one.missing or _pattern(one.name) in patterns) for one in others)


def _pattern(name: str) -> str:
    """A name with its numbers left out. One without any number stands for itself."""
    return re.sub(r"\d+", "0", name)


def said(others: Sequence[Passed], withheld: bool = False) -> str:
    """A clause on files that were passed over; without a name where names are `withheld`."""
    first = next((one for one in others if one.missing), others[0])
    count = f"{len(others)} file{'s' * (len(others) != 1)} passed over"
    if withheld:
        return f"{count} ({'one' if len(others) > 1 else 'it'} {first.reason})"
    return f"{count} ({first.name} {first.reason})"


def refuse_missing(source: Path, others: Sequence[Passed]) -> None:
    """Raise InputRefusedError where one of them may be a slice that is missing."""
    missing = [one for one in others if one.missing]
    if missing:
        first = missing[0]
        more = "" if len(missing) == 1 else f", and {len(missing) - 1} more like it"
        problem = f"{first.reason}{more}; a part of the scan may be missing"
        refuse(source / first.name, problem, f"{first.advice}, or add --allow-missing-files")
