"""A pool of processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any

from brgm_med.errors import BrgmError


@cache
def die_with_parent() -> None:
    """End, in a process of a pool, with the process that started it, however that ends. Elsewhere nothing happens."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def follow() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def share(
    jobs: Sequence[Sequence[Any]],
    work: Callable[..., Any],
    workers: int,
    each: Callable[[Any], None],
    *,
    broken: str,
    begin: Callable[..., None] = die_with_parent,
    arguments: tuple[Any, ...] = (),
) -> None:
    """Have `workers` fresh processes do `work(*job)` for each of `jobs`; `each` takes a result as soon as it is there.

    Every process starts with `begin(*arguments)`. Raises what a job raises, and BrgmError(`broken`) where a process was
    ended from outside; then, as on an interruption, the others are ended at once.
    """
    others = set(active_children())
    # Not forked: torch's and SimpleITK's threads do not survive that.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin, arguments)
    try:
        for future in as_completed([pool.submit(work, *job) for job in jobs]):
            each(future.result())
    except BrokenProcessPool as error:
        raise BrgmError(broken) from error
    except BaseException:  # refused or interrupted: what is under way is of no use, and files are written whole
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
