"""Samples of a posterior by perturbing it and optimising again.

Where everything is linear and Gaussian, the minimum of an energy whose data are moved by noise as theirs, and whose
prior's mean is moved by a draw from the prior, is an exact sample of the posterior (Papandreou and Yuille 2010);
elsewhere it is one near the minimum (randomize-then-optimize, Bardsley et al. 2014).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from brgm_med.energies import GaussMarkov, Prior
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import gauss_markov


@dataclass(frozen=True)
class Moved:
    """A prior whose mean is moved by `offset`, of the shape of ws."""

    prior: Prior
    offset: Tensor

    def __call__(self, ws: Tensor) -> Tensor:
        return self.prior(ws - self.offset)


def perturbed(posterior: Posterior, noise: Tensor, offset: Tensor) -> Posterior:
    """The posterior whose minimum is a sample: `noise`, drawn as that of the measurement, is added to it, and the one
    prior's mean moves by `offset`, drawn from that prior less its mean. Raises ValueError for several priors."""
    if len(posterior.prior) != 1:
        raise ValueError("perturbed: one Gaussian prior is needed")
    measured = posterior.measured + noise.to(posterior.measured)
    return dataclasses.replace(posterior, measured=measured, prior=(Moved(posterior.prior[0], offset),))


def chain(prior: GaussMarkov, count: int, random: torch.Generator) -> Tensor:
    """A draw from a `GaussMarkov` prior: coordinates [count, 1, R] of neighbouring slices."""
    unit = gauss_markov(prior.correlation.cpu(), count, random)
    return ((0.5 / prior.weight) ** 0.5 * unit)[:, None].to(prior.correlation)
