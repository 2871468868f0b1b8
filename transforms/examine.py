"""A scan's slices examined: what they say of their own profile, and which of them do not fit the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brgm_med.slice_checks import Ghost, Stripes, ghosts, neighbours, one_based, range_of
from brgm_med.slice_width import SliceWidth, slice_width
from brgm_med.transforms.acquire import WORLD, AcquisitionModel, coarsest_axis
from brgm_med.transforms.geometry import Grid

NEVER_TOLD = ("position of the slices along their axis", "shape of their profile")
"""What one scan does not tell of its own acquisition."""


@dataclass(frozen=True)
class Examination:
    """Slices along the index axis `axis` every `spacing` mm, taken to be `thickness` mm thick.

    `width`: as the image looks; None: nothing is told. `stripes`: gain of every second slice; None: too few slices.
    `levels`, `moved`: slices (from 0) that differ from both neighbours, in brightness and in position. `along`: the
    world axes of the planes' axes, for `ghosts`. `levelled`: the stripes were taken out.
    """

    axis: int
    spacing: float
    thickness: float
    width: SliceWidth | None
    stripes: Stripes | None
    levels: tuple[int, ...]
    moved: tuple[int, ...]
    ghosts: tuple[Ghost, ...]
    along: tuple[str, str]
    levelled: bool = False

    def clauses(self, stated: bool) -> list[str]:
        """Contradictions to the acquisition that is `stated` (or assumed), and odd slices, counted from 1."""
        lines = []
        if self.width is not None and self.width.contradicts(self.thickness):
            said = "stated" if stated else "assumed"
            lines.append(
                f"{said} {self.thickness:.3g} mm thick, its slices look like {self.looks}; "
                "if that is right, state --slice-thickness, or take it with --slice-thickness estimate"
            )
        if self.stripes is not None and self.stripes.significant and not self.levelled:
            brighter, darker = ("odd", "even") if self.stripes.gain > 0 else ("even", "odd")
            ratio = max(self.stripes.gain, 1 / (1 + self.stripes.gain) - 1)
            lines.append(
                f"its {brighter}-numbered slices are {ratio:.1%} (+-{self.stripes.deviation:.1%}) brighter than the "
                f"{darker}-numbered ones, as of an interleaved acquisition; --even-odd correct brings them to one level"
            )
        odd = [f"slice{'s' * (len(s) > 1)} {one_based(s)} {w}" for s, w in self._odd if s]
        if odd:
            lines.append(f"{' and '.join(odd)}: motion or lost signal is likely, and what lies beside is doubtful")
        for ghost in self.ghosts:
            lines.append(
                f"a copy of the object, {ghost.strength:.0%} as bright, lies 1/{ghost.part} of the field of view away "
                f"along {self.along[ghost.axis]} in {len(ghost.slices)} slices ({one_based(ghost.slices)}): a ghost"
            )
        return lines

    @property
    def _odd(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        levels = "is of another brightness than its neighbours", "are of another brightness than their neighbours"
        moved = "moved against its neighbours", "moved against their neighbours"
        return (self.levels, levels[len(self.levels) > 1]), (self.moved, moved[len(self.moved) > 1])

    @property
    def looks(self) -> str:
        """The width as the image looks, in words."""
        assert self.width is not None
        low, high = self.width.interval
        return f"{self.width.width:.2g} mm ({low:.2g} to {high:.2g}, {self.width.profile} profile)"

    @property
    def identified(self) -> SliceWidth | None:
        """The width where it is identified."""
        return self.width if self.width is not None and self.width.identified else None

    def record(self) -> dict[str, Any]:
        """For the certificate; slices are counted from 0 along the index axis."""
        estimates: dict[str, Any] = {}
        if self.width is not None:
            estimates["estimated_mm"] = round(self.width.width, 3)
            estimates["interval_95_mm"] = [round(end, 3) for end in self.width.interval]
            estimates["profile"] = self.width.profile
        if self.stripes is not None:
            estimates["even_odd_gain"] = round(self.stripes.gain, 4)
            estimates["even_odd_deviation"] = round(self.stripes.deviation, 4)
            estimates["even_odd_corrected"] = self.levelled
        width = () if self.identified is not None else ("width of their profile",)
        return {
            "axis": self.axis,
            "spacing_mm": self.spacing,
            "thickness_mm": self.thickness,
            **estimates,
            "not_identified": [*width, *NEVER_TOLD],
            "other_brightness": list(self.levels),
            "moved": list(self.moved),
            "ghosts": [
                {"axis": self.along[g.axis], "part": g.part, "strength": round(g.strength, 3)} for g in self.ghosts
            ],
        }


def examine(values: Tensor, grid: Grid, model: AcquisitionModel) -> Examination | None:
    """A scan [X, Y, Z] and the acquisition that it is taken to have; None where no axis is that of slices."""
    axis = coarsest_axis(grid) if model.axis is None else model.axis
    if axis is None or not bool(torch.isfinite(values).all()):
        return None
    width = slice_width(values, axis, grid.spacing, model.profile)
    beside = neighbours(values, axis)
    first, second = (WORLD[grid.world_axis(a)] for a in range(3) if a != axis)
    levels, moved = beside.outliers
    return Examination(
        axis,
        grid.spacing[axis],
        model.thickness[axis],
        width,
        beside.stripes,
        levels,
        moved,
        tuple(ghosts(values, axis)),
        (first, second),
    )


def levelled(values: Tensor, axis: int, stripes: Stripes) -> Tensor:
    """A scan [X, Y, Z] whose odd and even slices along `axis` are brought to one level."""
    shape, (none, _) = [-1 if a == axis else 1 for a in range(3)], range_of(values)
    return none + (values - none) * stripes.factors(values.shape[axis]).to(values).reshape(shape)
