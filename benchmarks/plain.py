"""The baseline of speed.py: StyleGAN2's synthesis as published PyTorch implementations compute it.

Every image has its own copy of the weights, scaled by its style and its demodulation, and one grouped convolution
convolves them all; channels come first, in float32; resampling spreads the samples over zeros and convolves. Written
for this purpose from the paper's equations 1 to 3 (arXiv 1912.04958); it takes its weights from our network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.networks.layers import SynthesisLayer, ToImage
from brgm_med.networks.noise import Noise
from brgm_med.networks.stylegan2 import StyleGAN2, SynthesisBlock


def resampled(x: Tensor, taps: Tensor, up: int, padding: tuple[int, int, int, int]) -> Tensor:
    """Zeros between samples, padding, and a convolution with symmetric `taps` [k, k], one group a channel."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    return F.conv2d(F.pad(x, padding), taps.expand(c, 1, *taps.shape), groups=c)


def modulated(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, up: int, taps: Tensor) -> Tensor:
    """x [N, I, H, W], weight [O, I, k, k], styles [N, I]: eq. 1 to 3 on the weights, then a grouped convolution."""
    n, i = styles.shape
    own = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    groups = x.reshape(1, n * i, *x.shape[2:])
    if up == 1:
        y = F.conv2d(groups, own.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
        return y.reshape(n, -1, *x.shape[2:])
    y = F.conv_transpose2d(groups, own.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    y = y.reshape(n, -1, *y.shape[2:])
    return resampled(y, taps * 4, 1, (1, 1, 1, 1))


def layer(module: SynthesisLayer, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
    """Convolution, noise [N, 1, H, W], bias, leaky rectifier of gain root 2."""
    y = modulated(x, module.weight, module.affine(w), True, module.up, module.resample_filter)
    if noise is not None:
        y = y + noise * module.noise_strength
    return F.leaky_relu(y + module.bias[None, :, None, None], 0.2) * math.sqrt(2.0)


def to_image(module: ToImage, x: Tensor, w: Tensor) -> Tensor:
    y = modulated(x, module.weight, module.affine(w) * module.weight_gain, False, 1, torch.empty(0))
    return y + module.bias[None, :, None, None]


def synthesis(generator: StyleGAN2, ws: Tensor, noise: Noise = "const") -> Tensor:
    """ws [N, num_ws, w_dim] -> image [N, C, H, W]: what `generator.synthesis(ws, noise)` is, for "skip" architectures
    and noise that is "const" or given."""
    x = image = torch.empty(0)
    start = 0
    for name in generator.synthesis.names:
        block: SynthesisBlock = getattr(generator.synthesis, name)
        const = noise == "const"
        second = block.conv1.noise_const[None, None] if const else None
        if block.first:
            x = layer(block.conv1, block.const.expand(len(ws), -1, -1, -1), ws[:, start], second)
        else:
            first = block.conv0.noise_const[None, None] if isinstance(noise, str) else noise.get(name)
            x = layer(block.conv0, x, ws[:, start], first)
            x = layer(block.conv1, x, ws[:, start + 1], second)
        start += block.convolutions
        y = to_image(block.torgb, x, ws[:, start])
        if not block.first:
            y = y + resampled(image, block.resample_filter * 4, 2, (2, 1, 2, 1))
        image = y
    return image
