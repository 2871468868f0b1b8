"""Files and folders that appear together: written in private folders beside their names, then moved there.

A staging folder is called `.brgm-TOKEN.part`, has mode 0700 and lies in the folder of the names that it serves. The
process that fills it holds a lock on its file `lock`, which ends with the process, however that ends. `new/` holds what
is written. `journal.json`, written before the first move, lists the moves; the renaming to `.brgm-TOKEN.done` ends
them. So a staging folder without an owner is one of a killed process: its moves are undone, and it is removed (see
`settle`).
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brgm_med.errors import BrgmError, CannotWriteError, InputRefusedError

NAME = re.compile(r"\.brgm-[0-9a-f]{16}\.(part|done)")
LOCK, JOURNAL, NEW, OLD = "lock", "journal.json", "new", "old"
NO_REPLACE, EXCHANGE = 1, 2
"""Flags of Linux's renameat2."""
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM)
OTHERS = 0o066
"""Permission to read and to write of everybody but the owner."""


@contextmanager
def together(paths: Sequence[Path], force: bool = False, like: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Give a name in a private folder for each of `paths`, to write a file or a folder at; on leaving, move all there.

    What is at none of `paths` yet appears without replacing anything: what another process has put there meanwhile is
    refused, and nothing appears. With `force` it is replaced, and of a path for which nothing was written, removed. On
    an error or interruption everything is as it was; after a kill, once any of these folders is settled. Nothing is
    readable by anyone who may not read every one of the files and folders `like`.

    Raises InputRefusedError, and OSError.
    """
    paths = [Path(os.path.abspath(path)) for path in paths]
    with private_folders([path.parent for path in paths]) as folders:
        staged = [folders[path.parent] / NEW / path.name for path in paths]
        try:
            yield staged
        except BrgmError as error:
            text = str(error)
            for parent, folder in folders.items():
                text = text.replace(f"{folder / NEW}/", f"{parent}/")
            if text == str(error):
                raise
            raise type(error)(text) from error
        for one in staged:
            restrict(one, like)
            sync(one)
        first, *others = folders.values()
        try:
            for other in others:
                _write_journal(other, {"of": str(first)})
            _write_journal(first, {"moves": [_move(s, p, force) for s, p in zip(staged, paths, strict=True)]})
            for move in _moves(first):
                _do(*move, force)
            for parent in folders:
                sync(parent, inside=False)
        except BaseException:
            _undo(first)
            for folder in folders.values():
                (folder / JOURNAL).unlink(missing_ok=True)
            raise
        for folder in folders.values():
            os.rename(folder, folder.with_suffix(".done"))


@contextmanager
def private_folders(parents: Iterable[Path]) -> Iterator[dict[Path, Path]]:
    """A new staging folder in each of `parents`, by these; all are removed in the end.

    But for those with a journal, whose moves could not be undone: they hold what stood there, for `settle`.
    """
    folders: dict[Path, Path] = {}
    locks: list[int] = []
    try:
        for parent in parents:
            if parent not in folders:
                folders[parent], lock = _private_folder(parent)
                locks.append(lock)
        yield folders
    finally:
        for folder in folders.values():
            shutil.rmtree(folder.with_suffix(".done"), ignore_errors=True)
            if not (folder / JOURNAL).exists():
                shutil.rmtree(folder, ignore_errors=True)
        for lock in locks:
            os.close(lock)


def _private_folder(parent: Path) -> tuple[Path, int]:
    """A new staging folder in `parent`, and the lock on it. Whoever settles it before it is locked takes it away."""
    while True:
        folder = parent / f".brgm-{secrets.token_hex(8)}.part"
        folder.mkdir(0o700)
        with suppress(FileNotFoundError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                (folder / NEW).mkdir(0o700)
            except FileNotFoundError:
                os.close(lock)
                raise
            return folder, lock


_scratch: list[Path] = []
"""The folder in which temporary data of this process lie; the system's where it is empty, or not there."""


_scratch_folders: list[tuple[Path, int]] = []
"""Those that were made, and the locks on them."""


def scratch_beside(path: Path) -> None:
    """Temporary data of this process, such as an unpacked zip, lie in the folder of `path` from now on."""
    _scratch[:] = [Path(os.path.abspath(path)).parent]


def scratch_folder() -> Path:
    """A new private folder for temporary data, removed when the command or the process ends; after a kill, by the next.

    Raises CannotWriteError.
    """
    parent = next((path for path in _scratch if path.is_dir()), Path(tempfile.gettempdir()))
    settle(parent)
    try:
        folder, lock = _private_folder(parent)
    except OSError as error:
        text = f"{parent}: cannot hold temporary data ({error.strerror}); choose another folder for the output"
        raise CannotWriteError(text) from error
    _scratch_folders.append((folder, lock))
    return folder / NEW


@atexit.register
def clear_scratch() -> None:
    """Remove the temporary data of this process."""
    while _scratch_folders:
        folder, lock = _scratch_folders.pop()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def settle_below(folder: Path) -> None:
    """`settle` a folder and all folders below it."""
    for parent in {left.parent for left in folder.rglob(".brgm-*")}:
        settle(parent)


def settle(parent: Path) -> None:
    """Undo in the folder `parent` what killed processes of this user had begun, and remove what they left.

    What a living process is at, and what is another user's, is left alone.
    """
    with suppress(OSError):
        names = [name for name in os.listdir(parent) if NAME.fullmatch(name)]
        for name in names:
            _settle(parent / name)


def _settle(folder: Path) -> None:
    """`settle` one staging folder."""
    with suppress(OSError):
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
            return
        if folder.suffix == ".done":
            shutil.rmtree(folder)
            return
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except FileNotFoundError:  # it was being made or removed
            with suppress(OSError):
                (folder / NEW).rmdir()
            folder.rmdir()
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.lexists(folder):
                return
            _undo(folder)
            done = folder.with_suffix(".done")
            os.rename(folder, done)
            shutil.rmtree(done)
        finally:
            os.close(lock)


def _write_journal(folder: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, and on the disk."""
    part = folder / "journal.part"
    part.write_text(json.dumps(content))
    sync(part)
    os.rename(part, folder / JOURNAL)
    sync(folder, inside=False)


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


def _move(staged: Path, path: Path, force: bool) -> list[Any]:
    """One entry of a journal. Raises InputRefusedError for what stands at `path` without `force`."""
    old = identity(path)
    if old is not None and not force:
        raise _appeared(path)
    return [str(staged.relative_to(path.parent)), str(path), identity(staged), old]


def _moves(folder: Path) -> list[Move]:
    """The moves in a journal. Its own folder may have been moved since, with all that is in it."""
    try:
        content = json.loads((folder / JOURNAL).read_text())
    except FileNotFoundError:
        return []
    if "of" in content:
        _settle(Path(content["of"]))
        return []
    home = Path(content["moves"][0][1]).parent
    moves = []
    for staged, name, new, old in content["moves"]:
        path = Path(name)
        path = folder.parent / path.name if path.parent == home else path
        moves.append((path.parent / staged, path, new, old))
    return moves


def _do(staged: Path, path: Path, new: Identity, old: Identity, force: bool) -> None:
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


def _undo(folder: Path) -> None:
    """Undo the moves of a journal, as far as they were made."""
    for staged, path, new, old in reversed(_moves(folder)):
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


def granted(paths: Iterable[Path]) -> int:
    """What every one of `paths` grants to others than the owner, of a folder with all its files."""
    bits = OTHERS
    for path in paths:
        bits &= path.stat().st_mode
        if path.is_dir():
            for inside in (p for p in path.rglob("*") if p.is_file()):
                bits &= inside.stat().st_mode
    return bits


def restrict(path: Path, like: Sequence[Path]) -> None:
    """Take from a file, or a folder with all in it, what `like` does not grant to others than the owner."""
    if not like or not os.path.lexists(path) or path.is_symlink():
        return
    bits = granted(like)
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        mode = stat.S_IMODE(one.stat().st_mode)
        allowed = bits | (bits & 0o044) >> 2 if one.is_dir() else bits  # a folder is entered by who reads it
        one.chmod(mode & (allowed | 0o700))


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
