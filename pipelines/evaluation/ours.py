"""Our own method in its parts: the generator's MAP, the blend with the linear prior, and what gives back y."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Mask
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.pipelines.reconstruct.picture import STEPS, map_picture
from brgm_med.reconstruction import TRUST, consistent, linear_mean, map_slices, unexplained


def generator_map(setting: Setting) -> Method:
    """G at the MAP of its latent inputs, as `sr` seeks it: of all slices of a head at once, or picture by picture."""
    bundle, index = setting.bundle, setting.index

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        if bundle.volumetric:
            return map_slices(bundle, index, corruption, y, noise=unexplained(corruption, setting.noise))
        device = torch.device("cpu")
        each = (map_picture(bundle, corruption, part, steps=STEPS, device=device) for part in y.split(1))
        return torch.cat(list(each))

    return reconstruct


def blended(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """`image` and the posterior mean of the prior's linear-Gaussian companion, blended as `reconstruct_slices` does; as
    it is where the prior has none."""
    if not setting.bundle.volumetric:
        return image
    mean = linear_mean(setting.bundle, setting.index, corruption, y, unexplained(corruption, setting.noise))
    return TRUST * image + (1 - TRUST) * mean.to(image)


def made_consistent(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """The most probable correction of `image` that gives back y: of averages the weighted projection, up to the noise
    that is stated; of a hole the known pixels, met without a seam."""
    return consistent(image, corruption, y, setting.noise)


def orthogonal(setting: Setting, image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    """The nearest image that gives back y, whatever its noise."""
    if isinstance(corruption, Mask):
        return torch.where(corruption.mask, y, image)
    return project(image, corruption, y)
