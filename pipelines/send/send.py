"""Sending DICOM files to an archive: how often it is tried, and what came of it.

A file goes as it is, in its own transfer syntax; nothing is re-encoded. Names of files and folders may hold names of
patients, so a file is called by its SOP Instance UID here. The two ways to send are `c_store` and `stow`.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

from brgm_med.errors import CannotWriteError, UsageError
from brgm_med.extras import require
from brgm_med.pipelines.console import progress, say, shown
from brgm_med.pipelines.send.protocol import Sender, UnreachableError, instances_in
from brgm_med.transforms.formats.dicom.passed import said

RETRIES = 3


def sender_to(target: str, calling: str) -> Sender:
    """`target` is AET@host:port (C-STORE) or http(s)://.../studies (STOW-RS). Raises UsageError for another one, and
    MissingPackageError."""
    require("pacs", "dicomweb_client" if "://" in target else "pynetdicom")
    from brgm_med.pipelines.send import c_store, stow

    if "://" in target:
        return partial(stow.send, stow.check(target))
    return partial(c_store.send, c_store.Peer.of(target, calling))


def send(
    path: Path,
    target: str,
    *,
    calling: str = "BRGM-MED",
    retries: int = RETRIES,
    pause: float = 1.0,
    allow_missing_files: bool = False,
) -> int:
    """Store every DICOM file at `path` in the archive `target`; returns how many were stored.

    One line for each on stdout, once what became of it is settled. What may succeed later is tried `retries` times
    more, after `pause` seconds, four times as many, and so on. Raises CannotWriteError unless all are stored, and as
    `instances_in` does.
    """
    if retries < 0:
        raise UsageError("--retries: must not be negative")
    sender = sender_to(target, calling)
    waiting, others = instances_in(path, allow_missing_files)
    count = len(waiting)
    say(f"{count} to send to {target}" + (f", {len(others)} skipped (no DICOM instances)" if others else ""))
    if others:
        say(said(others, withheld=True))
    lost: Counter[str] = Counter()
    with progress("sent", count) as advance:
        for attempt in range(retries + 1):
            last = attempt == retries
            if attempt:
                seconds = pause * 4 ** (attempt - 1)
                say(f"{len(waiting)} not stored yet; next attempt in {seconds:g} s")
                time.sleep(seconds)
            answered, unreachable = {}, None
            try:
                with closing(sender(waiting)) as answers:  # an interruption ends the association too
                    for instance, result in answers:
                        answered[instance] = result
                        if result.stored or last or not result.later:
                            lost.update([] if result.stored else [result.text])
                            print(shown(f"{instance.uid}: {result.text}"), flush=True)
                            advance(f"{lost.total()} not stored" if lost else "")
            except UnreachableError as error:
                unreachable = error
            silent = [i for i in waiting if i not in answered]
            if silent and (last or (unreachable and not unreachable.later)):
                lost[str(unreachable)] += len(silent)
                silent = []
            waiting = silent + [i for i, result in answered.items() if not result.stored and result.later]
            if last or not waiting:
                break
    if lost:
        reasons = ", ".join(f"{number} {text}" for text, number in lost.most_common())
        raise CannotWriteError(f"{path}: {lost.total()} of {count} were not stored at {target}: {reasons}")
    say(f"stored {count} of {count} at {target}")
    return count
