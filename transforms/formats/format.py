"""The interface of a file format: the functions of a module (or object) that `formats` calls.

To add a format, write a module that satisfies one of these protocols and list it in `formats.READERS`; mypy checks it.
Everything is read strictly: a file that could be misunderstood raises InputRefusedError, in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brgm_med.transforms.formats.affine import Affine
from brgm_med.transforms.formats.header import Header, Volume
from brgm_med.transforms.formats.picture import Picture

Kind = Literal["volume", "picture"]


class ReadBack(NamedTuple):
    """`array` [X, Y, Z]: the values that the files hold; `step`: between two neighbouring ones, if they are rounded."""

    array: NDArray[np.floating]
    step: float | None


class VolumeFormat(Protocol):
    """Three-dimensional: NIfTI (`nifti`), DICOM slices (`dicom.Reader`)."""

    @property
    def KIND(self) -> Literal["volume"]: ...

    @property
    def ENDINGS(self) -> tuple[str, ...]:
        """The endings of its files' names, in lower case with the dot; empty where only the content tells."""
        ...

    def read(self, path: Path | str, affine: str = "auto") -> Volume:
        """Values, finite and not constant. `affine` chooses between those of the file, where a format has several."""
        ...

    def read_stored(self, path: Path | str, affine: str = "auto") -> tuple[Header, NDArray[np.generic]]:
        """The header and the stored voxels [X, Y, Z], before scaling, whatever they hold."""
        ...

    def read_header(self, path: Path | str, affine: str = "auto") -> Header: ...


class VolumeWriter(VolumeFormat, Protocol):
    """A volume's format that is chosen by the output's name. (A folder of DICOM is written by `dicom.write`.)"""

    def write(
        self,
        path: Path | str,
        array: NDArray[np.floating],
        affine: Affine,
        like: Header | None = None,
        dtype: Literal["float32", "source"] = "float32",
        description: str | None = None,
        force: bool = False,
    ) -> NDArray[np.floating]:
        """Write values [X, Y, Z] whole or not at all, like the volume of header `like`; gives them as the file does."""
        ...


class PictureFormat(Protocol):
    """Two-dimensional: PNG, JPEG and TIFF (`picture`), single DICOM images (`radiograph`); each has its own writing."""

    @property
    def KIND(self) -> Literal["picture"]: ...

    @property
    def ENDINGS(self) -> tuple[str, ...]: ...

    def read(self, path: Path | str) -> Picture: ...
