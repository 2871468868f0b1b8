"""Width of a scan's slice profile, from the scan alone: its spectra through plane and in plane must agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from brgm_med.corruptions import Profile, along
from brgm_med.self_prior.acquisition import LEAST_STEP
from brgm_med.self_prior.thick_axis import ThickAxis

FREQUENCIES = torch.linspace(0.08, 0.5, 8, dtype=torch.float64)
"""Cycles per slice at which spectra are compared."""

SEGMENT, SHORTEST = 12, 8
"""Samples of a segment of a line, half of which the next one shares; fewest that tell anything."""

LEVEL = 0.1
"""A segment of a line counts by its power's shape; less so where its power falls below this part of the mean."""

ANATOMY = np.array([[0.0063, 0.0037, -0.0035], [0.0037, 0.0126, -0.0087], [-0.0035, -0.0087, 0.0233]])
"""Covariance of level, slope and bend (over frequency) of the log ratio of spectra along two axes of one head, made
thick alike: 15 training heads of IXI, ds000011 and ds002748, each along all axes that are as sharp as the others."""

SCATTER = 0.06
"""Standard deviation of what these do not describe. Chosen on validation heads: of 95 % intervals, 94 to 96 % cover."""

WIDTHS = tuple(np.geomspace(0.25, 2.2, 23))
"""Candidate widths, in slice spacings; all are equally probable beforehand."""

IDENTIFIED = {"box": 0.14, "trapezoid": 0.14, "gaussian": 0.2}
"""A width is identified up to this relative standard deviation: of 104 Gaussian scans of validation heads all were, one
off by over 20 % and 93 within 10 %; of 78 with a box 5 were, none off by so much."""

MISFIT = 20.0
"""Largest Mahalanobis distance, squared, at the best width: beyond it the spectra agree at none (chi-squared, 99 %)."""

LINES = 4_000
"""Lines of pixels along each axis that spectra are the mean of, about."""


@dataclass(frozen=True)
class SliceWidth:
    """Full width at half maximum (mm) of a slice profile of that `profile`: the most probable one, `interval` of 95 %,
    `wide` of 99.7 %, and whether it is `identified`. `inside`: it is no end of the candidates."""

    width: float
    interval: tuple[float, float]
    wide: tuple[float, float]
    identified: bool
    profile: Profile
    inside: bool = True

    def contradicts(self, stated: float) -> bool:
        """True where a stated width (mm) lies outside the interval of 99.7 % and is off by more than 15 %."""
        low, high = self.wide
        return self.inside and not low <= stated <= high and abs(stated / self.width - 1) > 0.15


def slice_width(values: Tensor, axis: int, spacing: Sequence[float], profile: Profile = "box") -> SliceWidth | None:
    """The width of the profile, of that shape, under which a scan [X, Y, Z] looks alike through plane and in plane.

    `axis`: of the slices, `spacing`: mm. For each candidate width, an in-plane axis is made thick by it; sampled alike
    along both, the image would have equal spectra along both, were the anatomy alike. By how much it is not was
    measured on heads, which gives the uncertainty. The shape of the profile is not told by this, nor the position of
    the slices. None where slices are no thicker than pixels, or too few, or constant, and where the spectra agree at
    no width: nothing is told.

    A width below two pixels of the planes is not seen as it is. In-plane pixels count as sharp: through-plane blur is
    measured relative to theirs.
    """
    plane = [a for a in range(3) if a != axis]
    step = spacing[axis] / max(spacing[a] for a in plane)
    if step < LEAST_STEP or float(values.min()) == float(values.max()):
        return None
    if min(values.shape[axis], *(math.floor(values.shape[a] * spacing[a] / spacing[axis]) for a in plane)) < SHORTEST:
        return None
    scan = values.float() / float(values.abs().max())
    turned = [_Axes.of(scan, axis, other, spacing) for other in plane]
    ratios = np.stack([np.mean([t.log_ratio(w, profile) for t in turned], 0) for w in WIDTHS])
    if not np.isfinite(ratios).all():
        return None
    return _posterior(ratios, spacing[axis], profile)


