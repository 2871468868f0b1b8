"""The strength of a scan's noise: from air that registration shows, or from the finest detail of the scan itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST = 500
RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))
RAYLEIGH_QUARTILES = math.sqrt(math.log(4) / math.log(4 / 3))
"""Median, in standard deviations of the noise, and upper over lower quartile of a Rayleigh distribution."""

HALF_MEDIAN, HALF_QUARTILES = 0.6744898, 1.1503494 / 0.3186394
"""The same of the positive half of a Gaussian."""

REPEATED = 0.02
"""Part of air that may be one value by chance."""

RAYLEIGH, CLIPPED = math.sqrt(2 - math.pi / 2), math.sqrt(0.5 - 0.5 / math.pi)
"""Spread of noise in air, in standard deviations of the noise: of a magnitude image, and of one clipped at 0."""

WAVELET = (0.48296291314453414, 0.8365163037378079, 0.2241438680420134, -0.12940952255126037)
"""Low-pass filter of Daubechies' orthonormal wavelet with two vanishing moments (Daubechies 1988)."""

BLOCK = 4
"""Coefficients along each side of a block; a block covers twice as many pixels."""

FEWEST_BLOCKS = 50
MOST_SLICES = 64
"""Fewest blocks of tissue, or of air, that tell the noise; slices that are looked at, evenly taken."""

DARK = 0.25
"""Blocks are air, or dark tissue, up to this part of the range from the 0.5th to the 99.5th percentile."""

NEAR_ZERO, SMOOTH = 5.0, 1.4
"""Air lies within so many standard deviations of 0; noise is smooth where blocks of air spread more than their
coefficients say, by this factor (white noise: 0.87 to 1.1)."""

NEGLIGIBLE = 0.005
"""Noise below this part of the same range is negligible: quiet tissue of scans without noise seems to hold as much."""


@dataclass(frozen=True)
class NoiseLevel:
    """`deviation`: the noise's standard deviation in the scan's units, 0 where it is not known. `kind`:
    "gaussian"; "rician", the magnitude of complex noise (its bias in the dark is not corrected); "unidentified";
    "negligible"; or "stated"."""

    deviation: float
    kind: Literal["gaussian", "rician", "unidentified", "negligible", "stated"]


def noise_in_air(air: Tensor) -> NoiseLevel:
    """From values in air, of any shape, where a scan without noise would be constant.

    Robust: quartiles, so that ghosts and skin in up to a tenth of the air hardly count. Values that are never negative
    and spread as a Rayleigh distribution does (upper over lower quartile about 2.2) are magnitudes. Fewer than 500
    values, or air that was set to a constant, tell nothing. Noise that was smoothed along with the scan (interpolation)
    is estimated as it is now.
    """
    values = air.flatten().double()
    known = None if len(values) < FEWEST else _untouched(values)
    if known is None or len(known) < FEWEST:
        return NoiseLevel(0.0, "unidentified")
    low, middle, high = _quartiles(known)
    if high <= low:
        return NoiseLevel(0.0, "unidentified")
    if float(known.min()) >= 0 and low > 0 and abs(math.log(high / low / RAYLEIGH_QUARTILES)) < 0.35:
        return NoiseLevel(middle / RAYLEIGH_MEDIAN, "rician")
    if len(known) < len(values) and float(known.min()) >= 0:  # clipped at 0: half of a Gaussian is left
        return NoiseLevel(middle / HALF_MEDIAN, "gaussian")
    return NoiseLevel((high - low) / 1.3489795, "gaussian")


def _quartiles(values: Tensor) -> list[float]:
    quartiles: list[float] = torch.quantile(
        thinned(values), torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)
    ).tolist()
    return quartiles


