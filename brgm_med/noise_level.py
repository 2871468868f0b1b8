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
    if len(values) < FEWEST:
        return NoiseLevel(0.0, "unidentified")
    low, middle, high = torch.quantile(thinned(values), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    if high <= low:
        return NoiseLevel(0.0, "unidentified")
    if float(values.min()) >= 0 and low > 0 and abs(math.log(high / low / RAYLEIGH_QUARTILES)) < 0.35:
        return NoiseLevel(middle / RAYLEIGH_MEDIAN, "rician")
    return NoiseLevel((high - low) / 1.3489795, "gaussian")


def noise_of_scan(values: Tensor, axis: int) -> NoiseLevel:
    """From a scan [X, Y, Z] without any mask, slices along `axis`; white noise at the scale of its pixels.

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
    planes = planes[:: -(-len(planes) // MOST_SLICES)].double()
    if min(planes.shape[1:]) < 4 * BLOCK or planes.min() == planes.max():
        return NoiseLevel(0.0, "unidentified")
    low, high = torch.quantile(thinned(planes.flatten()), torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    energy = _blocks(_diagonal(planes).square(), BLOCK)
    corner = (slice(None), slice(energy.shape[1]), slice(energy.shape[2]))
    mean, square = _blocks(planes, 2 * BLOCK)[corner], _blocks(planes.square(), 2 * BLOCK)[corner]
    dark = mean <= low + DARK * (high - low)
    estimates: list[NoiseLevel] = []
    if int((~dark).sum()) >= FEWEST_BLOCKS:
        estimates.append(NoiseLevel(_white(energy[~dark], 0.1), "gaussian"))
    real = dark & (energy > 0)
    if int(real.sum()) >= max(FEWEST_BLOCKS, 0.5 * int(dark.sum())):
        deviation = _white(energy[real], 0.25)
        quiet = real & (energy <= energy[real].median())
        level, spread = float(mean[quiet].median()), float((square - mean.square())[quiet].median().clamp(min=0).sqrt())
        near_zero = abs(level) < NEAR_ZERO * spread
        if near_zero and spread > SMOOTH * deviation:
            return NoiseLevel(0.0, "unidentified")
        magnitude = near_zero and float(planes.min()) >= 0
        if magnitude and spread < 0.75 * level:
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
