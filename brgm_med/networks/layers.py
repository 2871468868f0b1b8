"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), written from the mathematics.

Parameters carry the names under which trained weights of this architecture are published, so that such
weights load without a table of names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.ops import bias_act, fir_filter, upfirdn2d


def unit_second_moment(x: Tensor) -> Tensor:
    """`x` [N, K] scaled so that the mean of its squares over K is 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """y = act(gain W x + b), the equalised learning rate of Karras et al. 2018 (arXiv 1710.10196).

    Weights are stored at variance `1 / rate_multiplier**2` and scaled at run time, [N, in] -> [N, out].
    """

    def __init__(
        self, inputs: int, outputs: int, *, act: str = "linear", rate_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.act = act
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.weight_gain = rate_multiplier / math.sqrt(inputs)
        self.bias_gain = rate_multiplier

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight.to(x.dtype) * self.weight_gain)
        return bias_act(y, self.bias * self.bias_gain, act=self.act)


class Convolution(nn.Module):
    """Equalised convolution with optional downsampling by 2 (low-pass filtered), bias and activation.

    [N, in, H, W] -> [N, out, H / down, W / down]. `kernel` is odd.
    """

    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, act: str = "linear", down: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.act, self.down, self.kernel = act, down, kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("resample_filter", fir_filter())
        self.weight_gain = 1.0 / math.sqrt(inputs * kernel * kernel)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        half = self.kernel // 2
        if self.down == 1:
            x = F.conv2d(x, weight, padding=half)
        elif self.kernel == 1:
            x = F.conv2d(upfirdn2d(x, self.resample_filter, down=2, padding=(1, 1, 1, 1)), weight)
        else:
            pad = half + 1
            x = F.conv2d(upfirdn2d(x, self.resample_filter, padding=(pad,) * 4), weight, stride=2)
        own = math.sqrt(2.0) if self.act == "lrelu" else 1.0
        return bias_act(x, self.bias, act=self.act, gain=own * gain)


def modulated_convolution(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, up: int = 1, filter: Tensor | None = None
) -> Tensor:
    """Convolve every image with weights whose input channels are scaled by that image's style.

    x [N, I, H, W], weight [O, I, k, k], styles [N, I]. Scaling the weights and scaling the input channels are
    the same thing, and demodulation (Eq. 3 of arXiv 1912.04958) is a factor per output channel, so the
    convolution itself shares its weights over the batch:
    y_o = d_o * conv(x * s, W)_o with d_o = (sum_{i,k} (s_i W_oik)^2 + 1e-8)^(-1/2).
    """
    y = x * styles.to(x.dtype)[:, :, None, None]
    half = weight.shape[-1] // 2
    kernel = weight.to(x.dtype)
    if up == 1:
        y = F.conv2d(y, kernel, padding=half)
    else:
        assert filter is not None
        y = F.conv_transpose2d(y, kernel.transpose(0, 1), stride=2)
        pad = 2 - half  # the transposed convolution already reaches `half` beyond the image on either side
        y = upfirdn2d(y, filter, padding=(pad,) * 4, gain=4.0)
    if demodulate:
        power = weight.square().sum((2, 3))
        factor = (styles.square() @ power.T + 1e-8).rsqrt()
        y = y * factor.to(y.dtype)[:, :, None, None]
    return y


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky rectifier: [N, I, H, W], w [N, w_dim] -> [N, O, H', W'].

    `noise` is "const" (the layer's stored image), "random" (drawn anew) or "none".
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, shape: tuple[int, int], *, up: int = 1) -> None:
        super().__init__()
        self.up = up
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(shape))
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, x: Tensor, w: Tensor, noise: str = "const", gain: float = 1.0) -> Tensor:
        y = modulated_convolution(
            x, self.weight, self.affine(w), demodulate=True, up=self.up, filter=self.resample_filter
        )
        if noise == "const":
            y = y + (self.noise_const * self.noise_strength).to(y.dtype)
        elif noise == "random":
            drawn = torch.randn(y.shape[0], 1, *y.shape[2:], dtype=y.dtype, device=y.device)
            y = y + drawn * self.noise_strength.to(y.dtype)
        elif noise != "none":
            raise ValueError(f"noise is const, random or none, not {noise!r}")
        return bias_act(y, self.bias, act="lrelu", gain=math.sqrt(2.0) * gain)


class ToImage(nn.Module):
    """Modulated 1x1 convolution without demodulation, to image channels: [N, I, H, W] -> [N, C, H, W]."""

    def __init__(self, inputs: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.weight_gain = 1.0 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.weight_gain
        return bias_act(modulated_convolution(x, self.weight, styles, demodulate=False), self.bias)
