"""Processes of a pool."""

from __future__ import annotations

import os
import threading
from functools import cache
from multiprocessing import connection, parent_process


@cache
def die_with_parent() -> None:
    """In a process of a pool: end with the process that started it, however that ends. Elsewhere nothing happens."""
    parent = parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def follow() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
