"""One study's report: a table of its subjects with what is unusual marked, and the same table as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from brgm_med._version import __version__
from brgm_med.files import check_output, moved
from brgm_med.pipelines.report.entries import at, number, own_prior, population_prior
from brgm_med.pipelines.report.page import asset, banner, document, e, table
from brgm_med.pipelines.results.certificate import STATEMENT

FEWEST = 5
"""Of fewer values than this none is called unusual."""

FAR = 3.5
"""A robust z beyond this is marked (Iglewicz and Hoaglin 1993, How to detect and handle outliers)."""


@dataclass(frozen=True)
class Outcome:
    """`name` of a scan, its status (failed: a step crashed, or was not run yet), the `reason` why it was refused or
    failed, and, where it is done, its `certificate` and the page that reports on it."""

    name: str
    status: Literal["done", "refused", "failed"]
    reason: str = ""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None


@dataclass(frozen=True)
class Column:
    """A number of a certificate; `scale` makes it comparable (a logarithm for what spans magnitudes)."""

    key: str
    title: str
    entry: tuple[str, ...]
    scale: Callable[[float], float] = float


def _log(value: float) -> float:
    return math.log10(max(value, 1e-12))


COLUMNS = (
    Column("relative_residual", "relative residual", ("consistency", "relative_residual"), _log),
    Column("max_abs_residual", "largest residual", ("consistency", "max_abs_residual"), _log),
    Column("own_weight", "weight of the scan's own prior (a)", ("own_prior", "weight")),
    Column("population_weight", "weight of the population prior (b)", ("population_prior", "weight")),
    Column("registration_correlation", "registration correlation", ("registration", "correlation")),
    Column("registration_scale", "scale", ("registration", "scale")),
    Column("residual_rms", "residual (root mean square)", ("consistency", "residual_rms"), _log),
    Column("noise_deviation", "noise (standard deviation)", ("consistency", "noise_deviation"), _log),
    Column("explained", "explained by the scans", ("explained_by_the_scans", "mean")),
    Column("voxels_with_prior", "reached by the prior", ("coverage", "voxels_with_prior")),
    Column("hole_voxels", "voxels of the hole", ("hole", "voxels"), _log),
    Column("inferred_by_the_prior", "of these inferred by the prior", ("hole", "inferred_by_the_prior")),
)


Cell = tuple[float | None, float]
"""A number, None where the certificate has none, and its robust z among the subjects that have one (else 0)."""

Row = tuple[Outcome, list[Cell]]


def study_report(
    out: Path, subjects: Sequence[Outcome], *, title: str = "Study", force: bool = False, like: Sequence[Path] = ()
) -> Path:
    """Write the table of `subjects`, in their order, to `out` (HTML) and beside it, ending in .csv, as CSV.

    Columns that no certificate fills are left out. Links to the subjects' reports are relative to `out`. Nobody may
    read either who may not read all of `like`. Raises as `files.replacing` does.
    """
    sheet = out.with_suffix(".csv")
    cells = {column: _cells(column, subjects) for column in COLUMNS}
    columns = [column for column in COLUMNS if any(value is not None for value, _ in cells[column])]
    rows = [(subject, [cells[column][i] for column in columns]) for i, subject in enumerate(subjects)]
    for path in (out, sheet):
        check_output(path, force)
    with moved([out, sheet], force, like) as (new_page, new_sheet):
        new_page.write_text(_page(title, out, sheet, columns, rows), encoding="utf-8")
        new_sheet.write_text(_csv(columns, rows), encoding="utf-8")
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


def _cells(column: Column, subjects: Sequence[Outcome]) -> list[Cell]:
    entries = [at(_by_origin(subject.certificate), *column.entry) for subject in subjects]
    values = [v if number(v) is not None and math.isfinite(v) else None for v in entries]
    scores = iter(robust_z([column.scale(value) for value in values if value is not None]))
    return [(value, 0.0 if value is None else next(scores)) for value in values]


def _by_origin(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate with its priors as `own_prior` and `population_prior`, whichever reconstructed alone."""
    priors = {"own_prior": own_prior(certificate), "population_prior": population_prior(certificate)}
    return {**certificate, **priors}


def _marked(columns: Sequence[Column], cells: Sequence[Cell]) -> list[str]:
    return [column.key for column, (_, z) in zip(columns, cells, strict=True) if abs(z) > FAR]


def _csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Numbers in full. Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["subject", "status", "reason", *(c.key for c in columns), "outlier_in"])
    for subject, cells in rows:
        numbers = ["" if value is None else repr(value) for value, _ in cells]
        text = [_harmless(t) for t in (subject.name, subject.status, subject.reason)]
        writer.writerow([*text, *numbers, " ".join(_marked(columns, cells))])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _page(title: str, out: Path, sheet: Path, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = []
    for subject, cells in rows:
        name, status = e(subject.name), e(subject.status)
        if subject.report is not None:
            link = os.path.relpath(subject.report, out.parent).replace(os.sep, "/")
            name = f'<a href="{e(quote("./" + link))}">{name}</a>'
        if subject.status != "done":
            status = f'<strong class="outlier">{status}</strong>'
        lines.append([name, status, *(_cell(value, z) for value, z in cells), e(subject.reason)])
    counts = Counter(subject.status for subject, _ in rows)
    unusual = sum(bool(_marked(columns, cells)) for _, cells in rows)
    summary = (
        f"{len(rows)} subjects: {counts['done']} done, {counts['refused']} refused, {counts['failed']} failed. "
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
