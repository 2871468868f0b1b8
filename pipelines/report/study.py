"""One study's report: a table of its scans with what is unusual marked, and the same table as CSV and as TSV."""

from __future__ import annotations

import csv
import io
import os
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from brgm_med._version import __version__
from brgm_med.files import check_output, moved
from brgm_med.pipelines.console import shown
from brgm_med.pipelines.report.entries import number
from brgm_med.pipelines.report.outliers import COLUMNS, FAR, FEWEST, Cell, Column, cells, marked
from brgm_med.pipelines.report.page import asset, document, filled, icon_of
from brgm_med.pipelines.results.certificate import STATEMENT

SUBJECT = re.compile(r"sub-[0-9A-Za-z]+")
MOST_BYTES = 64_000_000
BINS = 16


@dataclass(frozen=True)
class Outcome:
    """`name` of a scan, its status (failed: a step crashed, or was not run yet), the `reason` why it was refused or
    failed, and, where it is done, its `certificate` and the page that reports on it."""

    name: str
    status: Literal["done", "refused", "failed"]
    reason: str = ""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None

    @property
    def subject(self) -> str:
        """BIDS's label of the person; the name of what has none."""
        label = SUBJECT.search(self.name)
        return label[0] if label else self.name


Row = tuple[Outcome, list[Cell]]


def study_report(
    out: Path, scans: Sequence[Outcome], *, title: str = "Study", force: bool = False, like: Sequence[Path] = ()
) -> Path:
    """Write the table of `scans`, in their order, to `out` (HTML) and beside it, ending in .csv and .tsv, as text.

    Columns that no certificate fills are left out, and of the page those in a scan's own units. Links to the scans'
    reports are relative to `out`, and their thumbnails are those reports' icons. Nobody may read any of it who may not
    read all of `like`. Raises as `files.replacing` does.
    """
    sheets = {out.with_suffix(".csv"): ",", out.with_suffix(".tsv"): "\t"}
    certificates = [scan.certificate for scan in scans]
    numbers = {column: cells(column, certificates) for column in COLUMNS}
    columns = [column for column in COLUMNS if any(value is not None for value, _ in numbers[column])]
    rows = [(scan, [numbers[column][i] for column in columns]) for i, scan in enumerate(scans)]
    for path in (out, *sheets):
        check_output(path, force)
    with moved([out, *sheets], force, like) as (page, *texts):
        page.write_text(_page(title, out, [*sheets], columns, rows), encoding="utf-8")
        for text, delimiter in zip(texts, sheets.values(), strict=True):
            text.write_text(_sheet(columns, rows, delimiter), encoding="utf-8")
    return out


def _sheet(columns: Sequence[Column], rows: Sequence[Row], delimiter: str) -> str:
    """Numbers in full; n/a for what is not there in TSV, as BIDS wants it. Text that a spreadsheet would run as a
    formula gets an apostrophe before it."""
    absent = "n/a" if delimiter == "\t" else ""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["subject", "status", "reason", *(c.key for c in columns), "outlier_in"])
    for scan, row in rows:
        values = [absent if value is None else repr(value) for value, _ in row]
        text = [_harmless(shown(t)) or absent for t in (scan.name, scan.status, scan.reason)]
        writer.writerow([*text, *values, " ".join(marked(columns, row)) or absent])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _page(title: str, out: Path, sheets: Sequence[Path], columns: Sequence[Column], rows: Sequence[Row]) -> str:
    def link(path: Path) -> str:
        return quote("./" + os.path.relpath(path, out.parent).replace(os.sep, "/"))

    counts = Counter(scan.status for scan, _ in rows)
    unusual = sum(bool(marked(columns, row)) for _, row in rows)
    subjects = len({scan.subject for scan, _ in rows})
    of = f"{len(rows)} scan{'s' * (len(rows) != 1)} of {subjects} subject{'s' * (subjects != 1)}"
    summary = (
        f"{of}: {counts['done']} done, {counts['refused']} refused, {counts['failed']} failed. {unusual} with an "
        "unusual value."
    )
    compared = [i for i, column in enumerate(columns) if column.floor is not None]
    lines = [
        {
            "name": re.split("(?<=[/_])", scan.name),
            "link": None if scan.report is None else link(scan.report),
            "icon": None if scan.report is None else icon_of(scan.report),
            "status": scan.status,
            "reason": scan.reason,
            "unusual": bool(marked(columns, row)),
            "cells": [(repr(v), number(v), f"{z:+.1f}" if abs(z) > FAR else "") for v, z in (row[i] for i in compared)],
        }
        for scan, row in rows
    ]
    body = filled(
        "study.html",
        statement=STATEMENT,
        title=title,
        version=__version__,
        summary=summary,
        far=FAR,
        fewest=FEWEST,
        sheets=[(sheet.name, link(sheet)) for sheet in sheets],
        charts=[chart for i, column in enumerate(columns) if (chart := _chart(column, [row[i] for _, row in rows]))],
        columns=[columns[i].title for i in compared],
        lines=lines,
    )
    return document(title, body, [asset("table.js")], most=MOST_BYTES)


def _chart(column: Column, row: Sequence[Cell]) -> dict[str, Any] | None:
    """A histogram of a column, bars of a picture 200 by 60; None where it is not drawn, or has too few values."""
    values = [value for value, _ in row if value is not None]
    if not column.drawn or len(values) < FEWEST:
        return None
    scaled = np.array([column.scale(value) for value in values])
    middle, floor = float(np.median(scaled)), column.floor or 0.0
    low, high = min(scaled.min(), middle - 4 * floor), max(scaled.max(), middle + 4 * floor)
    counts = np.histogram(scaled, BINS, (low, high))[0]
    width, height = 200 / BINS, 54 / counts.max()
    bars = [
        {"x": f"{i * width:.1f}", "y": f"{60 - n * height:.1f}", "height": f"{n * height:.1f}"}
        for i, n in enumerate(counts.tolist())
    ]
    ends = {
        "least": number(min(values)),
        "middle": number(float(statistics.median(values))),
        "most": number(max(values)),
    }
    return {"title": column.title, "count": len(values), "bars": bars, "width": f"{width - 1:.1f}", **ends}
