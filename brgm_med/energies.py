"""Energies (negative log densities, up to constants), each per image of the batch.

Likelihood terms compare a predicted measurement f(G(w)) with the measured one; prior terms judge W+ alone.
Images are in [-1, 1] (air to bright; fat may exceed 1). Equation numbers are those of arXiv 2012.04567.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from brgm_med.networks.noise import Shapes, pixels, split_maps, unit_maps
from brgm_med.perceptual import PerceptualFeatures


class Likelihood(Protocol):
    """-log p(measured | predicted), both [N, ...]; returns [N]."""

    def __call__(self, predicted: Tensor, measured: Tensor) -> Tensor: ...


class Prior(Protocol):
    """-log p(ws) of W+ [N, num_ws, w_dim]; returns [N]."""

    def __call__(self, ws: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Pixel:
    """`weight` times the sum over pixels of the squared difference (Eq. 5, L_pixel).

    Independent Gaussian noise of standard deviation s (in units of the [-1, 1] range) is `weight` 1 / (2 s^2).
    """

    weight: float = 0.001

    def __call__(self, predicted: Tensor, measured: Tensor) -> Tensor:
        return self.weight * (predicted - measured).square().flatten(1).sum(1)


@dataclass(frozen=True)
class Perceptual:
    """`weight` times the distance in the features of a network (Eq. 5, L_percept).

    The distance and the size at which features are taken are those of `features`; it is not a log density
    (the paper, supplementary section A, says the same).
    """

    features: PerceptualFeatures
    weight: float = 1.0
    _cache: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, predicted: Tensor, measured: Tensor) -> Tensor:
        cached = self._cache.get(0)
        if cached is None or cached[0] is not measured:  # the measurement does not change from step to step
            with torch.no_grad():
                cached = (measured, list(self.features.features(measured)))
            self._cache[0] = cached
        return self.weight * self.features.distance(self.features.features(predicted), cached[1])


@dataclass(frozen=True)
class Gaussian:
    """`weight` times sum over layers and dimensions of ((w - mean) / deviation)^2 (Eq. 5, L_w).

    `mean` [w_dim], or [N, 1, w_dim] for one an image. `deviation` is one number, the root of the mean squared distance
    of w from its mean (as in the inversion of StyleGAN2, which the paper follows), or [N, 1, 1] for one an image, or
    [w_dim] for one per dimension.
    """

    mean: Tensor
    deviation: Tensor
    weight: float = 100.0

    def __call__(self, ws: Tensor) -> Tensor:
        return self.weight * ((ws - self.mean) / self.deviation).square().sum((1, 2))


@dataclass(frozen=True)
class Colinear:
    """`weight` times the sum over pairs of layers i < j of 1 - cos(w_i, w_j) (Eq. 5, L_colin).

    The equation as printed adds +cos, which a minimiser would drive to anti-parallel w; the text wants them
    colinear, hence 1 - cos. Each unordered pair counts once.
    """

    weight: float = 3.0

    def __call__(self, ws: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(ws, dim=2, eps=1e-8)
        layers = ws.shape[1]
        # sum_{i<j} cos_ij = (|sum_i u_i|^2 - sum_i |u_i|^2) / 2
        cosines = (unit.sum(1).square().sum(1) - unit.square().sum((1, 2))) / 2
        return self.weight * (layers * (layers - 1) / 2 - cosines)


@dataclass(frozen=True)
class GeodesicCross:
    """`weight` times the sum over pairs of layers i < j of the squared angle between v_i and v_j, in radians.

    From PULSE (Menon et al., CVPR 2020): on a sphere the angle is the geodesic distance. `ws` [N, num_ws, w_dim] may
    have any length. An angle is 2 asin(|u_i - u_j| / 2) of unit vectors u; opposite ones come out 0.001 short of pi.
    """

    weight: float = 0.05

    def __call__(self, ws: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(ws, dim=2, eps=1e-8)
        i, j = torch.triu_indices(ws.shape[1], ws.shape[1], offset=1, device=ws.device)
        chord = ((unit[:, i] - unit[:, j]).square().sum(2) + 1e-24).sqrt()  # not quite 0: its derivative stays finite
        return self.weight * (2 * (chord / 2).clamp(max=1 - 1e-7).asin()).square().sum(1)


@dataclass(frozen=True)
class Uncorrelated:
    """`weight` times how far neighbouring pixels of noise maps resemble each other (Karras et al. 2020, appendix D).

    Of coordinates [N, 1, R + M] whose last M are the pixels of maps of the given `shapes`, each of which counts at
    zero mean and unit variance: the squared mean product of a pixel and its neighbour, along the rows and along the
    columns, edges wrapped, summed over maps and over coarser versions of each (half the size, of like variance)
    for as long as both sides keep 8 pixels.
    """

    shapes: Shapes
    weight: float = 1e5

    def __call__(self, ws: Tensor) -> Tensor:
        total = ws.new_zeros(len(ws))
        for n in unit_maps(split_maps(ws[:, 0, ws.shape[2] - pixels(self.shapes) :], self.shapes)).values():
            while True:
                for axis in (2, 3):
                    total = total + (n * n.roll(1, axis)).mean((1, 2, 3)).square()
                if min(n.shape[2:]) < 16:
                    break
                n = 2 * torch.nn.functional.avg_pool2d(n, 2)
        return self.weight * total


@dataclass(frozen=True)
class GaussMarkov:
    """`weight` times the squared innovations of a stack of neighbouring slices: whitened coordinates [N, 1, R].

    Along the stack every coordinate is a stationary first-order chain of unit variance, a_i = rho a_{i-1} +
    sqrt(1 - rho^2) e_i, `correlation` [R] the rho between neighbours; e_0 = a_0. With `weight` 0.5 this is -log of
    that Gaussian. Image i's term holds its own innovation, so it depends on its neighbour.
    """

    correlation: Tensor
    weight: float = 0.5

    def __call__(self, ws: Tensor) -> Tensor:
        rho = self.correlation
        innovation = (ws[1:, 0] - rho * ws[:-1, 0]) / (1 - rho.square()).sqrt()
        return self.weight * torch.cat([ws[:1, 0], innovation]).square().sum(1)


def summary(terms: Mapping[str, Tensor]) -> str:
    """Mean energies by the names of their terms, for the log."""
    return "  ".join(f"{name} {float(value.mean()):.1f}" for name, value in terms.items())
