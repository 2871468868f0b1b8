"""Attributes of DICOM data sets by keyword: lists of them, items of sequences, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.errors import BrgmError, refuse

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


def whole(value: Any) -> int | None:
    """The whole number in an element; None of several, of none, and of a text that is no number."""
    try:
        return int(str(value))
    except ValueError:
        return None


@contextmanager
def derivable(source: Path) -> Iterator[None]:
    """Turn errors of pydicom over odd values of the header of `source` into InputRefusedError, without the values."""
    try:
        yield
    except BrgmError:
        raise
    except Exception as error:  # pydicom has many, and an OSError without a number for what it cannot encode
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problem = f"holds values in its header that no derived image can repeat ({type(error).__name__})"
        refuse(source, problem, "let the output's name end in .nii.gz")


def appended(value: str | None, text: str, length: int) -> str:
    """`text` after the `value` of an attribute, which is cut to what `length` characters leave for it."""
    before = str(value or "").strip()[: length - 1 - len(text)]
    return f"{before} {text}".strip()


def ds(value: float) -> float:
    """A decimal string of at most 16 characters (PS3.5, table 6.2-1)."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)
