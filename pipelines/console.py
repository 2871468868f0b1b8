"""Messages, and the progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
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


class _OnStderr(logging.Handler):
    """Lines on what is standard error when they are printed; with their time where all is to be said."""

    def emit(self, record: logging.LogRecord) -> None:
        dated = DATED.format(record) if LOG.level == logging.DEBUG else record.getMessage()
        print(dated, file=sys.stderr, flush=True)


LOG = logging.getLogger("brgm_med")
"""All messages go through it: errors, warnings, what is done (INFO), and details of that (DEBUG)."""

DATED = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
LOG.addHandler(_OnStderr())
LOG.propagate = False
LOG.setLevel(logging.INFO)


def speak(quiet: bool = False, verbose: bool = False) -> None:
    """Print warnings and errors alone, or details too, from now on."""
    LOG.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def say(line: str, level: int | None = None) -> None:
    """Print a message on standard error, as `shown`; by default a warning where it says that it is one, else INFO."""
    usual = logging.WARNING if line.startswith("warning: ") else logging.INFO
    LOG.log(usual if level is None else level, "%s", shown(line))


def give(path: Path) -> None:
    """Print the path of a result on standard output, for other programs."""
    print(shown(path, longest=None), flush=True)


def announce(line: str) -> None:
    """Print a line on standard output, as `shown`; of processes that train together only the first does."""
    from brgm_med.training import distributed

    if distributed.rank() == 0:
        print(shown(line), flush=True)


@contextmanager
def progress(label: str, total: int, every: float = 10.0) -> Iterator[Callable[[str], None]]:
    """Yields `advance(note)`, to be called after each of `total` steps; writes to stderr, notes only where details are
    wanted, and then each."""
    details = LOG.isEnabledFor(logging.DEBUG)
    if sys.stderr.isatty() and LOG.isEnabledFor(logging.INFO):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TimeRemainingColumn

        count = "{task.completed} of {task.total}"
        columns = ("{task.description}", BarColumn(), count, TimeRemainingColumn(), "{task.fields[note]}")
        with Progress(*columns, console=Console(file=sys.stderr)) as bar:  # also while sys.stderr is a step's log
            task = bar.add_task(label, total=total, note="")
            yield lambda note: bar.update(task, advance=1, note=note if details else "")
        return
    begun = said = time.monotonic()
    done = 0

    def advance(note: str) -> None:
        nonlocal said, done
        done += 1
        now = time.monotonic()
        if done == total or now - said >= every or details:
            said = now
            say(f"{label}, {done} of {total}, {now - begun:.0f} s" + f": {note}" * bool(details and note))

    yield advance


@contextmanager
def search_progress(steps: int) -> Iterator[Callable[[int, dict[str, Tensor]], None]]:
    """Progress of a MAP search of so many steps: yields the solver's `callback`, which tells the mean energies."""
    from brgm_med.energies import summary  # torch is loaded where there is a search

    with progress("searching the most probable image", steps) as advance:
        yield lambda _step, terms: advance(summary(terms))
