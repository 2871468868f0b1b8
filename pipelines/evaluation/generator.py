"""The generator's MAP, and what follows any method: the blend with the linear-Gaussian mean, and projections onto y."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Mask
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.reconstruction import consistent, map_images, slices_search
from brgm_med.search import PICTURE

GENERATOR = 0.7
"""Part of the generator in the blend, the rest being the linear-Gaussian mean (validation heads)."""


def generator_map(setting: Setting) -> Method:
    """G at the MAP of its latent inputs: of every slice of a head on its own, or of every picture."""
    prior, index, noise = setting.bundle, setting.index, setting.noise

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        if prior.volumetric:
            return map_images(prior, index, corruption, y, search=slices_search(corruption), deviation=noise)
        return torch.cat([map_images(prior, None, corruption, part, search=PICTURE) for part in y.split(1)])

    return reconstruct


def blended(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """0.7 parts of `image` and 0.3 of the posterior mean of the prior's linear-Gaussian companion; the image, where the
    prior has none. The two err differently: in squared error the blend is better than either, and it is less sharp."""
    if not setting.bundle.volumetric:
        return image
    linear = setting.bundle.linear.at(list(setting.index))
    deviation = math.hypot(slices_search(corruption).misfit, setting.noise)
    if isinstance(corruption, Mask):
        mean = linear.fill(corruption.mask, y, deviation)
    else:
        mean = linear.estimate(corruption, y, deviation)
    return GENERATOR * image + (1 - GENERATOR) * mean.to(image)


def made_consistent(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """The most probable correction of `image` that gives back y: of averages the weighted projection, up to the noise
    that is stated; of a hole the known pixels, met without a seam."""
    return consistent(image, corruption, y, setting.noise)


def orthogonal(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """The nearest image that gives back y, whatever its noise."""
    if isinstance(corruption, Mask):
        return torch.where(corruption.mask, y, image)
    return project(image, corruption, y)
