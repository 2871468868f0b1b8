"""Entries of a certificate, and numbers as a reader likes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from brgm_med.priors import SELF

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def at(record: Any, *keys: str) -> Any:
    """The entry of nested dictionaries under `keys`, or None where there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def number(value: Any) -> str | None:
    """Three digits of a number, all of an integer; None for what is none. 1.9e-08 -> "1.9 × 10⁻⁸"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return f"{value:,}"
    if 100 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    digits, _, power = f"{value:.3g}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(RAISED)}" if power else digits


def percent(value: Any) -> str | None:
    """A fraction as per cent."""
    if number(value) is None:
        return None
    if 0 < value < 1e-4:
        return f"{number(100 * value)} %"
    if value in (0, 1) or 0.01 <= value <= 0.99:
        return f"{100 * value:.0f} %"
    return f"{100 * value:.{2 if value < 0.5 else 4}g} %"


def axes(record: Any) -> str | None:
    """{"R": 2.0, "A": 2.0, "S": 6.0} -> "2 mm (R) x 2 mm (A) x 6 mm (S)"."""
    if not isinstance(record, dict):
        return None
    parts = [f"{number(record[a])} mm ({a})" for a in "RAS" if number(record.get(a)) is not None]
    return " x ".join(parts) or None


def own_prior(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate's record of the prior that the scan's own planes taught; empty where there was none."""
    record = certificate.get("prior")
    return record if isinstance(record, dict) and record.get("name") == SELF else {}


def population_prior(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate's record of the population prior, used or not; empty where none was asked."""
    record = certificate.get("population_prior" if own_prior(certificate) else "prior")
    return record if isinstance(record, dict) else {}


def rows(record: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of a certificate, known or not: ("prior / name", value as JSON writes it)."""
    if isinstance(record, dict) and record:
        for key, value in record.items():
            yield from rows(value, f"{name} / {key}" if name else str(key))
    elif isinstance(record, list) and any(isinstance(entry, dict) for entry in record):
        for i, value in enumerate(record, 1):
            yield from rows(value, f"{name} / {i}")
    else:
        yield name, record if isinstance(record, str) else json.dumps(record)
