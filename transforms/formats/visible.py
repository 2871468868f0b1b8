"""The files of a folder that count, each once: hidden ones do not, and the same content under two names is found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from brgm_med.errors import refuse
from brgm_med.files import digest


def is_hidden(name: str) -> bool:
    """True for a file or a folder whose name begins with a dot."""
    return name.startswith(".")


def visible_files(folder: Path) -> list[Path]:
    """What is in `folder` and below, folders aside, by path; links to folders are not followed, but listed.

    Files and folders whose names begin with a dot are left out: copies by git-annex (.git/annex), notes by macOS (._*).
    Raises InputRefusedError where a folder cannot be read.
    """

    def unreadable(error: OSError) -> None:
        refuse(error.filename or folder, f"cannot be read ({error.strerror})", "check the permissions")

    every: list[Path] = []
    for at, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not is_hidden(name)]
        links = [name for name in folders if Path(at, name).is_symlink()]
        every += [Path(at, name) for name in (*links, *names) if not is_hidden(name)]
    return sorted(every)


def identical(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of two files or more of `paths` whose content is the same, to the last byte."""
    groups: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.stat().st_size].append(path)
    by_content: dict[object, list[Path]] = defaultdict(list)
    for size, group in groups.items():
        for path in group if len(group) > 1 else ():
            by_content[size, digest(path)].append(path)
    return [group for group in by_content.values() if len(group) > 1]
