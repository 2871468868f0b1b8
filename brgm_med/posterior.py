"""The posterior over W+ of a generator, given a measurement: written once, used by every solver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from brgm_med.energies import Colinear, Gaussian, GaussMarkov, Likelihood, Perceptual, Pixel, Prior
from brgm_med.networks.noise import Noise, Shapes, split_maps
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.search import Search


class Generator(Protocol):
    """The interface of a generator; `networks.StyleGAN2` has it, and so can a VAE's decoder."""

    @property
    def z_dim(self) -> int: ...
    @property
    def num_ws(self) -> int: ...
    @property
    def w_dim(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, int]: ...

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim] (and condition) -> w [N, w_dim]."""
        ...

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        """W+ [N, num_ws, w_dim] -> image [N, C, H, W], about [-1, 1]."""
        ...


@dataclass(frozen=True)
class Wrapping:
    """A generator made of another one: sizes and mapping are the other's, but for those that it defines itself."""

    generator: Generator

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

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.generator.mapping(z, c)


@dataclass(frozen=True)
class Posterior:
    """Energy -log p(w | y), up to a constant, as named terms of shape [N].

    `corruption` maps clean images [N, C, H, W] to what was measured; `measured` has that shape. The energies of
    image i depend on image i alone unless the corruption couples images (a slice profile across slices)
    or a prior does (`GaussMarkov`); `coupled` says so, and their energies then only mean something in sum. A term of
    one measurement of all images together has shape [1].
    Raises ValueError for two terms of the same type: one would hide the other.
    """

    generator: Generator
    corruption: nn.Module
    measured: Tensor
    likelihood: tuple[Likelihood, ...]
    prior: tuple[Prior, ...]
    noise: str = "const"
    coupled: bool = False

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
    """Mean [w_dim] of mapped w and their scalar deviation, the root of the mean of |w - mean|^2.

    Or one of each an image: [N, 1, w_dim] and [N, 1, 1], where a condition sets the images apart.
    """

    mean: Tensor
    deviation: Tensor


def mapped(generator: Generator, samples: int = 10_000, seed: int = 0, c: Tensor | None = None) -> Tensor:
    """w [samples, w_dim] of as many z, drawn on the CPU; `c` [1, c_dim] conditions all of them."""
    z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return generator.mapping(z, None if c is None else c.expand(samples, -1))


def w_statistics(generator: Generator, samples: int = 10_000, seed: int = 0, c: Tensor | None = None) -> WStatistics:
    """Statistics of W from `samples` mapped z (section 2.5: 10,000). `c` [1, c_dim] conditions all of them."""
    w = mapped(generator, samples, seed, c)
    mean = w.mean(0)
    return WStatistics(mean, (w - mean).square().sum(1).mean().sqrt())


GREY_VALUES = 127.5
"""Half the range of grey values 0 to 255, for `brgm_posterior`. On [-1, 1] the paper's prior outweighs the measurement
a thousandfold, and the mean w is the answer whatever was measured."""


def brgm_posterior(
    generator: Generator,
    corruption: nn.Module,
    measured: Tensor,
    statistics: WStatistics,
    features: PerceptualFeatures | None,
    half_range: float = 1.0,
) -> Posterior:
    """The paper's posterior: Eq. 5 with its weights 1, 0.001, 100, 3, in these conventions.

    L_percept: distance in `features` (the paper: LPIPS on VGG at 256 x 256), mean over positions. L_pixel: sum over
    pixels of squared differences, of grey values [-1, 1] times `half_range`: the paper does not state its units, and
    127.5 is 0 to 255. L_w: sum over layers and dimensions, scalar sigma. L_colin: sum over pairs i < j of 1 - cos.
    `features` None leaves the perceptual term out.
    """
    likelihood: tuple[Likelihood, ...] = (Pixel(0.001 * half_range**2),)
    if features is not None:
        likelihood = (Perceptual(features, 1.0), *likelihood)
    prior: tuple[Prior, ...] = (Gaussian(statistics.mean, statistics.deviation, 100.0), Colinear(3.0))
    return Posterior(generator, corruption, measured, likelihood, prior)


