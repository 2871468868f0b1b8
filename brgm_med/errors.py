"""Errors that end a command with one clear line and an exit code of their own."""

from pathlib import Path
from typing import NoReturn


class BrgmError(Exception):
    """An error that a user can act on. Its message is one line: which file, what is wrong, what to do."""

    exit_code = 1


class UsageError(BrgmError):
    """The command was called wrongly."""

    exit_code = 2


class InputRefusedError(BrgmError):
    """The input cannot be used as it is: nothing was computed and nothing was written."""

    exit_code = 3


class CannotWriteError(BrgmError):
    """The result could not be written; nothing stands at the final name."""

    exit_code = 4


class PriorError(BrgmError):
    """A prior or a weights file is missing or damaged."""

    exit_code = 5


def refuse(path: Path | str, problem: str, advice: str) -> NoReturn:
    """Raise InputRefusedError for the file at `path`, in one line."""
    raise InputRefusedError(" ".join(f"{path}: {problem}; {advice}".splitlines()))
