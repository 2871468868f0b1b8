"""The positions of DICOM slices in the patient, and the check that they are one volume. Needs numpy only.

The rules are those of highdicom's `Volume` (one orientation, even spacing to 1 %, no slice missing, twice or tilted),
in our own words: highdicom doubles pydicom's half second of imports, and its refusals say neither which file nor where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats import affine as affines
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.formats.dicom.slice import Slice

SAME_DIRECTION = 1e-4
"""The largest difference between the cosines of two slices of one orientation."""

EVEN, ROUNDING = 0.01, 0.012
"""The largest distance of a slice from its position on the axis: a fraction of the spacing, or mm, the larger."""


def along_normal(array: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """`array` [columns, rows, slices] and its `affine` (index -> RAS mm), its slices in order along their normal."""
    if np.linalg.det(RAS_LPS @ affine) > 0:
        return array, affine
    last = np.diag([1.0, 1.0, -1.0, 1.0])
    last[2, 3] = array.shape[2] - 1
    return array[:, :, ::-1], affine @ last


def one_value(slices: Sequence[Slice], keyword: str, noun: str) -> None:
    """Refuse slices whose headers differ in `keyword`, without saying what they hold."""
    first = slices[0]
    for other in slices[1:]:
        if str(other.header.get(keyword) or "") != str(first.header.get(keyword) or ""):
            refuse(other.where, f"has another {noun} than {first.name}", "separate them")


def affine_of(slices: Sequence[Slice]) -> tuple[list[Slice], NDArray[np.float64]]:
    """The slices in order along their normal, and the affine [4, 4], (column, row, slice) -> RAS mm.

    PS3.3 C.7.6.2.1.1: the pixel in column i and row j is at S + X di i + Y dj j, where X and Y are the directions of
    rows and of columns, di the spacing between columns and dj that between rows; the step from slice to slice is
    that of their positions S. A single slice is as deep as its Slice Thickness.

    Raises InputRefusedError for slices that are not one volume: see the rules above.
    """
    first = slices[0]
    for one in slices:
        _check_plane(one, first)
    assert first.directions is not None
    assert first.spacing is not None
    normal = first.normal
    places = np.array([s.position for s in slices], np.float64)
    order = np.argsort(places @ normal, kind="stable")
    ordered, places = [slices[i] for i in order], places[order]
    if len(ordered) > 1:
        _check_spacing(ordered, places @ normal)
        step = (places[-1] - places[0]) / (len(places) - 1)
        _check_tilt(ordered, places, step, normal)
    else:
        if first.thickness is None:
            refuse(first.where, "is a single slice of unknown thickness", "give the folder of its series")
        step = normal * first.thickness
    rows, columns = first.directions * first.spacing[::-1, None]
    affine = RAS_LPS @ affines.make_affine(np.column_stack([rows, columns, step]), places[0])
    shape = int(first.header.Columns), int(first.header.Rows), len(ordered)
    try:
        affines.check(affine, shape)
    except affines.AffineProblem as problem:
        refuse(first.where, f"has a geometry that {problem}", "export the series again")
    return ordered, affine


def _check_plane(one: Slice, first: Slice) -> None:
    """The plane of `one` is there, sound, and parallel to that of `first`, with the same pixels."""
    if one.position is None or one.directions is None:
        refuse(one.where, "has no position or no orientation in space", "remove it, or export the series again")
    if one.spacing is None or not (one.spacing > 0).all():
        refuse(one.where, "has no pixel spacing", "export the series again")
    if np.abs(one.directions @ one.directions.T - np.eye(2)).max() > 1e-3:
        refuse(one.where, "has an orientation that is not of two perpendicular unit vectors", "export the series again")
    assert first.directions is not None
    assert first.spacing is not None
    if np.abs(one.directions - first.directions).max() > SAME_DIRECTION:
        refuse(one.where, f"has another orientation than {first.name}", "separate them")
    if np.abs(one.spacing / first.spacing - 1).max() > 1e-4:
        refuse(one.where, f"has another pixel spacing than {first.name}", "separate them")
    for keyword in ("Rows", "Columns"):
        one_value([first, one], keyword, f"number of {keyword.lower()}")


def _check_spacing(ordered: list[Slice], depths: NDArray[np.float64]) -> None:
    gaps = np.diff(depths)
    least = int(np.argmin(gaps))
    if gaps[least] < 1e-3:
        a, b = ordered[least], ordered[least + 1]
        same = a.header.get("SOPInstanceUID") == b.header.get("SOPInstanceUID") and a.file != b.file
        problem = f"is {'the same image as' if same else 'at the same place as'} {a.name}"
        refuse(b.where, problem, "remove one of them" if same else "remove one of them, if they are not of two volumes")
    spacing = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    for i, gap in enumerate(gaps):
        if gap > 1.5 * spacing and abs(gap / spacing - round(gap / spacing)) < 0.1:
            count = round(gap / spacing) - 1
            problem = f"{count} slice{'s are' if count > 1 else ' is'} missing between it and {ordered[i + 1].name}"
            refuse(ordered[i].where, problem, "copy or export the series again")
    even = depths[0] + np.arange(len(depths)) * (depths[-1] - depths[0]) / (len(depths) - 1)
    off = np.abs(depths - even)
    if off.max() > max(EVEN * spacing, ROUNDING):
        worst = ordered[int(np.argmax(off))]
        problem = f"and its series have uneven spacing, {gaps.min():.4g} to {gaps.max():.4g} mm"
        refuse(worst.where, problem, "resample the series, or choose a part with even spacing")


def _check_tilt(ordered: list[Slice], places: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray) -> None:
    """Every slice is on the first one's normal (a tilted gantry shifts them, PS3.3 C.8.2.1)."""
    line = places[0] + np.arange(len(places))[:, None] * step
    aside = places - line
    aside -= (aside @ normal)[:, None] * normal
    off = np.linalg.norm(aside, axis=1)
    length = float(np.linalg.norm(step))
    if off.max() > max(EVEN * length, ROUNDING):
        refuse(ordered[int(np.argmax(off))].where, f"is {off.max():.3g} mm aside of its series", "separate them")
    shift = float(np.linalg.norm(step - (step @ normal) * normal))
    if shift > EVEN * length or shift * (len(places) - 1) > affines.TOLERANCE_MM:
        angle = np.degrees(np.arcsin(min(1.0, shift / length)))
        problem = f"and its series are sheared: the slices are shifted by {angle:.2g} degrees (gantry tilt)"
        refuse(ordered[0].where, problem, "resample the series to an upright grid")