@dataclass(frozen=True)
class Whitened(Wrapping):
    """A generator in coordinates that are N(0, 1) a priori: all its latent inputs, W+ whitened and noise maps.

    Coordinates [N, 1, R + M] are R numbers a, for w = mean + basis (deviation * a), and then the M pixels of noise
    maps, so every solver can use it as a generator. `mean` [N or 1, num_ws * w_dim], `basis` [num_ws * w_dim, R]
    orthonormal, `deviation` [R]: the Gaussian that was fitted to encoded training slices; along directions outside the
    basis w stays at its mean. `correlation` [R + M]: that of neighbouring slices' coordinates. `shapes`: of the maps
    that are searched; by default none (M = 0), and the coordinates are those of W+ alone.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor
    correlation: Tensor
    shapes: Shapes = field(default_factory=dict)

    @property
    def num_ws(self) -> int:
        return 1

    @property
    def w_dim(self) -> int:
        return len(self.correlation)

    def ws(self, coordinates: Tensor) -> Tensor:
        """Coordinates [N, 1, R + M] -> W+ [N, num_ws, w_dim]."""
        flat = self.mean + (coordinates[:, 0, : len(self.deviation)] * self.deviation) @ self.basis.T
        return flat.reshape(len(flat), self.generator.num_ws, -1)

    def maps(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Coordinates [N, 1, R + M] -> noise maps [N, 1, h, w] by the name of their block; none where M is 0."""
        return split_maps(coordinates[:, 0, len(self.deviation) :], self.shapes)

    @property
    def curvature(self) -> Tensor:
        """Rough curvature of a likelihood along the coordinates, [R + M], for `solvers.fit_lbfgs`.

        It is deviation^2 in W+, as far as all of w shows in the image alike; its root, above a floor, was the better
        guess on the validation heads, and so was the floor for the maps.
        """
        relative = self.deviation / self.deviation.max()
        return torch.nn.functional.pad(relative, (0, self.w_dim - len(relative))).clamp_min(0.03)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z -> w as the generator maps it, then whitened, and maps of 0: [N, R + M]."""
        w = self.generator.mapping(z, c).repeat(1, self.generator.num_ws)
        a = (w - self.mean) @ self.basis / self.deviation
        return torch.nn.functional.pad(a, (0, self.w_dim - a.shape[1]))

    def synthesis(self, ws: Tensor, noise: Noise = "none") -> Tensor:
        """The image at coordinates `ws` [N, 1, R + M]; without maps, `noise` as the generator takes it."""
        return self.generator.synthesis(self.ws(ws), noise=self.maps(ws) or noise)


@dataclass(frozen=True)
class WhitenedLayers(Wrapping):
    """A generator in coordinates that are N(0, 1) a priori, for each layer on its own: W+ of a prior without encoder.

    Coordinates [N, num_ws, R] are, in every layer, w = mean + basis (deviation * a): `mean` [w_dim], `basis`
    [w_dim, R] orthonormal, `deviation` [R], the Gaussian of mapped z. Style mixing trains layers to differ like that.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor

    @classmethod
    def of_mapped(cls, generator: Generator, samples: int = 10_000, seed: int = 0, c: Tensor | None = None) -> Self:
        """Coordinates of `samples` mapped z, drawn on CPU; `c` [1, c_dim] conditions all of them. Directions in which
        w hardly varies (1e-3 of the largest deviation) are left out."""
        w = mapped(generator, samples, seed, c).double()
        mean = w.mean(0)
        values, vectors = torch.linalg.eigh((w - mean).T @ (w - mean) / (samples - 1))
        values, vectors = values.flip(0), vectors.flip(1)
        varying = values > 1e-6 * values[0]
        return cls(generator, mean.float(), vectors[:, varying].float(), values[varying].sqrt().float())

    @property
    def w_dim(self) -> int:
        return len(self.deviation)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z -> w as the generator maps it, then whitened: [N, R]."""
        return (self.generator.mapping(z, c) - self.mean) @ self.basis / self.deviation

    def synthesis(self, ws: Tensor, noise: Noise = "none") -> Tensor:
        """The image at coordinates `ws` [N, num_ws, R]."""
        return self.generator.synthesis(self.mean + (ws * self.deviation) @ self.basis.T, noise=noise)


def whitened_posterior(
    generator: Whitened, corruption: nn.Module, measured: Tensor, features: PerceptualFeatures | None, search: Search
) -> Posterior:
    """Our default: Gaussian noise of `search.misfit`, and on W+ the Gaussian of encoded training stacks with its
    correlations, within a slice and between neighbours. `measured` [N, ...] is a whole stack, in order.

    The search starts at coordinates 0: the mean w at each slice's place along the head.
    """
    likelihood: tuple[Likelihood, ...] = (Pixel(0.5 / search.misfit**2),)
    if features is not None and search.perceptual_weight:
        likelihood = (*likelihood, Perceptual(features, search.perceptual_weight * measured[0].numel()))
    prior = GaussMarkov(generator.correlation, search.prior_weight)
    return Posterior(generator, corruption, measured, likelihood, (prior,), noise="none", coupled=True)
