"""StyleGAN2's own inversion, made the paper's method step by step (Fig. 3, a to f), and PULSE."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brgm_med.energies import Likelihood, Prior
from brgm_med.errors import UsageError
from brgm_med.networks.condition import position_code
from brgm_med.networks.noise import Noise, pixels, split_maps
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.posterior import Posterior, WStatistics, brgm_posterior, w_statistics
from brgm_med.pulse import RATE as PULSE_RATE
from brgm_med.pulse import STEPS as PULSE_STEPS
from brgm_med.pulse import Spherical, pulse_posterior
from brgm_med.solvers import fit_map

STEPS, RATE = 60, 0.1
"""Of Adam, with a rate that falls to 0. The paper takes 500; on a choosing head more hardly changes the result."""

SIZE = (96, 96)
"""The size at which measurements are compared perceptually; the paper: 256 x 256."""

REGULARISATION = 1e5
SMALLEST = 8
"""Noise maps are kept white: weight of their neighbours' correlations, at every scale down to so many pixels."""


@dataclass(frozen=True)
class OneW:
    """A generator of the same w in every layer and, with `maps`, of noise maps: coordinates [N, 1, w_dim + pixels].

    Maps are shifted and scaled to mean 0 and variance 1.
    """

    generator: StyleGAN2
    maps: bool

    @property
    def z_dim(self) -> int:
        return self.generator.z_dim

    @property
    def num_ws(self) -> int:
        return 1

    @property
    def w_dim(self) -> int:
        return self.generator.w_dim + (pixels(self.generator.noise_shapes) if self.maps else 0)

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.generator.image_shape

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        w = self.generator.mapping(z, c)
        return torch.nn.functional.pad(w, (0, self.w_dim - w.shape[1]))

    def noise_maps(self, ws: Tensor) -> dict[str, Tensor]:
        """The maps [N, 1, h, w] at coordinates `ws`, each of mean 0 and variance 1."""
        found = split_maps(ws[:, 0, self.generator.w_dim :], self.generator.noise_shapes if self.maps else {})
        return {k: (m - m.mean((2, 3), keepdim=True)) / m.std((2, 3), keepdim=True) for k, m in found.items()}

    def synthesis(self, ws: Tensor, noise: Noise = "none") -> Tensor:
        w = self.generator.broadcast(ws[:, 0, : self.generator.w_dim])
        return self.generator.synthesis(w, noise=self.noise_maps(ws) or noise)


@dataclass(frozen=True)
class WhiteNoise:
    """`weight` times the squared correlation of each noise map with itself, shifted by a pixel along rows and along
    columns, at every scale down to `SMALLEST` pixels (Karras et al. 2020, appendix D)."""

    generator: OneW
    weight: float = REGULARISATION

    def __call__(self, ws: Tensor) -> Tensor:
        total = ws.new_zeros(len(ws))
        for m in self.generator.noise_maps(ws).values():
            while min(m.shape[2:]) >= SMALLEST:
                for axis in (2, 3):
                    total = total + (m * m.roll(1, axis)).mean((1, 2, 3)).square()
                m = torch.nn.functional.avg_pool2d(m, 2) * 2  # keeps the variance of white noise
        return self.weight * total


def ablation(step: str) -> Callable[[Setting], Method]:
    """The method after step "a" to "f" of Fig. 3: (a) StyleGAN2's inversion, one w for all layers and noise maps, by
    perceptual distance alone; (b) without noise maps; (c) over W+; (d) with L_pixel; (e) with L_w; (f) with L_colin,
    which is the paper's posterior, `brgm_posterior`.

    Without the random walk of w by which StyleGAN2's inversion explores. The search is `fit_map`. Raises UsageError
    where there are no weights for LPIPS.
    """
    return lambda setting: _projection(setting, step)


def _projection(setting: Setting, step: str) -> Method:
    features = _features(setting, f"projection-{step}")
    generator = setting.bundle.generator
    statistics = _statistics(setting)

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        start = statistics.mean.expand(len(y), -1, -1)
        posterior = posterior_of(step, generator, corruption, y, statistics, features)
        if step in "ab":
            if step == "a":
                drawn = torch.Generator().manual_seed(setting.seed)
                maps = torch.randn(len(y), 1, pixels(generator.noise_shapes), generator=drawn)
                start = torch.cat([start, maps], 2)
        else:
            start = start.expand(-1, generator.num_ws, -1)
        return fit_map(posterior, start.contiguous(), steps=STEPS, rate=RATE).image

    return reconstruct


def posterior_of(
    step: str, generator: StyleGAN2, corruption: nn.Module, y: Tensor, statistics: WStatistics, features: LPIPS
) -> Posterior:
    """The posterior of a step; noise maps that are not searched add nothing."""
    whole = brgm_posterior(generator, corruption, y, statistics, features)
    perceptual, pixel = whole.likelihood
    gaussian, colinear = whole.prior
    likelihood: tuple[Likelihood, ...] = (perceptual,) if step in "abc" else (perceptual, pixel)
    prior: tuple[Prior, ...] = {"e": (gaussian,), "f": (gaussian, colinear)}.get(step, ())
    if step in "ab":
        one = OneW(generator, step == "a")
        return Posterior(one, corruption, y, likelihood, (WhiteNoise(one),) if step == "a" else (), noise="none")
    return Posterior(generator, corruption, y, likelihood, prior, noise="none")


def pulse(setting: Setting) -> Method:
    """PULSE's energies and sphere, with our search, from seeded directions."""
    spherical = Spherical.of_mapped(setting.bundle.generator, c=_codes(setting))

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        drawn = torch.Generator().manual_seed(setting.seed)
        start = torch.randn(len(y), spherical.num_ws, spherical.w_dim, generator=drawn)
        posterior = pulse_posterior(spherical, corruption, y)
        return fit_map(posterior, start, steps=PULSE_STEPS, rate=PULSE_RATE).image

    return reconstruct


def _codes(setting: Setting) -> Tensor | None:
    """The condition of each image: where it lies; None for a generator without."""
    bundle = setting.bundle
    if not bundle.generator.c_dim:
        return None
    return position_code(bundle.positions()[list(setting.index)], bundle.generator.c_dim)


def _statistics(setting: Setting) -> WStatistics:
    """Of mapped z, as the paper takes them: mean [N or 1, 1, w_dim], deviation [N or 1, 1, 1], by image."""
    codes = _codes(setting)
    found = [w_statistics(setting.bundle.generator, c=c) for c in ([None] if codes is None else codes.split(1))]
    mean = torch.stack([one.mean for one in found])[:, None]
    return WStatistics(mean, torch.stack([one.deviation for one in found]).reshape(-1, 1, 1))


def _features(setting: Setting, method: str) -> LPIPS:
    if setting.features is None:
        raise UsageError(f"--methods {method}: needs weights for LPIPS (brgm-med doctor tells how to get them)")
    features = copy.copy(setting.features)
    features.size = SIZE
    return features
