"""Baselines that search in a generator: PULSE, and Fig. 3 of the paper, from StyleGAN2's projection to its method.

Fig. 3 changes one thing a step, and so does this: every step is the one before it with

    a   StyleGAN2's projection: one w for all layers, noise maps searched too, perceptual distance only
    b   no noise instead
    c   a w for each layer (W+)
    d   + pixelwise L2          e   + the prior on w          f   + colinearity: `brgm_posterior`

and all are searched as StyleGAN2's projection searches: by Adam from the mean w, which wanders at first. What differs
from the publications: the features are those of the setting (the paper: VGG at 256 x 256) at the size of the clean
image; `fit_map`'s course of the step size; fewer steps; of noise maps, those that our generators take as inputs, the
first of each block but for the first and last block, instead of all. A conditional generator is asked at each image's
position, for its statistics of W too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from brgm_med.energies import Uncorrelated
from brgm_med.errors import UsageError
from brgm_med.networks.condition import position_code
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.posterior import GREY_VALUES, Posterior, WStatistics, brgm_posterior
from brgm_med.projection import OneW, wander
from brgm_med.pulse import on_sphere, pulse_posterior
from brgm_med.reconstruction import mapped_statistics
from brgm_med.solvers import fit_map

STEPS, RATE = 100, 0.1
"""The paper: 500. On a validation head f's scores are the same after 200; those without a prior on w would go on
fitting the measurement (d: LPIPS 0.25 after 100, 0.21 after 200)."""
PULSE_STEPS, PULSE_RATE = 100, 0.4  # PULSE's own
NOISE = "none"
"""Of layers whose maps are not searched. The maps of our priors are latent inputs, of mean 0: those stored with the
weights are nobody's. As "const" noise, on a validation head, they raise the LPIPS of step c from 0.21 to 0.50, of f
from 0.33 to 0.50."""
SMALLEST = 64  # pixels a side for the perceptual network
TERMS = {"a": (1, 0), "b": (1, 0), "c": (1, 0), "d": (2, 0), "e": (2, 1), "f": (2, 2)}
"""Numbers of the paper's likelihood terms (perceptual, pixelwise) and priors (on w, colinear) of a step."""


def pulse(setting: Setting) -> Method:
    """PULSE, from a seeded direction of each layer, the same for all images."""

    def method(measured: Tensor, corruption: nn.Module) -> Tensor:
        check(setting, measured)
        generator = setting.bundle.generator
        posterior = replace(pulse_posterior(generator, corruption, measured, conditions(setting)), noise=NOISE)
        random = torch.Generator().manual_seed(setting.seed)
        start = on_sphere(torch.randn(1, generator.num_ws, generator.w_dim, generator=random))
        start = start.expand(len(measured), -1, -1)
        return fit_map(posterior, start, steps=PULSE_STEPS, rate=PULSE_RATE).image

    return method


def ablation(step: str) -> Callable[[Setting], Method]:
    """Step "a" to "f" of Fig. 3. Raises UsageError for another, and for a setting without LPIPS."""
    if step not in TERMS:
        raise UsageError(f"{step}: no step of the paper's Fig. 3; take one of {', '.join(TERMS)}")

    def of(setting: Setting) -> Method:
        features = features_of(setting, step)

        def method(measured: Tensor, corruption: nn.Module) -> Tensor:
            check(setting, measured)
            statistics = mapped_statistics(setting.bundle, setting.index, len(setting.index))
            posterior, start = projection(step, setting, statistics, features, corruption, measured)
            steps = wander(statistics, (start.shape[1], start.shape[2]), STEPS, setting.seed)
            return fit_map(posterior, start, steps=STEPS, rate=RATE, wander=steps).image

        return method

    return of


def projection(
    step: str, setting: Setting, statistics: WStatistics, features: LPIPS, corruption: nn.Module, measured: Tensor
) -> tuple[Posterior, Tensor]:
    """The posterior of a step, and where its search starts: the mean w, and noise maps drawn with the seed."""
    generator = setting.bundle.generator
    paper = brgm_posterior(generator, corruption, measured, statistics, features, GREY_VALUES)
    likelihood, prior = TERMS[step]
    posterior = replace(paper, likelihood=paper.likelihood[:likelihood], prior=paper.prior[:prior], noise=NOISE)
    mean = statistics.mean
    if step not in ("a", "b"):
        return posterior, mean.expand(-1, generator.num_ws, -1)
    if step == "b":
        return replace(posterior, generator=OneW(generator)), mean
    noisy = OneW(generator, generator.noise_shapes)
    random = torch.Generator().manual_seed(setting.seed)
    maps = torch.randn(1, 1, noisy.w_dim - generator.w_dim, generator=random).to(mean)
    start = torch.cat([mean, maps.expand(len(mean), -1, -1)], 2)
    return replace(posterior, generator=noisy, prior=(Uncorrelated(noisy.shapes),)), start


def features_of(setting: Setting, step: str) -> LPIPS:
    """LPIPS of what was measured, at the size of the clean image, or the least multiple of it that the network takes.

    Raises UsageError where there is none.
    """
    if setting.features is None:
        raise UsageError(
            f"step {step} of Fig. 3 compares images in LPIPS features, whose weights are missing; "
            "set BRGM_MED_LPIPS_WEIGHTS to a file of them (README, air-gapped) or leave the step out"
        )
    _, rows, columns = setting.shape
    times = -(-SMALLEST // min(rows, columns))
    return setting.features.at((times * rows, times * columns))


def check(setting: Setting, measured: Tensor) -> None:
    """Raises ValueError unless the setting has a position for every image."""
    if len(setting.index) != len(measured):
        raise ValueError(f"{len(measured)} images were measured, and positions given of {len(setting.index)}")


def conditions(setting: Setting) -> Tensor | None:
    """The condition of each image's position, [N, c_dim]; None for an unconditional generator."""
    bundle = setting.bundle
    if not bundle.generator.c_dim:
        return None
    positions = bundle.positions() if bundle.volumetric else torch.zeros(1)
    return position_code(positions[list(setting.index)], bundle.generator.c_dim)
