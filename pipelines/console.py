"""Messages, and the progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WITHHELD = "withheld (de-identified)"
"""Stands for the name of an input where the output is de-identified."""


LONGEST = 1000
"""Characters of a message; of a longer one the middle is left out."""

_withheld: list[str] = []
"""Names that are not printed, the longest first."""


def withhold(paths: Iterable[Path] = ()) -> None:
    """Print from now on, in this process, no name of `paths` nor of any file below them, and all others."""
    names = set()
    for path in paths:
        names |= {str(path), os.path.abspath(path), str(path.resolve()), path.name, path.name.split(".")[0]}
        for inside in path.rglob("*") if path.is_dir() else ():
            names |= {inside.name, str(inside.relative_to(path))}
    _withheld[:] = sorted(names - {"", ".", "/"}, key=len, reverse=True)


def shown(text: object, longest: int | None = LONGEST) -> str:
    """A text with names of files or words of others in it, as it may be printed: one line, of `longest` characters or a
    few more, harmless.

    Control characters, and what no encoding has, are escaped; names that are withheld are withheld.
    """
    line = str(text)
    for name in (name for name in _withheld if name in line):
        line = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", WITHHELD, line)
    line = " ".join(line.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    if longest is not None and len(line) > longest:
        line = f"{line[: longest * 3 // 4]} [...] {line[-longest // 5 :]}"
    return line


def say(line: str) -> None:
    """Print a message on standard error, as `shown`."""
    print(shown(line), file=sys.stderr, flush=True)


def announce(line: str) -> None:
    """Print a line on standard output, as `shown`; of processes that train together only the first does."""
    from brgm_med.training import distributed

    if distributed.rank() == 0:
        print(shown(line), flush=True)


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
