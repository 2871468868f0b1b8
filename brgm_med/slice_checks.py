"""Slices of a scan against their neighbours: gains of interleaved slices, motion, dropped signal, ghosts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TISSUE = 0.15
"""Tissue is brighter than this part of the range from no signal to the 99th percentile."""

FEWEST_PIXELS = 150
"""Fewest pixels of tissue, or of air, that tell about a slice."""

AREA = 0.5
"""Slices are judged where both neighbours share this part of the largest area of tissue: at its ends a head changes."""

FEWEST_SLICES = 8
"""Fewest slices with two neighbours, in which one is typical or not."""

BEYOND = 6.0
"""Robust standard deviations from which a slice is an outlier, beside the floors below."""

GAIN, SHIFT = 0.08, 0.55
"""Least outlying gain of a slice, as a log ratio, and shift, in pixels. Chosen on validation heads."""

STRIPES = 0.02
"""Least gain of every second slice that is named."""

GHOST = 0.06
"""Least strength of a ghost, relative to the object, that is named. Chosen on validation heads."""

REPLICAS = (2, 3)
"""A ghost is looked for at the field of view over these numbers."""


@dataclass(frozen=True)
class Stripes:
    """`gain`: of the first, third, ... slice over the second, fourth, ..., less 1; `deviation`: its standard error."""

    gain: float
    deviation: float

    @property
    def significant(self) -> bool:
        return abs(self.gain) > max(STRIPES, 3 * self.deviation)

    def factors(self, slices: int) -> Tensor:
        """Factors [slices] float64 that bring both sets of slices to one level, and keep their geometric mean."""
        signs = 1.0 - 2.0 * (torch.arange(slices, dtype=torch.float64) % 2)
        return torch.exp(-0.5 * math.log1p(self.gain) * signs)


@dataclass(frozen=True)
class Ghost:
    """A copy of the object, shifted along an axis of the planes (0 or 1) by the field of view over `part`, in
    `slices` (from 0), of that mean `strength` relative to the object."""

    axis: int
    part: int
    strength: float
    slices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Each slice against the mean of its two neighbours, NaN where it has not two or too little tissue.

    `gain` [S]: median log ratio in tissue. `shift` [S, 2]: along the planes' axes, pixels. `residual` [S]: root mean
    square of the difference over that of tissue.
    """

    gain: Tensor
    shift: Tensor
    residual: Tensor

    @property
    def stripes(self) -> Stripes | None:
        """Gain of every second slice: what alternates between neighbours, so that no smooth trend counts."""
        signs = 1.0 - 2.0 * (torch.arange(len(self.gain)) % 2)
        alternating = signs * self.gain
        pairs = (alternating[1:] + alternating[:-1]) / 2
        pairs = pairs[pairs.isfinite()]
        if len(pairs) < FEWEST_SLICES:
            return None
        middle, spread = pairs.median(), _spread(pairs)
        error = 1.2533 * spread / math.sqrt(len(pairs) / 2)
        return Stripes(math.expm1(float(middle)), float(error))

    @property
    def outliers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Slices (from 0) of another brightness, and slices that moved, against their neighbours and the typical."""
        stripes = self.stripes
        signs = 1.0 - 2.0 * (torch.arange(len(self.gain)) % 2)
        level = self.gain if stripes is None else self.gain - signs * math.log1p(stripes.gain)
        moved = torch.stack([self.shift[:, a] - _median(self.shift[:, a]) for a in (0, 1)], 1)
        spreads = torch.stack([_spread(moved[:, a]) for a in (0, 1)]).clamp(min=SHIFT / BEYOND)
        return (
            _peaks((level - _median(level)).abs(), max(GAIN, BEYOND * float(_spread(level)))),
            _peaks((moved / spreads).norm(dim=1), BEYOND),
        )


def neighbours(values: Tensor, axis: int) -> Neighbours:
    """Each slice of a scan [X, Y, Z], slices along `axis`, against the mean of the two beside it.

    One slice that moved, or lost signal, differs from both neighbours, which between them do not.
    """
    planes, tissue = _planes(values, axis)
    count = len(planes)
    shared = ((planes[2:] > tissue) & (planes[:-2] > tissue)).flatten(1).sum(1)
    fewest = max(FEWEST_PIXELS, AREA * float(shared.max())) if count > 2 and min(planes.shape[1:]) > 2 else math.inf
    gain, residual = torch.full((2, count), math.nan, dtype=torch.float64)
    shift = torch.full((count, 2), math.nan, dtype=torch.float64)
    for k in range(1, count - 1):
        plane, between = planes[k], (planes[k - 1] + planes[k + 1]) / 2
        if float(shared[k - 1]) < fewest:
            continue
        bright = (planes[k - 1] > tissue) & (planes[k + 1] > tissue)
        ratio = plane[bright].clamp(min=0.02 * tissue) / between[bright]
        gain[k] = ratio.log().median()
        level = float(gain[k].exp())
        difference = _smooth(plane - level * between)
        reference = level * _smooth(between)
        slopes = torch.stack([_slope(reference, 0), _slope(reference, 1)]).flatten(1)
        normal = slopes @ slopes.T
        normal += 1e-9 * normal.trace() * torch.eye(2, dtype=normal.dtype)
        shift[k] = -torch.linalg.solve(normal, slopes @ difference.flatten())
        residual[k] = ((plane - between)[bright].square().mean() / between[bright].square().mean()).sqrt()
    return Neighbours(gain, shift, residual)


def ghosts(values: Tensor, axis: int) -> list[Ghost]:
    """Copies of the object in the air of a scan [X, Y, Z], slices along `axis`, shifted by a part of the field of view.

    Air where a copy would be bright is compared with air where it would be dark. Looked for at one half and one third
    of the field of view as it is stored, along both axes of the planes: an image that was cropped hides them.
    """
    planes, tissue = _planes(values, axis)
    body = F.max_pool2d((planes > tissue).float()[:, None], 9, 1, 4)[:, 0] > 0
    replicas = []
    for direction in (0, 1):
        size = planes.shape[1 + direction]
        for part in REPLICAS:
            strengths = torch.zeros(len(planes), dtype=torch.float64)
            for k, (plane, inside) in enumerate(zip(planes, body, strict=True)):
                copies = [plane.roll(n * size // part, direction) for n in range(1, part)]
                copy = torch.stack(copies).amax(0)
                bright, dark = ~inside & (copy > 2 * tissue), ~inside & (copy < tissue / 2)
                if min(int(bright.sum()), int(dark.sum())) < FEWEST_PIXELS:
                    continue
                excess = plane[bright].median() - plane[dark].median()
                strengths[k] = excess / copy[bright].median()
            slices = (strengths > GHOST).nonzero()[:, 0]
            if len(slices) >= max(3, len(planes) // 10):
                replicas.append(Ghost(direction, part, float(strengths[slices].mean()), tuple(slices.tolist())))
    return replicas


def autocorrelation(residual: Tensor, inside: Tensor) -> float:
    """Correlation of a residual [X, Y, Z] with itself one sample on, over the axes, `inside` (bool); noise has 0."""
    values = residual.double() - residual[inside].double().mean()
    products = squares = 0.0
    for axis in range(3):
        n = values.shape[axis]
        pair = inside.narrow(axis, 1, n - 1) & inside.narrow(axis, 0, n - 1)
        one, two = values.narrow(axis, 1, n - 1)[pair], values.narrow(axis, 0, n - 1)[pair]
        products += float((one * two).sum())
        squares += float((one.square() + two.square()).sum()) / 2
    return products / squares if squares else 0.0


def range_of(values: Tensor) -> tuple[float, float]:
    """Intensity of no signal, and of the brightest tissue: 0 and the 99th percentile of a scan's values; of a scan with
    values well below 0, the 1st percentile instead of 0."""
    sample = values.flatten()[:: max(1, values.numel() // 1_000_000)].double()
    low, high = torch.quantile(sample, torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    return min(low, 0.0), high


def _planes(values: Tensor, axis: int) -> tuple[Tensor, float]:
    """Planes [S, U, V] float64 of a scan, no signal at 0, and the least brightness of tissue there."""
    low, high = range_of(values)
    return values.movedim(axis, 0).double() - low, max(TISSUE * (high - low), 1e-300)


def _smooth(plane: Tensor) -> Tensor:
    return F.avg_pool2d(plane[None], 3, 1)[0]


def _slope(plane: Tensor, axis: int) -> Tensor:
    """Derivative along an axis, pixels."""
    return torch.gradient(plane, dim=axis)[0]


def _median(values: Tensor) -> Tensor:
    return values[values.isfinite()].median() if bool(values.isfinite().any()) else torch.zeros((), dtype=values.dtype)


def _spread(values: Tensor) -> Tensor:
    """Robust standard deviation of the finite ones."""
    return 1.4826 * _median((values - _median(values)).abs())


def _peaks(sizes: Tensor, least: float) -> tuple[int, ...]:
    """Indices of sizes over `least`, the largest first, without the neighbours of each: an odd slice shows in both."""
    if int(sizes.isfinite().sum()) < FEWEST_SLICES:
        return ()
    left, chosen = sizes.nan_to_num(0.0), []
    while float(left.max()) > least:
        k = int(left.argmax())
        chosen.append(k)
        left[max(0, k - 1) : k + 2] = 0.0
    return tuple(sorted(chosen))


def one_based(slices: Sequence[int]) -> str:
    """Slices (from 0) as a person counts them, from 1; of many the first ones."""
    numbers = [str(k + 1) for k in slices]
    return ", ".join(numbers) if len(numbers) <= 8 else ", ".join(numbers[:6]) + f" and {len(numbers) - 6} more"