def _untouched(air: Tensor) -> Tensor | None:
    """Values of air [N] without those that are one constant, where they were set to it; None where what is left is no
    noise of a known kind.

    Where more than `REPEATED` of all are one value, and do not follow from rounding, noise of the rest is known by its
    shape: Rayleigh, or half of a Gaussian that was clipped at 0.
    """
    levels, counts = torch.unique(air, return_counts=True)
    most = int(counts.argmax())
    if len(levels) < 2 or int(counts[most]) <= REPEATED * len(air) or _rounded(levels, counts, most):
        return air
    left = air[air != levels[most]]
    low, middle, high = _quartiles(left)
    if not (float(left.min()) > float(levels[most]) == 0 and low > 0):
        even = low < middle < high and low < 0 < high and abs(math.log((high - middle) / (middle - low))) < 0.2
        return left if even else None
    magnitude = abs(math.log(high / low / RAYLEIGH_QUARTILES)) < 0.1
    clipped = abs(math.log(high / low / HALF_QUARTILES)) < 0.2 and 0.35 < 1 - len(left) / len(air) < 0.65
    return left if magnitude or clipped else None


def _rounded(levels: Tensor, counts: Tensor, most: int) -> bool:
    """True where a level is no more than twice as frequent as its more frequent neighbour: noise of few levels."""
    beside = counts[max(0, most - 1) : most + 2]
    return 2 * int(beside.sort().values[-2]) >= int(counts[most])


