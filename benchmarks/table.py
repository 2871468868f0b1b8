"""A table of heads that is filled row by row by several processes, and goes on where an earlier run of it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brgm_med.pipelines.evaluation import table as rows_of
from brgm_med.pipelines.evaluation.table import Row


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
    known = {(row["head"], row[what]) for row in rows_of.read(table)}
    lacking = [arguments for key, arguments in wanted.items() if key not in known]
    return rows_of.completed(table, lacking, job, order, tell, workers)


def scores(new: list[Row], digits: int = 3) -> str:
    """PSNR and LPIPS of every method of one job."""
    return "  ".join(f"{r['method']} {float(r['PSNR']):.2f}/{float(r['LPIPS'] or 'nan'):.{digits}f}" for r in new)
