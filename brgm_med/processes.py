"""A pool of processes that end with the one that started them, and work whose time is bounded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any, TypeVar

from brgm_med.errors import BrgmError

Result = TypeVar("Result")


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


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """`work()`, in a thread of its own. Raises what it raises, and TimeoutError where it takes longer than `seconds`.

    It is left to itself then, and ends with the process at the latest.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


@contextmanager
def ending_children(patience: float = 5.0) -> Iterator[None]:
    """End the processes that are started in here, where an error or an interruption ends this; then go on with that.

    One that has not ended `patience` seconds after it was asked to is killed.
    """
    others = set(active_children())
    try:
        yield
    except BaseException:
        children = set(active_children()) - others
        for child in children:
            child.terminate()
        until = time.monotonic() + patience
        for child in children:
            child.join(max(0.0, until - time.monotonic()))
            child.kill()
            child.join()
        raise


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
    # Not forked: torch's and SimpleITK's threads do not survive that.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin, arguments)
    try:
        with ending_children():  # where a job is refused, what is under way is of no use, and files are written whole
            for future in as_completed([pool.submit(work, *job) for job in jobs]):
                each(future.result())
    except BrokenProcessPool as error:
        raise BrgmError(broken) from error
    finally:
        pool.shutdown(cancel_futures=True)
