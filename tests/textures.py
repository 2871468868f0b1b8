"""A random image that looks alike along all axes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def texture(size: int) -> Tensor:
    """A positive isotropic random image, its power falling as the cube of the frequency, [size] * 3, mean about 1."""
    frequencies = torch.fft.fftfreq(size)
    x, y, z = torch.meshgrid(frequencies, frequencies, frequencies, indexing="ij")
    falling = (x.square() + y.square() + z.square() + size**-2) ** -0.75
    noise = torch.randn(size, size, size, generator=torch.Generator().manual_seed(0))
    image = torch.fft.ifftn(torch.fft.fftn(noise) * falling).real
    return 1 + image / image.abs().max()
