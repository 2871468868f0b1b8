"""Peak memory of a piece of work."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak() -> Iterator[Callable[[], int | None]]:
    """Yields a function that, after the block, gives the bytes by which the process's resident memory grew at its peak.

    From Linux's VmHWM, which is reset first, after what was freed before has been given back (glibc's malloc_trim);
    None where the system has no such things.
    """
    before = None
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")
        before = _bytes("VmRSS")
    except (OSError, AttributeError):
        pass
    yield lambda: None if before is None else max(0, _bytes("VmHWM") - before)


def _bytes(entry: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) * 1024
