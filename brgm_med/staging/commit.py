"""Files and folders that appear together at their names, and who may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from brgm_med.errors import BrgmError
from brgm_med.staging.folders import NEW, private_folders
from brgm_med.staging.journal import JOURNAL, do, move_of, moves_of, sync, undo, write_journal

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
                write_journal(other, {"of": str(first)})
            write_journal(first, {"moves": [move_of(s, p, force) for s, p in zip(staged, paths, strict=True)]})
            for move in moves_of(first):
                do(*move, force)
            for parent in folders:
                sync(parent, inside=False)
        except BaseException:
            undo(first)
            for folder in folders.values():
                (folder / JOURNAL).unlink(missing_ok=True)
            raise
        for folder in folders.values():
            os.rename(folder, folder.with_suffix(".done"))


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
