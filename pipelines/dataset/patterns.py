"""Patterns of paths in which {names} stand for what is known of a scan, and the files that they find."""

from __future__ import annotations

import re
from collections.abc import Mapping
from glob import escape
from pathlib import Path, PurePosixPath

from brgm_med.errors import UsageError

FIELD = re.compile(r"\{([^{}]*)\}")


def matching(root: Path, pattern: str, known: Mapping[str, str], scan: str) -> list[Path]:
    """The files below `root` that `pattern` finds, sorted; a {name} in it is one of `known`, taken literally.

    Raises UsageError for a pattern that is empty, absolute, leads out of `root` or is none, and for a name that the
    scan called `scan` has not.
    """

    def literal(field: re.Match[str]) -> str:
        if field[1] not in known:
            raise UsageError(f"--mask-pattern {pattern}: {scan} has no {field[1]!r}")
        return escape(known[field[1]])

    wanted = PurePosixPath(FIELD.sub(literal, pattern))
    if not pattern.strip() or wanted.is_absolute() or ".." in wanted.parts or not wanted.parts:
        raise UsageError(f"--mask-pattern {pattern!r}: give a path from the study's folder on, without ..")
    try:
        return sorted(path for path in root.glob(str(wanted)) if path.is_file())
    except (ValueError, NotImplementedError, OSError, re.error) as error:
        raise UsageError(f"--mask-pattern {pattern}: is no pattern of paths ({error})") from error
