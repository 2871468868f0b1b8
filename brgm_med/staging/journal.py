"""The journal of a staging folder: the moves of what was written there to its names, done and undone."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError

JOURNAL, OLD = "journal.json", "old"
NO_REPLACE, EXCHANGE = 1, 2
"""Flags of Linux's renameat2."""
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM)


def write_journal(folder: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, and on the disk."""
    part = folder / "journal.part"
    part.write_text(json.dumps(content))
    sync(part)
    os.rename(part, folder / JOURNAL)
    sync(folder, inside=False)


def read_journal(folder: Path) -> dict[str, Any]:
    """The moves, or `of`: the staging folder whose journal has those of this one; empty where there is none."""
    try:
        return dict(json.loads((folder / JOURNAL).read_text()))
    except FileNotFoundError:
        return {}


Identity = list[int] | None
Move = tuple[Path, Path, Identity, Identity]
"""Where something was written, where it belongs, its identity, and that of what stood there."""


def identity(path: Path) -> Identity:
    """What a rename does not change of a file or folder, and hardly any other has; None where there is nothing."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return None
    return [state.st_ino, state.st_mtime_ns]


def move_of(staged: Path, path: Path, force: bool) -> list[Any]:
    """One entry of a journal. Raises InputRefusedError for what stands at `path` without `force`."""
    old = identity(path)
    if old is not None and not force:
        raise _appeared(path)
    return [str(staged.relative_to(path.parent)), str(path), identity(staged), old]


def moves_of(folder: Path) -> list[Move]:
    """The moves in a journal. Its own folder may have been moved since, with all that is in it."""
    content = read_journal(folder)
    if "moves" not in content:
        return []
    home = Path(content["moves"][0][1]).parent
    moves = []
    for staged, name, new, old in content["moves"]:
        path = Path(name)
        path = folder.parent / path.name if path.parent == home else path
        moves.append((path.parent / staged, path, new, old))
    return moves


def do(staged: Path, path: Path, new: Identity, old: Identity, force: bool) -> None:
    """One move."""
    try:
        if new is None:
            if old is not None:
                _aside(staged, path)
        elif old is None:
            _rename(staged, path, NO_REPLACE)
        else:
            _rename(staged, path, EXCHANGE)
    except FileExistsError as error:
        if not force:
            raise _appeared(path) from error
        _rename(staged, path, EXCHANGE)


def undo(folder: Path) -> None:
    """Undo the moves of a journal, as far as they were made."""
    for staged, path, new, old in reversed(moves_of(folder)):
        if new is not None and identity(path) == new:
            if old is not None and identity(staged) == old:
                _rename(staged, path, EXCHANGE)
            elif identity(staged) == new:  # a second link
                path.unlink()
            else:
                os.rename(path, staged)
        aside = staged.parent.with_name(OLD) / path.name
        if old is not None and identity(path) is None and identity(aside) == old:
            os.rename(aside, path)


def _aside(staged: Path, path: Path) -> None:
    aside = staged.parent.with_name(OLD)
    aside.mkdir(0o700, exist_ok=True)
    os.rename(path, aside / path.name)


def _rename(staged: Path, path: Path, flag: int) -> None:
    """Rename without replacement, or exchange both, at once; in two steps where the file system cannot do that.

    Raises FileExistsError where there is something at `path` that must not be replaced.
    """
    sys.audit("os.rename", str(staged), str(path), -1, -1)
    number = _renameat2(staged, path, flag)
    if number in UNSUPPORTED:
        if flag == EXCHANGE:
            if identity(path) is not None:
                _aside(staged, path)
            os.rename(staged, path)
            return
        if staged.is_file() and not staged.is_symlink():
            with suppress(PermissionError):  # a file system without links
                os.link(staged, path)
                return
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(staged, path)
    elif number:
        raise OSError(number, os.strerror(number), str(path))


def _renameat2(source: Path, target: Path, flag: int) -> int:
    """The error number of Linux's system call; ENOSYS where there is none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return errno.ENOSYS
    here = -100  # AT_FDCWD
    done = call(here, os.fsencode(source), here, os.fsencode(target), flag)
    return ctypes.get_errno() if done else 0


def _appeared(path: Path) -> InputRefusedError:
    return InputRefusedError(f"{path}: has appeared meanwhile; choose another name or add --force")


def sync(path: Path, inside: bool = True) -> None:
    """Flush a file, or a folder and all in it, to the disk."""
    if not os.path.lexists(path):
        return
    for one in [*(path.rglob("*") if inside and path.is_dir() else ()), path]:
        if one.is_symlink():
            continue
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
