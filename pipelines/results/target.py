"""Destinations of results: the same calls for a NIfTI file, a folder of DICOM and a picture."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from brgm_med.files import moved
from brgm_med.transforms.formats.dicom.map import MEASURED, Quantity
from brgm_med.transforms.formats.format import ReadBack

if TYPE_CHECKING:
    from brgm_med.transforms.formats.affine import Affine
    from brgm_med.transforms.formats.dicom.derived import Choices, Derivation
    from brgm_med.transforms.formats.header import Header

OutputType = Literal["float32", "source"]


@dataclass(frozen=True, eq=False)
class Destination(ABC):
    """The files of one result, each there whole or not at all: the image at `path`. Its methods raise as `formats`."""

    path: Path
    choices: Choices
    force: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image and, of volumes, the map."""
        return (self.path,)

    @abstractmethod
    def check(self) -> None:
        """Check, before any work is done, that the files can be written."""

    def remove(self) -> None:
        """Take back what was written."""
        for path in self.paths:
            delete(path)

    @contextmanager
    def staged(self, beside: Sequence[Path], like: Sequence[Path]) -> Iterator[tuple[Self, list[Path]]]:
        """This destination and the files `beside` in private folders; on leaving, all are put in place together.

        `like` as of `files.moved`, which see.
        """
        with moved([*self.paths, *beside], self.force, like) as (image, *others):
            yield replace(self, path=image, force=False), others[len(others) - len(beside) :]


@dataclass(frozen=True, eq=False)
class Target(Destination):
    """The destination of one volume, and of `maps` beside it, by the names of their quantities."""

    maps: tuple[str, ...] = field(default=(MEASURED.name,), kw_only=True)

    @abstractmethod
    def beside(self, name: str) -> Path:
        """The file or folder of the map of that name: the result's name, `_name` after it."""

    @property
    def map_path(self) -> Path:
        """The measured map."""
        return self.beside(MEASURED.name)

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.path, *(self.beside(name) for name in self.maps)

    @abstractmethod
    def stored_type(self, known: NDArray[np.generic], header: Header) -> np.dtype:
        """The type in which `write_stored` keeps the voxels `known` of a scan exactly.

        Raises InputRefusedError where there is none.
        """

    @abstractmethod
    def write(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, label: str, thickness: float | None = None
    ) -> ReadBack:
        """Write values [X, Y, Z] on the grid of `affine`. DICOM is described by `text`, NIfTI by `label`.

        A map of the result that this one replaces goes with it.
        """

    @abstractmethod
    def write_stored(
        self, stored: NDArray[np.generic], header: Header, text: Derivation, label: str
    ) -> NDArray[np.generic]:
        """Write stored voxels of `stored_type` as they are on the scan's own grid; returns them as read back."""

    @abstractmethod
    def write_map(
        self, array: NDArray[np.floating], affine: Affine, text: Derivation, quantity: Quantity = MEASURED
    ) -> Path:
        """Write `array` [X, Y, Z], float32, on the grid of the result, beside the result that is there already.

        The result is taken back if that fails. Raises ValueError for values beyond the limits of `quantity`.
        """

    def forget_map(self) -> None:
        """Delete the maps of a result that was replaced."""
        if self.force:
            for name in self.maps:
                delete(self.beside(name))


def delete(path: Path) -> None:
    """Delete a file, or a folder with all in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def taken_back(remove: Callable[[], object]) -> Iterator[None]:
    """Call `remove` where anything fails in here."""
    try:
        yield
    except BaseException:
        remove()
        raise
