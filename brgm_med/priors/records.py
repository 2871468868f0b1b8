"""Content of a file of networks, as plain values: names, numbers that still lie in the file, kept objects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "V2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""torch's types of numbers as numpy writes them."""


class MalformedError(ValueError):
    """The file is not what it should be. The message says what it does, as the rest of a sentence about it."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a class or function: a text, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        # From the file, so in ASCII and short: it must not write on the user's terminal as it likes.
        return ascii(f"{self.module[:40]}.{self.name[:40]}")[1:-1]


@dataclass(frozen=True, slots=True)
class Inert:
    """A value that a network's weights do not depend on, such as a numpy number in its settings."""

    name: str


@dataclass(slots=True)
class Storage:
    """`count` numbers of type `dtype` (numpy's name), little-endian, in the file."""

    dtype: str
    count: int
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize

    def fill(self, data: memoryview) -> None:
        if len(data) != self.nbytes:
            raise MalformedError("is cut short, or says wrongly how many numbers it holds")
        self.data = data


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor whose numbers still lie in the file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.size)

    def array(self) -> NDArray[np.float32]:
        """The numbers, copied, float32. Raises MalformedError where there are none such."""
        kind = np.dtype(self.storage.dtype)
        if kind.kind != "f":
            raise MalformedError("holds a weight that is no floating-point number (of 16, 32 or 64 bits)")
        if self.count > self.storage.count:
            raise MalformedError("has a tensor with more numbers than it holds")
        steps = [s * kind.itemsize for s in self.stride]
        try:
            view = np.ndarray(self.size, kind, self.storage.data, self.offset * kind.itemsize, steps)
        except (ValueError, TypeError) as error:
            raise MalformedError("has a tensor that reaches beyond what the file holds") from error
        with np.errstate(all="ignore"):
            return view.astype(np.float32, order="C")


@dataclass(frozen=True, slots=True)
class Persistent:
    """An object that StyleGAN2-ADA's persistence keeps: the name of its class, and its attributes."""

    kind: str
    state: dict[str, Any]
