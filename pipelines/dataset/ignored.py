"""`.bidsignore`: files that are no part of a BIDS data set, by patterns as in a `.gitignore`, without its [sets]."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

NAME = ".bidsignore"
WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def ignored(root: Path, files: list[Path]) -> set[Path]:
    """Those of `files`, all below `root`, that its `.bidsignore` names; the last pattern that fits one decides."""
    file = root / NAME
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return {file for file in files if _ignored(PurePosixPath(file.relative_to(root).as_posix()), patterns)}


def _ignored(path: PurePosixPath, patterns: list[str]) -> bool:
    decided = False
    for pattern in patterns:
        if matches(path, pattern.removeprefix("!")):
            decided = not pattern.startswith("!")
    return decided


def matches(path: PurePosixPath, pattern: str) -> bool:
    """True where a pattern names a file (a relative path), or a folder that it lies in.

    A pattern with a slash before its end is relative to the data set, one without fits any name in a path; one that
    ends in a slash fits folders only.
    """
    whole = "/" in pattern.removesuffix("/")
    expression = re.compile(translated(pattern.strip("/")))
    paths = list(path.parents)[-2::-1] + ([] if pattern.endswith("/") else [path])  # without "."
    return any(expression.fullmatch(part.as_posix() if whole else part.name) for part in paths)


def translated(pattern: str) -> str:
    """A pattern as a regular expression."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "".join(WILDCARDS.get(part) or re.escape(part) for part in parts)