def noise_of_scan(values: Tensor, axis: int, measured: Tensor | None = None) -> NoiseLevel:
    """From a scan [X, Y, Z], slices along `axis`; white noise at the scale of its pixels.

    `measured` [X, Y, Z] bool: voxels that are no constant surroundings; None: all. Where air is partly set to a value,
    the rest of it tells; where single pixels of it are, or it was cut off below a threshold, it tells nothing.

    The diagonal wavelet coefficients of each plane hold noise and little else (Donoho and Johnstone 1994). Their mean
    square in a block is distributed as chi-squared, so that the quietest blocks tell the noise: the tenth percentile
    of tissue, where texture counts least, and the quartile of air, unless most of the air is constant. The smaller of
    both is taken. Magnitudes (and values clipped at 0) spread less in air than in tissue, which is corrected.
    "unidentified": too small a scan, or smooth noise in air (interpolated pixels). In tissue, smooth noise looks
    negligible.

    Measured on validation heads (IXI T1 with slices of 6 mm, ds000011 T1 of 5.3 mm and T2 of 5 mm, ds002748 of 5 mm) in
    per cent of the 99.5th percentile. With 0, 1, 2, 5, 10 added, Gaussian, Rician or clipped at 0: at most 0.5 (but
    what ds000011 itself has in air: 1.1 to 1.3 T1, 0.8 T2), 1.0 to 1.9, 2.0 to 2.9, 5.0 to 5.8, 9.8 to 10.6. Where air
    is then set to 0, texture counts as noise: 0.0 to 0.5, 1.2, 2.2, 5.1, 9.8 on ds002748, 1.6 to 1.8, 2.0, 2.9, 5.8,
    10.5 on ds000011, 2.4 to 2.8, 3.1, 3.7, 6.4, 10.7 on IXI, whose pixels are 2 mm.
    """
    planes = values.movedim(axis, 0)
    step = -(-len(planes) // MOST_SLICES)
    planes = planes[::step].double()
    if min(planes.shape[1:]) < 4 * BLOCK or planes.min() == planes.max():
        return NoiseLevel(0.0, "unidentified")
    low, high = torch.quantile(thinned(planes.flatten()), torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    energy = _blocks(_diagonal(planes).square(), BLOCK)
    corner = (slice(None), slice(energy.shape[1]), slice(energy.shape[2]))
    mean, square = _blocks(planes, 2 * BLOCK)[corner], _blocks(planes.square(), 2 * BLOCK)[corner]
    floor = low + DARK * (high - low)
    constant = _constant(planes) & (planes <= floor)
    if measured is not None:
        constant |= ~measured.movedim(axis, 0)[::step]
    whole = _whole(constant)
    dark = (mean <= floor) & whole
    tissue = (mean > floor) & whole
    estimates: list[NoiseLevel] = []
    if int(tissue.sum()) >= FEWEST_BLOCKS:
        estimates.append(NoiseLevel(_white(energy[tissue], 0.1), "gaussian"))
    real = dark & (energy > 0)
    if int(real.sum()) >= max(FEWEST_BLOCKS, 0.5 * int(dark.sum())):
        deviation = _white(energy[real], 0.25)
        quiet = real & (energy <= energy[real].median())
        level, spread = float(mean[quiet].median()), float((square - mean.square())[quiet].median().clamp(min=0).sqrt())
        near_zero = abs(level) < NEAR_ZERO * spread
        if near_zero and spread > SMOOTH * deviation:
            return NoiseLevel(0.0, "unidentified")
        pixels = quiet.repeat_interleave(2 * BLOCK, 1).repeat_interleave(2 * BLOCK, 2)
        air = planes[:, : pixels.shape[1], : pixels.shape[2]][pixels]
        magnitude = near_zero and float(planes.min()) >= 0
        left = _untouched(air)
        if left is None or (len(left) < len(air) and float(left.min()) < 0):
            pass  # single pixels of it were set to a value: it is as rough as they make it
        elif magnitude and spread < 0.75 * level:
            estimates.append(NoiseLevel(deviation / RAYLEIGH, "rician"))
        else:
            estimates.append(NoiseLevel(deviation / CLIPPED if magnitude else deviation, "gaussian"))
    if not estimates:
        return NoiseLevel(0.0, "unidentified")
    deviation = min(estimate.deviation for estimate in estimates)
    if deviation < NEGLIGIBLE * (high - low):
        return NoiseLevel(0.0, "negligible")
    return NoiseLevel(deviation, estimates[-1].kind)


def _diagonal(planes: Tensor) -> Tensor:
    """Finest diagonal wavelet coefficients [P, X / 2 - 1, Y / 2 - 1] of planes [P, X, Y]."""
    low = torch.tensor(WAVELET, dtype=planes.dtype)
    high = low.flip(0) * torch.tensor([1, -1, 1, -1])
    return planes.unfold(1, 4, 2).matmul(high).unfold(2, 4, 2).matmul(high)


def _constant(planes: Tensor) -> Tensor:
    """The pixels [P, X, Y] in a square as wide as the wavelet that is constant: not noise, but set to a value."""
    side = len(WAVELET)
    ends = [F.max_pool2d(sign * planes[:, None], side, 1) for sign in (1, -1)]
    flat = (ends[0] == -ends[1]).to(planes)
    return F.max_pool2d(F.pad(flat, (side - 1,) * 4), side, 1)[:, 0] > 0


def _whole(constant: Tensor) -> Tensor:
    """The blocks whose coefficients see no pixel of `constant` [P, X, Y]."""
    reach = 2 * BLOCK + len(WAVELET) - 2
    return F.max_pool2d(constant[:, None].float(), reach, 2 * BLOCK)[:, 0] == 0


def _blocks(planes: Tensor, side: int) -> Tensor:
    """Means over square blocks [P, X / side, Y / side], each in one plane."""
    return F.avg_pool2d(planes[:, None], side)[:, 0]


def _white(energy: Tensor, quantile: float) -> float:
    """Standard deviation of white noise whose mean squares over a block have this `quantile` in `energy`.

    The quantile of chi-squared is that of Wilson and Hilferty 1931.
    """
    spread = 2 / (9 * BLOCK**2)
    z = float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))
    return math.sqrt(float(torch.quantile(thinned(energy), quantile)) / (1 - spread + z * math.sqrt(spread)) ** 3)


def thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    """At most so many of the values, evenly taken: torch's quantile takes no more than 16 million."""
    return values[:: -(-len(values) // most)]
