"""A table that is filled row by row by several processes, and goes on where an earlier run of it stopped."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError
from brgm_med.files import replacing
from brgm_med.processes import share

Row = dict[str, str]


def read(table: Path) -> list[Row]:
    """The rows of a CSV file, none where there is no file. Raises InputRefusedError for a damaged one."""
    if not table.is_file():
        return []
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputRefusedError(f"{table}: cannot be read ({error}); move it away") from error
    if any(None in row or None in row.values() for row in rows):
        raise InputRefusedError(f"{table}: is not a table that this made; move it away")
    return rows


def write(table: Path, rows: Sequence[Row]) -> None:
    """Replace the CSV file by these rows, whole or not at all. Columns are the first row's."""
    with replacing(table, force=True) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """Rows by their entry in a column, in the table's order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def completed(
    table: Path,
    jobs: Sequence[Sequence[Any]],
    job: Callable[..., list[Row]],
    order: Callable[[Row], Any],
    tell: Callable[[list[Row]], str],
    workers: int,
) -> list[Row]:
    """All rows of `table` (CSV), sorted by `order`, after `job(*arguments)` for each of `jobs` added its own.

    Whatever a job returns is written at once, and told as a line: `jobs` are those that the table still lacks.
    Jobs run in fresh processes, `workers` at a time, and end with this one. Raises what a job raises.
    """
    rows = read(table)
    if not jobs:
        return rows
    done = count(1)

    def add(new: list[Row]) -> None:
        rows.extend(new)
        rows.sort(key=order)
        write(table, rows)
        print(f"{next(done)} of {len(jobs)}: {tell(new)}", flush=True)

    ended = (
        "a process was ended from outside, perhaps for want of memory; run the same command again, with fewer --workers"
    )
    share(jobs, job, min(workers, len(jobs)), add, broken=ended)
    return rows
