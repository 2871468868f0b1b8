"""The job of a table that is cheap to import, as fresh processes must: squares of numbers."""

from __future__ import annotations

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.evaluation import table


def square(number: int) -> list[table.Row]:
    """One row; InputRefusedError for a negative number."""
    if number < 0:
        raise InputRefusedError("negative")
    return [{"number": str(number), "square": str(number**2)}]


def by_number(entry: table.Row) -> int:
    return int(entry["number"])


def line(new: list[table.Row]) -> str:
    return new[0]["square"]
