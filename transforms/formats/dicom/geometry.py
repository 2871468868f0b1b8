"""The positions of DICOM slices in the patient, and the check that they are one volume. Needs numpy only.

The rules are those of highdicom's `Volume` (one orientation, no slice missing, twice or tilted), but spacing may be
uneven by a tenth. They are in our own words: highdicom doubles pydicom's half second of imports, and its refusals say
neither which file nor where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats import affine as affines
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.formats.dicom.file import numbers
from brgm_med.transforms.formats.dicom.slice import Slice

SAME_DIRECTION, EXACT_DIRECTION = 1e-3, 1e-4
"""The largest difference between the cosines of two slices of one orientation, and of two whose difference is none."""

EVEN, ROUNDING = 0.1, 0.012
"""The largest distance of a slice from its position on the axis, in spacings, and the smallest that is told, in mm."""

ASIDE, ASIDE_MM = 0.01, 0.15
"""The largest distance of a slice aside of the axis: in spacings, or mm (what rounding to 0.1 mm does), the larger."""

GAP = 0.1
"""Spacing Between Slices that is off by more than this part of the positions' spacing contradicts them."""


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


@dataclass(frozen=True, eq=False)
class Placement:
    """`slices` in order along their normal; the `affine` [4, 4], (column, row, slice) -> RAS mm; in a clause each, what
    was `tolerated` in their headers; `offsets`: of each slice along the normal from its even place, mm; empty where all
    are even."""

    slices: list[Slice]
    affine: NDArray[np.float64]
    tolerated: tuple[str, ...]
    offsets: tuple[float, ...] = ()


def placement_of(slices: Sequence[Slice]) -> Placement:
    """The slices in order, where they are, and what was tolerated.

    PS3.3 C.7.6.2.1.1: the pixel in column i and row j is at S + X di i + Y dj j, where X and Y are the directions of
    rows and of columns, di the spacing between columns and dj that between rows. X and Y are the medians of the slices'
    own; positions S lie on the line, evenly spaced, that fits the slices' own best (least squares). A single slice is
    as deep as its Slice Thickness.

    Raises InputRefusedError for slices that are not one volume: see the rules above.
    """
    first = slices[0]
    for one in slices:
        _check_plane(one, first)
    assert first.spacing is not None
    directions = np.median([s.directions for s in slices if s.directions is not None], axis=0)
    normal = np.cross(*directions)
    places = np.array([s.position for s in slices], np.float64)
    order = np.argsort(places @ normal, kind="stable")
    ordered, places = [slices[i] for i in order], places[order]
    tolerated, offsets = _turned(slices, directions), tuple[float, ...]()
    if len(ordered) > 1:
        index = np.arange(len(ordered)) - (len(ordered) - 1) / 2
        step = index @ places / (index @ index)
        line = places.mean(0) + index[:, None] * step
        _check_spacing(ordered, places @ normal, line @ normal)
        _check_tilt(ordered, places, step, normal)
        tolerated += _uneven(places, line, normal)
        off = (places - line) @ normal
        if np.abs(off).max() > ROUNDING:
            offsets = tuple(float(o) for o in off)
        tolerated += _contradicted(first, float(np.linalg.norm(step)))
    else:
        if first.thickness is None:
            refuse(first.where, "is a single slice of unknown thickness", "give the folder of its series")
        step, line = normal * first.thickness, places
    rows, columns = directions * first.spacing[::-1, None]
    affine = RAS_LPS @ affines.make_affine(np.column_stack([rows, columns, step]), line[0])
    shape = int(first.header.Columns), int(first.header.Rows), len(ordered)
    try:
        affines.check(affine, shape)
    except affines.AffineProblem as problem:
        refuse(first.where, f"has a geometry that {problem}", "export the series again")
    return Placement(ordered, affine, tuple(tolerated), offsets)


def _turned(slices: Sequence[Slice], directions: NDArray[np.float64]) -> list[str]:
    """A clause on slices whose orientation is not quite the others'."""
    off = np.array([np.abs(s.directions - directions).max() for s in slices if s.directions is not None])
    count = int((off > EXACT_DIRECTION).sum())
    if not count:
        return []
    return [
        f"the orientation of {count} slice{'s' if count > 1 else ''} differs from that of the others by up to "
        f"{off.max():.1g} in a cosine; taken as the same"
    ]


def _contradicted(first: Slice, spacing: float) -> list[str]:
    """A clause on a Spacing Between Slices that is not the spacing of positions: some scanners put the gap there."""
    stated = numbers(first.header.get("SpacingBetweenSlices"))
    if len(stated) != 1 or not np.isfinite(stated[0]) or abs(abs(stated[0]) - spacing) <= GAP * spacing:
        return []
    problem = f"its Spacing Between Slices says {stated[0]:g} mm"
    if first.thickness is not None and abs(first.thickness + stated[0] - spacing) <= GAP * spacing:
        problem += " (the gap)"
    return [f"{problem}, its positions {spacing:.4g} mm; the positions are taken"]


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


def _check_spacing(ordered: list[Slice], depths: NDArray[np.float64], even: NDArray[np.float64]) -> None:
    """Slices at `depths` are near the `even` ones, mm along the normal."""
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
    off = np.abs(depths - even)
    if off.max() > max(EVEN * spacing, ROUNDING):
        worst = ordered[int(np.argmax(off))]
        problem = f"and its series have uneven spacing, {gaps.min():.4g} to {gaps.max():.4g} mm"
        refuse(worst.where, problem, "resample the series, or choose a part with even spacing")


def _uneven(places: NDArray[np.float64], line: NDArray[np.float64], normal: NDArray[np.float64]) -> list[str]:
    """A clause on positions that are not quite evenly spaced on a line."""
    off = float(np.linalg.norm(places - line, axis=1).max())
    if off <= ROUNDING:
        return []
    gaps, even = np.diff(places @ normal), (line[1] - line[0]) @ normal
    return [
        f"slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart; taken as {even:.4g} mm, "
        f"at most {off:.2g} mm from where they were measured"
    ]


def _check_tilt(ordered: list[Slice], places: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray) -> None:
    """Every slice is on the normal of the first one (a tilted gantry shifts them, PS3.3 C.8.2.1)."""
    aside = places - np.linspace(places[0], places[-1], len(places))
    aside -= (aside @ normal)[:, None] * normal
    off = np.linalg.norm(aside, axis=1)
    length = float(np.linalg.norm(step))
    if off.max() > max(ASIDE * length, ASIDE_MM):
        refuse(ordered[int(np.argmax(off))].where, f"is {off.max():.3g} mm aside of its series", "separate them")
    shift = float(np.linalg.norm(step - (step @ normal) * normal))
    if shift * (len(places) - 1) > affines.TOLERANCE_MM:
        angle = np.degrees(np.arcsin(min(1.0, shift / length)))
        problem = f"and its series are sheared: the slices are shifted by {angle:.2g} degrees (gantry tilt)"
        refuse(ordered[0].where, problem, "resample the series to an upright grid")
