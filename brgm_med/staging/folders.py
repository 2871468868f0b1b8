"""Staging folders: made with a lock that ends with their process, and settled where that was killed."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brgm_med.staging.journal import JOURNAL, read_journal, undo

NAME = re.compile(r"\.brgm-[0-9a-f]{16}\.(part|done)")
LOCK, NEW = "lock", "new"


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
                folders[parent], lock = private_folder(parent)
                locks.append(lock)
        yield folders
    finally:
        for folder in folders.values():
            shutil.rmtree(folder.with_suffix(".done"), ignore_errors=True)
            if not (folder / JOURNAL).exists():
                shutil.rmtree(folder, ignore_errors=True)
        for lock in locks:
            os.close(lock)


def private_folder(parent: Path) -> tuple[Path, int]:
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
            of = read_journal(folder).get("of")
            if of is not None:
                _settle(Path(of))
            undo(folder)
            done = folder.with_suffix(".done")
            os.rename(folder, done)
            shutil.rmtree(done)
        finally:
            os.close(lock)
