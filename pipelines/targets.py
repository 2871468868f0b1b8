"""Where a result goes, and in which format: the same calls for a NIfTI file and for a folder of DICOM files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.sources import default_result, series_of
from brgm_med.transforms.formats import check_new_folder, check_output, dicom_write, for_writing, nifti, stem
from brgm_med.transforms.formats.dicom_deidentify import check as check_identity
from brgm_med.transforms.formats.dicom_derived import NO_CHOICES, Choices, Derivation
from brgm_med.transforms.formats.dicom_mr import check_source, is_mr
from brgm_med.transforms.formats.dicom_series import Series, the_series
from brgm_med.transforms.formats.dicom_write import Scale

if TYPE_CHECKING:
    from brgm_med.transforms.formats.nifti_affine import Affine
    from brgm_med.transforms.formats.nifti_header import NiftiHeader

OutputType = Literal["float32", "source"]


class Held(NamedTuple):
    """`array` [X, Y, Z]: the values that the files hold; `step`: between two neighbouring ones, if they are rounded."""

    array: NDArray[np.floating]
    step: float | None


class Target(Protocol):
    """A place for one result. Everything is there whole or not at all; all methods raise as `formats` do."""

    @property
    def path(self) -> Path: ...

    def check(self) -> None:
        """Find out, before any work is done, whether the result can be written."""

    def write(
        self, array: NDArray[np.floating], affine: Affine, how: Derivation, label: str, thickness: float | None = None
    ) -> Held:
        """Write values [X, Y, Z] on the grid of `affine`. `label` is how a NIfTI header describes them."""

    def write_stored(
        self, stored: NDArray[np.generic], hole: NDArray[np.bool_], header: NiftiHeader, how: Derivation, label: str
    ) -> NDArray[np.generic]:
        """Write stored voxels on the scan's own grid, all of them exactly but those in `hole`, and give them back."""

    def remove(self) -> None:
        """Take back what was written."""


@dataclass(frozen=True, eq=False)
class NiftiTarget:
    """A NIfTI file, with the conventions of `like`."""

    path: Path
    like: NiftiHeader
    dtype: OutputType
    force: bool

    def check(self) -> None:
        check_output(self.path, self.force)

    def write(
        self, array: NDArray[np.floating], affine: Affine, how: Derivation, label: str, thickness: float | None = None
    ) -> Held:
        held = nifti.write(self.path, array, affine, self.like, self.dtype, label, self.force)
        rounded = self.dtype == "source" and self.like.dtype.kind in "iu"
        return Held(held, nifti.read_header(self.path).slope if rounded else None)

    def write_stored(
        self, stored: NDArray[np.generic], hole: NDArray[np.bool_], header: NiftiHeader, how: Derivation, label: str
    ) -> NDArray[np.generic]:
        return nifti.write_stored(self.path, stored, header, label, self.force)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class SeriesTarget:
    """A folder of DICOM files, with patient and study of `like`: the scan itself, or another series than `scan`."""

    path: Path
    like: Series
    choices: Choices
    scan: NiftiHeader | None
    force: bool

    def check(self) -> None:
        check_source(self.like)
        check_new_folder(self.path, dicom_write.ENDING if self.force else None)
        if self.choices.transform is not None:
            for header in self.like.headers:
                check_identity(header, "the series")

    def write(
        self, array: NDArray[np.floating], affine: Affine, how: Derivation, label: str, thickness: float | None = None
    ) -> Held:
        held = dicom_write.write(
            self.path,
            array,
            affine,
            self.like,
            how,
            self.choices,
            thickness=thickness,
            measured_here=self.scan is None,
            scale=None if self.scan is None or self.scan.dtype.kind == "f" else Scale(self.scan.slope, self.scan.inter),
            force=self.force,
        )
        return Held(*held)

    def write_stored(
        self, stored: NDArray[np.generic], hole: NDArray[np.bool_], header: NiftiHeader, how: Derivation, label: str
    ) -> NDArray[np.generic]:
        values = stored.astype(np.float64)
        scale, levels = dicom_write.quantise(values, Scale(1.0, 0.0))
        if scale != (1, 0) or not np.array_equal(levels[~hole], values[~hole]):
            raise InputRefusedError(
                f"{header.path}: its voxels are no integers of 16 bits (or its slices are rescaled differently), so "
                "DICOM cannot keep them as they are; let the output's name end in .nii.gz"
            )
        dicom_write.write_stored(
            self.path,
            levels,
            Scale(header.slope, header.inter),
            header.affine,
            self.like,
            how,
            self.choices,
            thickness=self.like.thickness if self.scan is None else None,
            measured_here=self.scan is None,
            force=self.force,
        )
        return levels.astype(stored.dtype)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def target_of(
    scan: Path,
    out: Path | None,
    header: NiftiHeader,
    *,
    like: Path | None = None,
    series: str | None = None,
    dtype: OutputType = "float32",
    choices: Choices = NO_CHOICES,
    force: bool = False,
) -> Target:
    """Where the result of `scan` goes: to `out`, by default beside it, `_brgm` after its name; MR in DICOM stays DICOM.

    A name without the ending of a format means a folder of DICOM files, with the patient and the study of `scan`, or,
    for NIfTI, of the DICOM series at `like` (of several, that called `series`).

    Raises UsageError where the name, `like` and the scan do not go together; InputRefusedError as `the_series` does.
    """
    own = series_of(header)
    if own is not None and like is not None:
        raise UsageError(f"--like: {scan} is DICOM and says itself whose it is; leave it out")
    to_dicom = own is not None or like is not None
    out = out or default_result(scan, ".nii.gz" if not to_dicom or (own is not None and not is_mr(own)) else "")
    if stem(out) != out.name or not to_dicom:
        for_writing(out)
        if choices.transform is not None:
            raise UsageError(f"--deidentify: is for DICOM output; {out} is to be NIfTI; leave one of the two out")
        if like is not None:
            raise UsageError(f"--like: is for DICOM output; {out} is to be NIfTI; leave one of the two out")
        return NiftiTarget(out, header, dtype, force)
    for given in (scan, *([] if like is None else [like])):
        a, b = given.resolve(), out.resolve()
        if a == b or a in b.parents or b in a.parents:
            raise UsageError(f"{out}: the output's folder and {given} must not lie in one another; choose another")
    if own is not None:
        return SeriesTarget(out, own, choices, None, force)
    assert like is not None
    found = the_series(like, series)
    check_same_place(scan, header, like, found)
    return SeriesTarget(out, found, choices, header, force)


def check_same_place(scan: Path, header: NiftiHeader, like: Path, series: Series) -> None:
    """Refuse, with InputRefusedError, a series that does not hold the middle of `scan`: it is of something else."""
    middle = header.affine @ [*((n - 1) / 2 for n in header.shape), 1]
    index = (np.linalg.inv(series.affine) @ middle)[:3]
    if not all(-0.5 <= i <= n - 0.5 for i, n in zip(index, series.shape, strict=True)):
        raise InputRefusedError(f"{like}: lies elsewhere in space than {scan}; give the series that it was made from")
