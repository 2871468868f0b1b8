"""One study's report: a table of its subjects with what is unusual marked, and the same table as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from brgm_med._version import __version__
from brgm_med.files import check_output, replacing
from brgm_med.pipelines.report.outcome import Outcome
from brgm_med.pipelines.report.page import asset, banner, document, e, table
from brgm_med.pipelines.report.words import at, number
from brgm_med.pipelines.results.certificate import STATEMENT

FEWEST = 5
"""Of fewer values than this none is called unusual."""

FAR = 3.5
"""A robust z beyond this is marked (Iglewicz and Hoaglin 1993, How to detect and handle outliers)."""


@dataclass(frozen=True)
class Column:
    """A number of a certificate; `scale` makes it comparable (a logarithm for what spans magnitudes)."""

    key: str
    title: str
    where: tuple[str, ...]
    scale: Callable[[float], float] = float


def _log(value: float) -> float:
    return math.log10(max(value, 1e-12))


COLUMNS = (
    Column("relative_residual", "relative residual", ("consistency", "relative_residual"), _log),
    Column("max_abs_residual", "largest residual", ("consistency", "max_abs_residual"), _log),
    Column("registration_correlation", "registration correlation", ("registration", "correlation")),
    Column("registration_scale", "scale", ("registration", "scale")),
    Column("residual_rms", "residual (root mean square)", ("consistency", "residual_rms"), _log),
    Column("noise_deviation", "noise (standard deviation)", ("consistency", "noise_deviation"), _log),
    Column("explained", "explained by the scans", ("explained_by_the_scans", "mean")),
    Column("voxels_with_prior", "reached by the prior", ("coverage", "voxels_with_prior")),
    Column("hole_voxels", "voxels of the hole", ("hole", "voxels"), _log),
    Column("inferred_by_the_prior", "of these inferred by the prior", ("hole", "inferred_by_the_prior")),
)


def study_report(out: Path, subjects: Sequence[Outcome], *, title: str = "Study", force: bool = False) -> Path:
    """Write the table of `subjects`, in their order, to `out` (HTML) and beside it, ending in .csv, as CSV.

    Columns that no certificate fills are left out. Links to the subjects' reports are relative to `out`. Raises as
    `files.check_output` does.
    """
    sheet = out.with_suffix(".csv")
    check_output(out, force)
    check_output(sheet, force)
    values = [[_finite(at(subject.certificate, *column.where)) for column in COLUMNS] for subject in subjects]
    filled = [i for i in range(len(COLUMNS)) if any(row[i] is not None for row in values)]
    columns = [COLUMNS[i] for i in filled]
    values = [[row[i] for i in filled] for row in values]
    scores = _scores(columns, values)
    with replacing(sheet, force) as temporary:
        temporary.write_text(_csv(subjects, columns, values, scores), encoding="utf-8")
    page = _page(title, out, sheet, subjects, columns, values, scores)
    with replacing(out, force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def robust_z(values: Sequence[float]) -> list[float]:
    """0.6745 (x - median) / MAD; where the MAD is 0, (x - median) / (1.2533 times the mean absolute deviation).

    All 0 for fewer than `FEWEST` values, or for values that are all alike.
    """
    if len(values) < FEWEST:
        return [0.0] * len(values)
    middle = statistics.median(values)
    away = [abs(v - middle) for v in values]
    spread = statistics.median(away) / 0.6745 or 1.2533 * statistics.fmean(away)
    if spread <= 1e-9 * max(abs(v) for v in values):
        return [0.0] * len(values)
    return [(v - middle) / spread for v in values]


def _finite(value: Any) -> float | int | None:
    return value if number(value) is not None and math.isfinite(value) else None


def _scores(columns: Sequence[Column], values: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """Robust z of every value among the subjects that have one; 0 where there is none."""
    scores = [[0.0] * len(columns) for _ in values]
    for c, column in enumerate(columns):
        filled = [i for i, row in enumerate(values) if row[c] is not None]
        for i, z in zip(filled, robust_z([column.scale(float(values[i][c] or 0)) for i in filled]), strict=True):
            scores[i][c] = z
    return scores


def _marked(columns: Sequence[Column], scores: Sequence[float]) -> list[str]:
    return [column.key for column, z in zip(columns, scores, strict=True) if abs(z) > FAR]


def _csv(
    subjects: Sequence[Outcome],
    columns: Sequence[Column],
    values: Sequence[Sequence[float | None]],
    scores: Sequence[Sequence[float]],
) -> str:
    """Numbers in full. Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["subject", "status", "reason", *(c.key for c in columns), "outlier_in"])
    for subject, row, z in zip(subjects, values, scores, strict=True):
        numbers = ["" if v is None else repr(v) for v in row]
        text = [_harmless(t) for t in (subject.name, subject.status, subject.reason)]
        writer.writerow([*text, *numbers, " ".join(_marked(columns, z))])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _page(
    title: str,
    out: Path,
    sheet: Path,
    subjects: Sequence[Outcome],
    columns: Sequence[Column],
    values: Sequence[Sequence[float | None]],
    scores: Sequence[Sequence[float]],
) -> str:
    lines = []
    for subject, row, z in zip(subjects, values, scores, strict=True):
        name = e(subject.name)
        if subject.report is not None:
            link = os.path.relpath(subject.report, out.parent).replace(os.sep, "/")
            name = f'<a href="{e(quote("./" + link))}">{name}</a>'
        status = (
            e(subject.status) if subject.status == "done" else f'<strong class="outlier">{e(subject.status)}</strong>'
        )
        lines.append([name, status, *(_cell(v, s) for v, s in zip(row, z, strict=True)), e(subject.reason)])
    counts = {s: sum(x.status == s for x in subjects) for s in ("done", "refused", "failed")}
    unusual = sum(bool(_marked(columns, z)) for z in scores)
    summary = (
        f"{len(subjects)} subjects: {counts['done']} done, {counts['refused']} refused, {counts['failed']} failed. "
        f"{unusual} with an unusual value."
    )
    method = (
        "A value is marked as unusual where its robust z, 0.6745 times its distance from the median over the median "
        f"absolute deviation, is beyond {FAR}; residuals, noise and the hole's size are compared by their logarithms. "
        f"Of fewer than {FEWEST} values none is marked. Unusual is not wrong, nor is usual right: look at the "
        "subject's report."
    )
    body = (
        f"{banner(STATEMENT)}<header><h1>{e(title)}</h1>"
        f"<p>Report of a study by brgm-med {__version__}</p></header><main><p>{e(summary)}</p><p>{e(method)}</p>"
        f'<p>The same table, with all digits: <a href="{e(quote("./" + sheet.name))}">{e(sheet.name)}</a></p>'
        + table(["subject", "status", *(e(c.title) for c in columns), "reason"], lines, "Subjects")
        + f"</main><footer><p>{e(STATEMENT)}</p></footer>"
    )
    return document(title, body, [asset("sort.js")])


def _cell(value: float | None, z: float) -> str:
    if value is None:
        return ""
    text = f'<data value="{value!r}">{e(number(value))}</data>'
    return f'<span class="outlier">{text} (unusual, z {z:+.1f})</span>' if abs(z) > FAR else text
