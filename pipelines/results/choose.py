"""The destination and format of a result, by the scan's format, the output's name and the user's choices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.results.dicom import SeriesTarget
from brgm_med.pipelines.results.nifti import NiftiTarget
from brgm_med.pipelines.results.target import OutputType, Target
from brgm_med.transforms.formats import for_writing, stem
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices
from brgm_med.transforms.formats.dicom.map import MEASURED
from brgm_med.transforms.formats.dicom.mr import is_mr
from brgm_med.transforms.formats.dicom.series import Series, the_series

if TYPE_CHECKING:
    from brgm_med.transforms.formats.header import Header


def target_of(
    scan: Path,
    out: Path | None,
    header: Header,
    *,
    like: Path | None = None,
    series: str | None = None,
    further: Sequence[Header] = (),
    dtype: OutputType = "float32",
    choices: Choices = NO_CHOICES,
    force: bool = False,
    maps: Sequence[str] = (MEASURED.name,),
) -> Target:
    """The destination of the result of `scan`: `out`, by default beside it, `_brgm` after its name.

    MR in DICOM stays DICOM.

    A name without the ending of a format means a folder of DICOM files, with the patient and the study of `scan`, or,
    for NIfTI, of the DICOM series at `like` (of several, that called `series`). `further`: of scans that the result is
    also made of. `maps`: names of those that are written beside it.

    Raises UsageError where the name, `like` and the scan do not go together; InputRefusedError as `the_series` does.
    """
    own = header.series
    if own is not None and like is not None:
        raise UsageError(f"--like: {scan} is DICOM and says itself whose it is; leave it out")
    to_dicom = own is not None or like is not None
    out = out or default_result(scan, ".nii.gz" if not to_dicom or (own is not None and not is_mr(own)) else "")
    if stem(out) != out.name or not to_dicom:
        for_writing(out)
        for flag, value in (("--deidentify", choices.transform), ("--like", like)):
            if value is not None:
                raise UsageError(f"{flag}: is for DICOM output; {out} is to be NIfTI; leave one of the two out")
        file = NiftiTarget(out, choices, force, header, dtype, maps=tuple(maps))
        if scan.resolve() in [path.resolve() for path in file.paths[1:]]:
            raise UsageError(f"{out}: {scan} stands where its map is to go; choose another name")
        return file
    if like is not None:
        own = the_series(like, series)
        check_same_place(scan, header, like, own)
    assert own is not None
    made_elsewhere = None if like is None else header
    target = SeriesTarget(out, choices, force, own, made_elsewhere, series_of(further), maps=tuple(maps))
    for source in (scan, *([] if like is None else [like])):
        for path in target.paths:
            a, b = source.resolve(), path.resolve()
            if a == b or a in b.parents or b in a.parents:
                raise UsageError(
                    f"{path}: the output's folder and {source} must not lie in one another; choose another"
                )
    return target


def series_of(headers: Sequence[Header]) -> tuple[Series, ...]:
    """The series of those that are DICOM."""
    return tuple(header.series for header in headers if header.series is not None)


def check_same_place(scan: Path, header: Header, like: Path, series: Series) -> None:
    """Refuse, with InputRefusedError, a series that does not hold the middle of `scan`: it is of something else."""
    middle = header.affine @ [*((n - 1) / 2 for n in header.shape), 1]
    index = (np.linalg.inv(series.affine) @ middle)[:3]
    if not all(-0.5 <= i <= n - 0.5 for i, n in zip(index, series.shape, strict=True)):
        raise InputRefusedError(f"{like}: lies elsewhere in space than {scan}; give the series that it was made from")


def default_result(scan: Path, ending: str = ".nii.gz") -> Path:
    """Path beside the scan, its name + `_brgm` + `ending`; beside the folder of a DICOMDIR."""
    source = scan.resolve().parent if scan.name.upper() == "DICOMDIR" else scan
    source = Path(os.path.abspath(source))  # "." has no name
    return source.with_name(f"{stem(source)}_brgm{ending}")
