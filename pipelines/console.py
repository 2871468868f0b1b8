"""Messages, and the progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def say(line: str) -> None:
    """Print a message on standard error."""
    print(line, file=sys.stderr, flush=True)


def announce(line: str) -> None:
    """Print a line on standard output; of processes that train together only the first does."""
    from brgm_med.training import distributed

    if distributed.rank() == 0:
        print(line, flush=True)


@contextmanager
def progress(label: str, total: int, every: float = 10.0) -> Iterator[Callable[[str], None]]:
    """Yields `advance(note)`, to be called after each of `total` steps; writes to stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), TimeRemainingColumn(), "{task.fields[note]}")
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, note="")
            yield lambda note: bar.update(task, advance=1, note=note)
        return
    begun = said = time.monotonic()
    done = 0

    def advance(note: str) -> None:
        nonlocal said, done
        done += 1
        now = time.monotonic()
        if done == total or now - said >= every:
            said = now
            print(f"{label}: {done}/{total}  {now - begun:.0f} s  {note}", file=sys.stderr, flush=True)

    yield advance


@contextmanager
def search_progress(steps: int) -> Iterator[Callable[[int, dict[str, Tensor]], None]]:
    """Progress of a MAP search of so many steps: yields the solver's `callback`, which tells the mean energies."""
    with progress("MAP", steps) as advance:
        yield lambda _step, terms: advance("  ".join(f"{k} {float(v.mean()):.1f}" for k, v in terms.items()))
