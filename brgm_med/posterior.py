"""The posterior over W+ of a generator, given a measurement: written once, used by every solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from brgm_med.energies import Colinear, Gaussian, Likelihood, Mahalanobis, Perceptual, Pixel, Prior
from brgm_med.perceptual import PerceptualFeatures


class Generator(Protocol):
    """What a generator must offer; `networks.StyleGAN2` does, and so can a VAE's decoder."""

    z_dim: int
    num_ws: int
    w_dim: int
    image_shape: tuple[int, int]

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim] (and condition) -> w [N, w_dim]."""
        ...

    def synthesis(self, ws: Tensor, noise: str = "const") -> Tensor:
        """W+ [N, num_ws, w_dim] -> image [N, C, H, W], about [-1, 1]."""
        ...


@dataclass(frozen=True)
class Posterior:
    """Energy -log p(w | y), up to a constant, as named terms of shape [N].

    `corruption` maps clean images [N, C, H, W] to what was measured; `measured` has that shape. The energies of
    image i depend on image i alone unless the corruption itself couples images (a slice profile across slices).
    Raises ValueError for two terms of the same type: one would hide the other.
    """

    generator: Generator
    corruption: nn.Module
    measured: Tensor
    likelihood: tuple[Likelihood, ...]
    prior: tuple[Prior, ...]
    noise: str = "const"

    def __post_init__(self) -> None:
        names = [type(t).__name__ for t in (*self.likelihood, *self.prior)]
        if len(set(names)) < len(names):
            raise ValueError(f"a posterior takes one term of each type, not {', '.join(names)}")

    def image(self, ws: Tensor) -> Tensor:
        """G(w): W+ [N, num_ws, w_dim] -> [N, C, H, W]."""
        return self.generator.synthesis(ws, noise=self.noise)

    def energies(self, ws: Tensor) -> dict[str, Tensor]:
        predicted = self.corruption(self.image(ws))
        data = {type(t).__name__: t(predicted, self.measured) for t in self.likelihood}
        return data | {type(t).__name__: t(ws) for t in self.prior}


@dataclass(frozen=True)
class WStatistics:
    """Mean [w_dim] of mapped w and their scalar deviation, the root of the mean of |w - mean|^2."""

    mean: Tensor
    deviation: Tensor


def w_statistics(generator: Generator, samples: int = 10_000, seed: int = 0, c: Tensor | None = None) -> WStatistics:
    """Statistics of W from `samples` mapped z (section 2.5: 10,000). `c` [1, c_dim] conditions all of them."""
    z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        w = generator.mapping(z, None if c is None else c.expand(samples, -1))
    mean = w.mean(0)
    return WStatistics(mean, (w - mean).square().sum(1).mean().sqrt())


def brgm_posterior(
    generator: Generator,
    corruption: nn.Module,
    measured: Tensor,
    statistics: WStatistics,
    features: PerceptualFeatures | None,
) -> Posterior:
    """The paper's posterior: Eq. 5 with its weights 1, 0.001, 100, 3, in these conventions.

    L_percept: distance in `features` (the paper: LPIPS on VGG at 256 x 256), mean over positions. L_pixel: sum over
    pixels of squared differences, range [-1, 1]. L_w: sum over layers and dimensions, scalar sigma. L_colin: sum
    over pairs i < j of 1 - cos. `features` None leaves the perceptual term out.
    """
    likelihood: tuple[Likelihood, ...] = (Pixel(0.001),)
    if features is not None:
        likelihood = (Perceptual(features, 1.0), *likelihood)
    prior: tuple[Prior, ...] = (Gaussian(statistics.mean, statistics.deviation, 100.0), Colinear(3.0))
    return Posterior(generator, corruption, measured, likelihood, prior)


@dataclass(frozen=True)
class Weights:
    """The weights of our default posterior, chosen by measurement on the choosing heads (see the model card).

    `noise`: standard deviation of what the generator and the approximate likelihood leave unexplained, in units of
    the [-1, 1] range. `perceptual`: weight of the perceptual distance times the number of pixels. `prior`: weight of
    the squared Mahalanobis distance (0.5 would be the Gaussian that was fitted to the training slices).
    """

    noise: float = 0.1
    perceptual: float = 0.0
    prior: float = 0.05


def encoded_posterior(
    generator: Generator,
    corruption: nn.Module,
    measured: Tensor,
    prior: Mahalanobis,
    features: PerceptualFeatures | None,
    weights: Weights,
) -> Posterior:
    """Our default: Gaussian noise and the Gaussian of encoded training slices on W+, correlations included.

    The search starts at `prior.mean`, which knows where along the head each slice lies.
    """
    likelihood: tuple[Likelihood, ...] = (Pixel(0.5 / weights.noise**2),)
    if features is not None and weights.perceptual:
        likelihood = (*likelihood, Perceptual(features, weights.perceptual * measured[0].numel()))
    return Posterior(generator, corruption, measured, likelihood, (prior,), noise="none")
