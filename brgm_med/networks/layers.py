"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), written from the mathematics.

Parameters carry the names under which trained weights of this architecture are published, so that such
weights load without a table of names.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.ops import bias_act, fir_filter, modulated_epilogue, upfirdn2d


def unit_second_moment(x: Tensor) -> Tensor:
    """`x` [N, K] scaled so that the mean of its squares over K is 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def channels_last(x: Tensor) -> Tensor:
    """`x` [N, C, H, W] in channels-last memory, with strides that say so for a single channel too.

    For one channel both orders are the same memory, and a convolution that is shown the strides of the other one
    answers in the slower order.
    """
    if x.shape[1] == 1:
        return x[:, 0, :, :, None].permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


class FullyConnected(nn.Module):
    """y = act(gain W x + b), the equalised learning rate of Karras et al. 2018 (arXiv 1710.10196).

    Weights are stored at variance `1 / rate_multiplier**2` and scaled at run time, [N, in] -> [N, out]. Computed and
    returned in the weights' precision, under autocast too: next to the convolutions it costs nothing.
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
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(x.to(self.weight.dtype) * self.weight_gain, self.weight, self.bias * self.bias_gain)
            return bias_act(y, act=self.act)


def rectify_(x: Tensor) -> Tensor:
    """The leaky rectifier act(x) = max(x, x / 5), in place. No gain: it belongs to the factors before it."""
    return F.leaky_relu_(x, 0.2)


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
        gain *= math.sqrt(2.0) if self.act == "lrelu" else 1.0  # act(gain x) = gain act(x): scale the small tensors
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        half = self.kernel // 2
        if self.down == 1:
            y = F.conv2d(x, weight, bias, padding=half)
        elif self.kernel == 1:
            y = F.conv2d(upfirdn2d(x, self.resample_filter, down=2, padding=(1, 1, 1, 1)), weight, bias)
        else:
            pad = half + 1
            y = F.conv2d(upfirdn2d(x, self.resample_filter, padding=(pad,) * 4), weight, bias, stride=2)
        return rectify_(y) if self.act == "lrelu" else y


class Scaled(NamedTuple):
    """Activations `values` * `factor`, whose product the next layer forms together with its own factors."""

    values: Tensor  # [N, C, H, W]
    factor: Tensor  # [N, C], positive

    def product(self) -> Tensor:
        """The activations themselves, [N, C, H, W]."""
        return self.values * self.factor.to(self.values.dtype)[:, :, None, None]


class Kernel(NamedTuple):
    """A layer's weights as its convolution takes them."""

    taps: Tensor  # [O, I, k, k], or transposed [I, O, k, k] when upsampling; in channels-last memory
    power: Tensor  # [I, O], sums over k x k of the squared weights

    @classmethod
    def of(cls, weight: Tensor, up: int, dtype: torch.dtype) -> Kernel:
        """Kernel of weights [O, I, k, k], differentiable in them."""
        taps = weight if up == 1 else weight.transpose(0, 1)
        return cls(taps.to(dtype).contiguous(memory_format=torch.channels_last), weight.square().sum((2, 3)).T)


def modulated_convolution(
    x: Tensor, kernel: Kernel, styles: Tensor, *, up: int = 1, filter: Tensor | None = None
) -> Tensor:
    """Convolve every image with weights whose input channels are scaled by that image's style.

    x [N, I, H, W], styles [N, I] -> [N, O, H up, W up]. Scaling the weights and scaling the input channels are the
    same thing, so the convolution itself shares its weights over the batch.
    """
    y = x * styles.to(x.dtype)[:, :, None, None]
    half = kernel.taps.shape[-1] // 2
    if up == 1:
        return F.conv2d(y, kernel.taps, padding=half)
    assert filter is not None
    y = F.conv_transpose2d(y, kernel.taps, stride=2)
    pad = 2 - half  # the transposed convolution already reaches `half` beyond the image on either side
    return upfirdn2d(y, filter, padding=(pad,) * 4, gain=4.0)


def demodulation(power: Tensor, styles: Tensor) -> Tensor:
    """d_o = (sum_{i,k} (s_i W_oik)^2 + 1e-8)^(-1/2), `power` [I, O] = sum_k W_oik^2, styles [N, I] -> [N, O]. Eq. 3."""
    return (styles.square() @ power + 1e-8).rsqrt()


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky rectifier: [N, I, H, W], w [N, w_dim] -> [N, O, H', W'].

    With c the convolution, d the demodulation, n the noise and b the bias the result is
    gain act(d c + n + b) = (gain d) act(c + (n + b) / d), since d > 0 and act(d x) = d act(x): the factor gain d
    stays apart and costs no pass over the image. `noise` is "const" (the layer's stored image), "random" (drawn
    anew) or "none".
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
        self._cache: tuple[tuple[object, ...], Kernel] | None = None

    def kernel(self, dtype: torch.dtype) -> Kernel:
        """The weights as the convolution takes them: made once for frozen weights, and again when they have changed."""
        weight = self.weight
        if weight.requires_grad or torch.compiler.is_compiling():
            return Kernel.of(weight, self.up, dtype)
        state = (weight.data_ptr(), weight._version, weight.device, weight.dtype, dtype)
        if self._cache is None or self._cache[0] != state:
            self._cache = state, Kernel.of(weight, self.up, dtype)
        return self._cache[1]

    def _noise(self, noise: str | Tensor, y: Tensor) -> Tensor | None:
        """The noise [N or 1, H, W] for an image y [N, C, H, W]."""
        if isinstance(noise, Tensor):
            return noise.flatten(0, 1)
        if noise == "const":
            return self.noise_const[None]
        if noise == "random":
            return torch.randn(len(y), *y.shape[2:], device=y.device)
        if noise == "none":
            return None
        raise ValueError(f"noise is const, random or none, not {noise!r}")

    def forward(self, x: Scaled, w: Tensor, noise: str | Tensor = "const", gain: float = 1.0) -> Scaled:
        styles = self.affine(w)
        kernel = self.kernel(x.values.dtype)
        with torch.autocast(w.device.type, enabled=False):
            factor = demodulation(kernel.power, styles)
        y = modulated_convolution(x.values, kernel, styles * x.factor, up=self.up, filter=self.resample_filter)
        drawn = self._noise(noise, y)
        y = modulated_epilogue(
            y, factor, self.bias, drawn, None if drawn is None else self.noise_strength, overwrite=True
        )
        return Scaled(y, factor * (math.sqrt(2.0) * gain))


class ToImage(nn.Module):
    """Modulated 1x1 convolution without demodulation, to image channels: [N, I, H, W] -> [N, C, H, W]."""

    def __init__(self, inputs: int, image_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.weight_gain = 1.0 / math.sqrt(inputs)

    def forward(self, x: Scaled, w: Tensor) -> Tensor:
        values = x.values
        styles = self.affine(w) * x.factor * self.weight_gain
        # One kernel [I, C] an image, which is small, and a matrix product over pixels, which keeps channels last.
        kernels = (self.weight[None, :, :, 0, 0] * styles[:, None]).to(values.dtype).transpose(1, 2)
        y = torch.bmm(values.permute(0, 2, 3, 1).flatten(1, 2), kernels)
        y = y.transpose(1, 2).reshape(len(values), -1, *values.shape[2:])
        return bias_act(y, self.bias)
