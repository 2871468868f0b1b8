"""The strength of a scan's noise, from the air in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FEWEST = 500
RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))
RAYLEIGH_QUARTILES = math.sqrt(math.log(4) / math.log(4 / 3))
"""Median, in standard deviations of the noise, and upper over lower quartile of a Rayleigh distribution."""


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


def thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    """At most so many of the values, evenly taken: torch's quantile takes no more than 16 million."""
    return values[:: -(-len(values) // most)]
