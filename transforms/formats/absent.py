"""Files whose content is not here: empty files, links to nothing, pointers of git-annex (datalad) and of Git LFS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from brgm_med.errors import refuse

ANNEX = "annex/objects/"
"""In the target of a link of git-annex, and in the one line of its unlocked and of its copied files."""
LFS = b"version https://git-lfs.github.com/spec/"
LONGEST = 1024
"""Bytes of the longest pointer (32 KiB are allowed to annex, LFS holds three short lines)."""


class Absence(NamedTuple):
    """The problem of a file without its content, and the advice."""

    problem: str
    advice: str


ANNEXED = Absence("is a pointer of git-annex; its content is not here", "fetch it with: git annex get")


def absence_of(path: Path) -> Absence | None:
    """The reason why the content of `path` is not here; None where it is, and where there is no such name."""
    try:
        if path.is_symlink() and not path.exists():
            lost = Absence("is a link to a file that is not there", "copy the file itself")
            return ANNEXED if ANNEX in Path(os.readlink(path)).as_posix() else lost
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return absence_in(file.read(LONGEST))
    except OSError as error:
        return Absence(f"cannot be read ({error.strerror})", "check the disk and the permissions")


def absence_in(start: bytes) -> Absence | None:
    """The same, of the first `LONGEST` bytes of a file."""
    if not start:
        return Absence("is empty", "copy or export it again")
    if start.startswith(LFS):
        return Absence("is a pointer of Git LFS; its content is not here", "fetch it with: git lfs pull")
    line = start.split(b"\n", 1)[0]
    if ANNEX.encode() in line and line.startswith((b"/annex/", b"../", b".git/")):
        return ANNEXED
    return None


def refuse_absent(path: Path) -> None:
    """Raise InputRefusedError for a file whose content is not here."""
    absence = absence_of(path)
    if absence is not None:
        refuse(path, *absence)
