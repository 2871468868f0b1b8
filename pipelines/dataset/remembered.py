"""What is done of a study: for every scan the state of all files that its derivative was made of, and of its own.

A scan whose record is still true needs no look at its nodes. Where any state differs, Nipype decides, by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from brgm_med._version import __version__
from brgm_med.files import write_json
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.workflow.refusals import ENDING
from brgm_med.pipelines.workflow.write_back import FILES, POSE, SERIES, log_of
from brgm_med.priors import AUTO, SELF
from brgm_med.priors.bundle import find


def state_of(path: Path) -> list[object] | None:
    """What tells whether a file, or a folder with all in it, was changed; None where there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not path.is_dir():
        return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return [[p.relative_to(path).as_posix(), state_of(p)] for p in sorted(path.rglob("*")) if not p.is_dir()]


def prior_of(settings: Settings) -> str:
    """The identity of the population prior of a study; empty where it is one that is shipped, or none."""
    if settings.prior in (AUTO, SELF):
        return ""
    return str(state_of(find(settings.prior)))


def inputs_of(scans: Sequence[Scan], settings: Settings, prior: str, out: Path) -> str:
    """A hash of all that the derivatives in `out` of `scans` depend on; `prior`: see `prior_of`."""
    inputs = ((scan.path, scan.mask, *(path for path, _ in scan.further)) for scan in scans)
    files = [path for several in inputs for path in several if path is not None]
    return hashed(__version__, settings, prior, str(out), list(scans), [state_of(file) for file in files])


def outputs_of(scans: Sequence[Scan], out: Path) -> str:
    """A hash of the states of the derivatives in `out` of `scans`, and of the notes on them."""
    paths: list[Path] = []
    for scan in scans:
        base = out / scan.destination
        paths += [base.with_name(base.name + ending) for ending in (*FILES, *SERIES)]
        paths += [log_of(out, scan.destination, ending) for ending in (ENDING, POSE)]
    return hashed([state_of(path) for path in paths])


def hashed(*content: object) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "surrogateescape")).hexdigest()


def is_done(record: Path, inputs: str, outputs: str) -> bool:
    """True where a record says that work on these `inputs` ended with these `outputs`."""
    try:
        return bool(json.loads(record.read_text()) == {"inputs": inputs, "outputs": outputs})
    except (OSError, ValueError, RecursionError):
        return False


def remember(record: Path, inputs: str, outputs: str) -> None:
    """Record that work on `inputs` has ended with `outputs`. Raises CannotWriteError."""
    write_json(record, {"inputs": inputs, "outputs": outputs}, force=True)
