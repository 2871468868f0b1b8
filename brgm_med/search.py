"""The tuned numbers of every reconstruction: one table, which names the data that each was chosen on.

The validation heads are numbers 120 to 134 of IXI's Hammersmith T1 heads by sorted file name: they trained nothing, and
no published result is theirs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Search:
    """Settings of the search for a reconstruction, and of making its answer consistent with what was measured.

    `iterations`: evaluations of energy and gradient, at most. `misfit`: standard deviation of what the generator leaves
    unexplained of a measurement, in units of the [-1, 1] range. `correlation`: length over which the error that the
    final projection corrects is correlated, in mm of a volume, in pixels of a slice or picture.

    `solver`: L-BFGS, or Adam with a first step size of `rate`. `tolerance`: relative fall of the energy below which an
    image is settled (0: never). `refined_after`: iterations after which poses and bias fields are fitted again.
    `prior_weight`: of the squared innovations of whitened coordinates (0.5: the Gaussian that was fitted to training
    stacks). `perceptual_weight`: of the perceptual distance, times the number of pixels, where features are given.
    `error`: standard deviation of the image that is projected, against which a measurement's noise is weighed.
    `interpolation`: how far several scans contradict each other because grids at angles are interpolated, in units of
    the prior's error. `learning`: iterations by which the prior of a scan's own planes is tuned.

    `energy`: that of the Gaussian of encoded training images, or the paper's Eq. 5 around mapped w; this has its own
    weights, and of the others only `iterations`, `rate` and `solver` are used. `projected`: whether the answer is made
    consistent with what was measured, which the paper does not.
    """

    iterations: int
    misfit: float
    correlation: float
    solver: Literal["lbfgs", "adam"] = "lbfgs"
    rate: float = 0.1
    tolerance: float = 0.0
    refined_after: tuple[int, ...] = ()
    prior_weight: float = 0.5
    perceptual_weight: float = 0.5
    error: float = 0.2
    interpolation: float = 0.1
    learning: int = 300
    energy: Literal["encoded", "paper"] = "encoded"
    projected: bool = True

    def limited_to(self, iterations: int | None) -> Search:
        """The same with so many iterations, and learning in proportion; None: as it is."""
        if iterations is None:
            return self
        learning = max(1, round(self.learning * iterations / self.iterations))
        return dataclasses.replace(self, iterations=iterations, learning=learning)


VOLUME = Search(iterations=25, misfit=0.15, correlation=1.0, refined_after=(4, 10))
"""All slices of a head together, from one or several scans. Iterations, misfit, weights and correlation: two to five
validation heads (see the model card); interpolation: one validation head, of 0, 0.1 and 0.3; refits: no record."""

HOLE = Search(iterations=15, misfit=0.8, correlation=1.0)
"""The slices around a hole in a volume, together. Misfit: four validation heads, of 0.15 to 3; it is larger than the
generator's error there, since neighbouring errors are alike. Iterations: no record."""

SLICES = Search(iterations=25, misfit=0.08, correlation=0.5, tolerance=2e-3)
"""Slices on the prior's own grid, each on its own. Iterations, and the error, which is what is left there: validation
heads; misfit, tolerance and correlation: no record."""

SLICES_HOLE = dataclasses.replace(SLICES, misfit=0.3)
"""Slices with a hole, each on its own. Misfit: three validation heads, of 0.08 to 0.8; neighbouring pixels err alike,
so that all of them together tell less."""

PICTURE = Search(iterations=100, misfit=0.15, correlation=0.5, solver="adam")
"""A picture in its prior's frame. The misfit is that of `VOLUME`; all else: no record."""

PAPER = Search(iterations=500, misfit=0.0, correlation=1.0, solver="adam", rate=0.1, energy="paper")
"""The paper's own search (section 2.5): nothing here was chosen on data."""

POPULATION_WEIGHT = 0.3
"""Weight b of the population prior's correction beside the scan's own (benchmarks/prior_weights.py, validation heads in
turned slices of 6 mm): 0.3 adds 0.04 to 0.12 dB on three heads of IXI, and takes LPIPS from .78 to .75 of the base's;
0.5 adds as much and takes it to .72; 1 loses."""

KNOWN = 0.75
"""Correlation of a scan with the population prior's template from which that prior has a weight: those heads have
0.80 to 0.85; at 0.70, on a head of ds000011, b adds 0.02 dB and .01 of LPIPS, which its search is not worth."""

STRANGE = 0.5
"""Below this correlation the population prior alone is refused, in `sr`, and for a hole beside which no other one tells
its weight: T1-weighted heads of its own scanner have 0.67 to 0.89, T2-weighted ones 0.14 to 0.39."""

HEADS = 1.25
"""Errors of heads over those of their own planes, which hold less detail (`self_prior.error_model`): the factor of
every interval. Eleven cases of validation heads (five of IXI, two of ds000011, four of ds002748; turned slices of 6 mm,
two straight ones of 5 mm; as benchmarks/coverage.py) then have 90.1 % of the brain's voxels in intervals of 90 %, the
least of them 87.4 %; of 50, 80 and 95 %: 50.2, 80.1 and 95.2."""

VALIDATED = 9
"""Number of heads that those cases are of: two brains are in two of them."""

HEADS_RMS = (1.04, 2.4)
"""Root mean square error in tissue over the deviation that says so, of the same eleven, and the half width of the
interval in which nine of ten further ones are to be expected, dB (Student's t of their decibels). It is larger in heads
with skull (1.2) than without (0.93)."""

SAMPLING = 6
"""Iterations from the most probable head to a sample of the population prior's posterior. No record."""
