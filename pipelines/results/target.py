"""What a place for a result can do, whatever the format: the same calls for a NIfTI file and for a folder of DICOM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brgm_med.transforms.formats.dicom.map import MEASURED, Quantity

if TYPE_CHECKING:
    from brgm_med.transforms.formats.affine import Affine
    from brgm_med.transforms.formats.dicom.derived import Derivation
    from brgm_med.transforms.formats.header import Header

OutputType = Literal["float32", "source"]


class Held(NamedTuple):
    """`array` [X, Y, Z]: the values that the files hold; `step`: between two neighbouring ones, if they are rounded."""

    array: NDArray[np.floating]
    step: float | None


class Target(Protocol):
    """A place for one result, and for a map beside it. All is there whole or not at all; all raise as `formats` do."""

    @property
    def path(self) -> Path: ...

    @property
    def map_path(self) -> Path:
        """Where `write_map` writes: the result's name, `_measured` after it."""

    def check(self) -> None:
        """Find out, before any work is done, whether result and map can be written."""

    def kept_as(self, known: NDArray[np.generic], header: Header) -> np.dtype:
        """The type in which `write_stored` keeps the voxels `known` of a scan exactly.

        Raises InputRefusedError where there is none.
        """

    def write(
        self, array: NDArray[np.floating], affine: Affine, how: Derivation, label: str, thickness: float | None = None
    ) -> Held:
        """Write values [X, Y, Z] on the grid of `affine`. `label` is how a NIfTI header describes them.

        A map of the result that this one replaces goes with it.
        """

    def write_stored(
        self, stored: NDArray[np.generic], header: Header, how: Derivation, label: str
    ) -> NDArray[np.generic]:
        """Write stored voxels, of the type `kept_as`, as they are on the scan's own grid, and give them back."""

    def write_map(
        self, array: NDArray[np.floating], affine: Affine, how: Derivation, what: Quantity = MEASURED
    ) -> Path:
        """Write `array` [X, Y, Z], float32, on the grid of the result, beside the result that is there already.

        The result is taken back if that fails. Raises ValueError for values beyond the limits of `what`.
        """

    def remove(self) -> None:
        """Take back what was written."""


@contextmanager
def taken_back(target: Target) -> Iterator[None]:
    """What `target` wrote is removed again where anything fails in here."""
    try:
        yield
    except BaseException:
        target.remove()
        raise