def _posterior(ratios: NDArray[np.float64], spacing: float, profile: Profile) -> SliceWidth | None:
    """Of log ratios [widths, frequencies], whose covariance at the true width is that of anatomy."""
    frequencies = FREQUENCIES.numpy()
    u = (frequencies - frequencies.mean()) / (frequencies.max() - frequencies.mean())
    basis = np.stack([np.ones_like(u), u, u**2 - (u**2).mean()], 1)
    precision = np.linalg.inv(basis @ ANATOMY @ basis.T + SCATTER**2 * np.eye(len(u)))
    widths = np.linspace(WIDTHS[0], WIDTHS[-1], 400)
    between = CubicSpline(WIDTHS, ratios)(widths)
    log = -0.5 * np.einsum("wi,ij,wj->w", between, precision, between)
    if -2 * log.max() > MISFIT:
        return None
    mass = np.exp(log - log.max()).cumsum()
    low3, low, high, high3 = np.interp([0.00135, 0.025, 0.975, 0.99865], mass / mass[-1], widths) * spacing
    width = float(widths[log.argmax()]) * spacing
    inside = 0 < int(log.argmax()) < len(log) - 1
    identified = inside and bool((high - low) / 4 / width <= IDENTIFIED[profile])
    return SliceWidth(width, (float(low), float(high)), (float(low3), float(high3)), identified, profile, inside)


@dataclass(frozen=True, eq=False)
class _Axes:
    """A scan [lines, U, Z]: planes thinned to some lines, U the in-plane axis that is made thick, Z the slices; and
    likewise its differences over half a slice along the third axis, which show structures at an angle."""

    lines: Tensor
    differences: Tensor
    step: float

    @classmethod
    def of(cls, scan: Tensor, axis: int, other: int, spacing: Sequence[float]) -> _Axes:
        third = 3 - axis - other
        turned = scan.permute(third, other, axis)
        reach = max(1, round(spacing[axis] / 2 / spacing[third]))
        per_line = min(turned.shape[2], turned.shape[1] * spacing[other] / spacing[axis])
        every = max(1, int(len(turned) * per_line // LINES))
        differences = turned[reach:] - turned[:-reach]
        return cls(turned[::every], differences[::every], spacing[axis] / spacing[other])

    def log_ratio(self, width: float, profile: Profile) -> NDArray[np.float64]:
        """Log ratio of spectra [frequencies] along the slices and along U, which is made thick with that width."""
        thick = ThickAxis.inside(self.lines.shape[1], self.step, width * self.step, profile)
        ratio = np.zeros(len(FREQUENCIES))
        for image in (self.lines, self.differences):
            doubly = along(image[:, : thick.thin], thick.matrix.float(), 1)
            ratio += _log_ratio(doubly, doubly.transpose(1, 2)) / 2
        return ratio


def _log_ratio(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Log ratio of the mean normalised spectra of two sets of lines [..., n]."""
    length = min(SEGMENT, first.shape[-1], second.shape[-1])
    powers = [_power(lines, length) for lines in (first, second)]
    energies = [power.mean(1, keepdim=True) for power in powers]
    level = LEVEL * sum(energy.mean() for energy in energies) / 2
    one, two = ((p / (e + level)).mean(0).double() for p, e in zip(powers, energies, strict=True))
    return (one / two).log().numpy()


def _power(lines: Tensor, length: int) -> Tensor:
    """Power of all segments of lines [..., n] at `FREQUENCIES`, under a Hann window and less its mean, [N, F]."""
    window = torch.hann_window(length + 2, periodic=False, dtype=torch.float64)[1:-1]
    window = window / window.square().sum().sqrt()
    angles = 2 * math.pi * FREQUENCIES[:, None] * torch.arange(length, dtype=torch.float64)
    kernel = torch.cat([window * torch.cos(angles), window * torch.sin(angles)])
    kernel = (kernel - kernel.sum(1, keepdim=True) * window.square()).to(lines.dtype)
    parts = lines.unfold(-1, length, length // 2).reshape(-1, length) @ kernel.T
    cosine, sine = parts.chunk(2, 1)
    return cosine.square() + sine.square()
