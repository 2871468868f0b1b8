"""Random networks and images for perceptual distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brgm_med.weights import CONVOLUTIONS, Net


def random_weights(net: Net, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for index, shape in CONVOLUTIONS[net].items():
        spread = math.sqrt(2 / math.prod(shape[1:]))
        weights[f"features.{index}.weight"] = torch.randn(shape, generator=generator) * spread
        weights[f"features.{index}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return weights


def random_images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
