"""PULSE (Menon et al., CVPR 2020): latents on a sphere, mapped to W by the Gaussian of what is mapped there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.energies import Pixel
from brgm_med.networks.noise import Noise
from brgm_med.posterior import Generator, Posterior

SLOPE = 0.2  # of the leaky rectifier that ends the mapping network
PIXEL, GEODESIC = 100.0, 0.05
RATE, STEPS = 0.4, 100


@dataclass(frozen=True)
class GeodesicCross:
    """`weight` times the sum over pairs of layers i < j of the squared angle between v_i and v_j, in radians^2.

    The squared geodesic distance on the unit sphere (PULSE, section 3.2), written by chords, so that its gradient is
    finite where two directions are equal.
    """

    weight: float = GEODESIC

    def __call__(self, ws: Tensor) -> Tensor:
        unit = F.normalize(ws, dim=2)
        i, j = torch.triu_indices(ws.shape[1], ws.shape[1], 1, device=ws.device)
        square = (unit[:, i] - unit[:, j]).square().sum(2).clamp(1e-12, 4 - 1e-6)
        return self.weight * (2 * (square.sqrt() / 2).asin()).square().sum(1)


@dataclass(frozen=True)
class Spherical:
    """A generator whose W+ are directions: layer l has v_l on the sphere of radius sqrt(D), and w_l = r(mean +
    deviation v_l), r the leaky rectifier that ends the mapping network.

    `mean`, `deviation` [N or 1, 1, w_dim]: of r^-1(mapped z). In D dimensions N(0, I) has its mass about that sphere.
    """

    generator: Generator
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of_mapped(cls, generator: Generator, samples: int = 10_000, seed: int = 0, c: Tensor | None = None) -> Self:
        """From `samples` mapped z; `c` [N, c_dim]: the conditions of N images, for a conditional generator."""
        z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed))
        means, deviations = [], []
        with torch.no_grad():
            for one in [None] if c is None else c[:, None]:
                w = generator.mapping(z, None if one is None else one.expand(samples, -1))
                before = torch.where(w < 0, w / SLOPE, w)
                means.append(before.mean(0, keepdim=True))
                deviations.append(before.std(0, keepdim=True))
        return cls(generator, torch.stack(means), torch.stack(deviations))

    @property
    def z_dim(self) -> int:
        return self.generator.z_dim

    @property
    def num_ws(self) -> int:
        return self.generator.num_ws

    @property
    def w_dim(self) -> int:
        return self.generator.w_dim

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.generator.image_shape

    def ws(self, directions: Tensor) -> Tensor:
        """Directions [N, num_ws, w_dim], of any length -> W+ of that shape."""
        v = F.normalize(directions, dim=2) * self.w_dim**0.5
        return F.leaky_relu(self.mean + self.deviation * v, SLOPE)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z -> the direction of the w that it is mapped to: [N, w_dim]."""
        w = self.generator.mapping(z, c)
        return (torch.where(w < 0, w / SLOPE, w) - self.mean[:, 0]) / self.deviation[:, 0]

    def synthesis(self, ws: Tensor, noise: Noise = "none") -> Tensor:
        """The image at directions `ws` [N, num_ws, w_dim]."""
        return self.generator.synthesis(self.ws(ws), noise=noise)


def pulse_posterior(generator: Spherical, corruption: nn.Module, measured: Tensor) -> Posterior:
    """PULSE's loss: 100 times the mean squared error of the measurement, and 0.05 times `GeodesicCross`.

    Its search: `solvers.fit_map`, `STEPS` steps at `RATE`, from random directions [N, num_ws, w_dim].
    """
    pixels = measured[0].numel()
    return Posterior(generator, corruption, measured, (Pixel(PIXEL / pixels),), (GeodesicCross(),), noise="none")
