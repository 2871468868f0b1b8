"""Attributes of DICOM data sets by keyword: lists of them, items of sequences, and their removal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset


def names(text: str) -> frozenset[str]:
    """Keywords of DICOM attributes, separated by blanks."""
    return frozenset(text.split())


def item(**values: Any) -> Dataset:
    """A data set, such as an item of a sequence, that holds `values` by keyword."""
    from pydicom import Dataset

    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def remove(dataset: Dataset, keywords: Iterable[str]) -> None:
    """Remove those attributes that are there."""
    for name in keywords:
        dataset.pop(name, None)


def appended(value: str | None, text: str, length: int) -> str:
    """`text` after the `value` of an attribute, which is cut to what `length` characters leave for it."""
    before = str(value or "").strip()[: length - 1 - len(text)]
    return f"{before} {text}".strip()


def ds(value: float) -> float:
    """A decimal string of at most 16 characters (PS3.5, table 6.2-1)."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)
