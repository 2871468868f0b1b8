"""Processes that are killed at file-system events: forked, so that each starts with everything loaded."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

EVENTS = ("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_state: dict[str, int] = {}


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """Count the events that change the file system below a folder; end the process before the one that is wanted."""
    if not _state or event not in EVENTS:
        return
    if event == "open" and not _state["opening"] and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
        return
    if isinstance(arguments[0], str | bytes | os.PathLike) and os.fsdecode(arguments[0]).startswith(("/dev", "/proc")):
        return
    if _state["number"] == _state["last"]:
        os.kill(os.getpid(), signal.SIGKILL)
    _state["number"] += 1


_hooked = False


def forked(work: Callable[[], object], last: int = -1, *, opening: bool = False) -> tuple[int, int]:
    """Do `work` in a forked process that is killed before event number `last` (-1: never).

    Events are changes of the file system, and, with `opening`, the opening of files to read.

    Returns its exit code (-9: killed; what `work` returns where that is a number) and the number of events it got to.
    """
    global _hooked
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.close(reading)
            if not _hooked:
                sys.addaudithook(_watch)
            _state.update(number=0, last=last, opening=opening)
            result = work()
            code = result if isinstance(result, int) else 0
            os.write(writing, str(_state["number"]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(number or -1)


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file in `folder` and below (None: a folder), by relative name."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }
