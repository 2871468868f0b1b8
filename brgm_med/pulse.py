"""PULSE (Menon et al., CVPR 2020): the search for an image on the sphere where a Gaussian's mass is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.energies import GeodesicCross, Pixel
from brgm_med.networks.noise import Noise
from brgm_med.posterior import Generator, Posterior, Wrapping, mapped

SLOPE = 0.2  # of the leaky rectifier that ends a mapping network


@dataclass(frozen=True)
class Directions(Wrapping):
    """A generator in coordinates that are directions, one a layer: only where [N, num_ws, w_dim] point counts.

    v = sqrt(w_dim) times the unit vector lies on the sphere near which standard normal vectors of so many dimensions
    are, and w = LReLU(mean + deviation * v). `mean`, `deviation` [N or 1, 1, w_dim]: the Gaussian that mapped w are
    before the mapping network's last leaky rectifier (of slope 0.2), each dimension on its own.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of_mapped(cls, generator: Generator, c: Tensor | None = None, samples: int = 10_000, seed: int = 0) -> Self:
        """The Gaussian of `samples` mapped z, under each condition of `c` [N, c_dim] (None: not conditional)."""
        conditions = [None] if c is None else list(c.split(1))
        before = [F.leaky_relu(mapped(generator, samples, seed, each), 1 / SLOPE) for each in conditions]
        return cls(generator, *(torch.stack([f(x, 0)[None] for x in before]) for f in (torch.mean, torch.std)))

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z -> the v of the w that the generator maps it to, [N, w_dim], before it is brought onto the sphere."""
        return (F.leaky_relu(self.generator.mapping(z, c), 1 / SLOPE) - self.mean[:, 0]) / self.deviation[:, 0]

    def ws(self, directions: Tensor) -> Tensor:
        """Directions [N, num_ws, w_dim] -> W+ [N, num_ws, w_dim]."""
        return F.leaky_relu(self.mean + self.deviation * on_sphere(directions), SLOPE)

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        """The image at directions `ws` [N, num_ws, w_dim]."""
        return self.generator.synthesis(self.ws(ws), noise=noise)


def on_sphere(directions: Tensor) -> Tensor:
    """Vectors [..., d] of any length but 0 -> the same directions at length sqrt(d)."""
    return F.normalize(directions, dim=-1) * math.sqrt(directions.shape[-1])


def pulse_posterior(
    generator: Generator, corruption: nn.Module, measured: Tensor, c: Tensor | None = None
) -> Posterior:
    """PULSE's loss: 100 times the mean squared error of the measurement, grey from 0 to 1, + 0.05 times the
    geodesic cross of the layers' directions.

    `measured` [N, ...] is on [-1, 1] as everywhere. `c` [N, c_dim], or [1, c_dim] for all: the images' conditions. Its
    coordinates are directions (`Directions`): start at `torch.randn(N, num_ws, w_dim)`, brought `on_sphere`, and search
    with `fit_map(posterior, start, steps=100, rate=0.4)`. Coordinates are not brought back to the sphere between steps,
    so their length grows, and steps turn them less and less. The generator's noise stays constant.
    """
    pixel = Pixel(100 / (4 * measured[0].numel()))  # a difference on [0, 1] is half of one on [-1, 1]
    return Posterior(Directions.of_mapped(generator, c), corruption, measured, (pixel,), (GeodesicCross(0.05),))
