"""A table that is filled row by row by several processes, and goes on where an earlier run of it stopped."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Row = dict[str, str]


def completed(
    table: Path,
    wanted: dict[tuple[str, str], Sequence[Any]],
    what: str,
    job: Callable[..., list[Row]],
    order: Callable[[Row], Any],
    tell: Callable[[list[Row]], str],
    workers: int,
) -> list[Row]:
    """All rows of `table` (CSV), sorted by `order`, after `job(*arguments)` has made those that it lacked.

    `wanted`: the arguments by the entries of the columns "head" and `what`. Whatever a job returns is written at once,
    and told as a line.
    """
    rows = list(csv.DictReader(table.open())) if table.is_file() else []
    known = {(row["head"], row[what]) for row in rows}
    lacking = [arguments for key, arguments in wanted.items() if key not in known]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(job, *arguments) for arguments in lacking]):
            new = done.result()
            rows = sorted(rows + new, key=order)
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            print(tell(new), flush=True)
    return rows


def scores(new: list[Row], digits: int = 3) -> str:
    """PSNR and LPIPS of every method of one job."""
    return "  ".join(f"{r['method']} {float(r['PSNR']):.2f}/{float(r['LPIPS'] or 'nan'):.{digits}f}" for r in new)
