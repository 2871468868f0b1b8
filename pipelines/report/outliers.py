"""Numbers of a study's certificates, and which of them are unusual."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brgm_med.pipelines.report.entries import at, number, own_prior, population_prior

FEWEST = 5
"""Of fewer values than this none is called unusual."""

FAR = 3.5
"""A robust z beyond this is marked (Iglewicz and Hoaglin 1993, How to detect and handle outliers)."""

ROUNDING = 1e-4
"""Relative residuals below this are rounding, and all alike."""


def _log(value: float) -> float:
    return math.log10(max(value, ROUNDING))


@dataclass(frozen=True)
class Column:
    """A number of a certificate. `scale` makes it comparable (a logarithm for what spans magnitudes); `floor`: the
    least spread, on that scale, that values are taken to have; None: they are not compared, for each scan has its own
    units. `drawn`: its distribution is."""

    key: str
    title: str
    entry: tuple[str, ...]
    floor: float | None = None
    scale: Callable[[float], float] = float
    drawn: bool = False


COLUMNS = (
    Column("relative_residual", "relative residual", ("consistency", "relative_residual"), 0.1, _log, drawn=True),
    Column("max_abs_residual", "largest residual", ("consistency", "max_abs_residual")),
    Column("own_weight", "weight of own prior", ("own_prior", "weight"), 0.05, drawn=True),
    Column("population_weight", "weight of population prior", ("population_prior", "weight"), 0.05, drawn=True),
    Column("registration_correlation", "correlation", ("registration", "correlation"), 0.02, drawn=True),
    Column("registration_scale", "scale", ("registration", "scale"), 0.01),
    Column("residual_rms", "residual (RMS)", ("consistency", "residual_rms")),
    Column("noise_deviation", "noise (SD)", ("consistency", "noise_deviation")),
    Column("explained", "measured", ("explained_by_the_scans", "mean"), 0.02),
    Column("voxels_with_prior", "reached by prior", ("coverage", "voxels_with_prior"), 0.02),
    Column("hole_voxels", "hole (voxels)", ("hole", "voxels"), 0.1, lambda v: math.log10(max(v, 1.0))),
    Column("inferred_by_the_prior", "inferred by prior", ("hole", "inferred_by_the_prior"), 0.02),
)

Cell = tuple[float | None, float]
"""A number, None where the certificate has none, and its robust z among the scans that have one (else 0)."""


def cells(column: Column, certificates: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """The column's cell of each certificate."""
    entries = [at(_by_origin(certificate), *column.entry) for certificate in certificates]
    values = [v if number(v) is not None and math.isfinite(v) else None for v in entries]
    if column.floor is None:
        return [(value, 0.0) for value in values]
    scores = iter(robust_z([column.scale(value) for value in values if value is not None], column.floor))
    return [(value, 0.0 if value is None else next(scores)) for value in values]


def marked(columns: Sequence[Column], row: Sequence[Cell]) -> list[str]:
    """The keys of the columns in which a scan is unusual."""
    return [column.key for column, (_, z) in zip(columns, row, strict=True) if abs(z) > FAR]


def robust_z(values: Sequence[float], floor: float = 0.0) -> list[float]:
    """0.6745 (x - median) / MAD; where the MAD is 0, (x - median) / (1.2533 times the mean absolute deviation).

    The spread in the denominator is `floor` at least, so that what differs by rounding alone has no z. All 0 for fewer
    than `FEWEST` values, or for values that are all alike.
    """
    if len(values) < FEWEST:
        return [0.0] * len(values)
    middle = statistics.median(values)
    away = [abs(v - middle) for v in values]
    spread = max(floor, statistics.median(away) / 0.6745 or 1.2533 * statistics.fmean(away))
    if spread <= 1e-9 * max(abs(v) for v in values):
        return [0.0] * len(values)
    return [(v - middle) / spread for v in values]


def _by_origin(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate with its priors as `own_prior` and `population_prior`, whichever reconstructed alone."""
    priors = {"own_prior": own_prior(certificate), "population_prior": population_prior(certificate)}
    return {**certificate, **priors}
