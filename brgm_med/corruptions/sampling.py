"""Convolution and downsampling on pixels: I^LR = (I^HR * k) downsampled by s (section 2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from brgm_med.corruptions.profile import profile_kernel, profile_matrix

Kernel = Literal["box", "gaussian", "bicubic", "lanczos"]


class Downsample(nn.Module):
    """f_SR of section 2.3, theta = {k, s}: [N, C, H, W] -> [N, C, H / s0, W / s1], with any kernel and factor.

    `factor` s is one integer, or one per axis (rows, columns). Sample i is centred at (i + 1/2) s pixels from the first
    edge: both grids cover the same field of view. `kernel` k: "box", the mean over s0 x s1 pixels; "gaussian", of s
    pixels full width at half maximum; "bicubic" (a = -1/2) or "lanczos" (three lobes), stretched by s against aliasing.
    These sum to 1, so that constants stay, and leave an axis of factor 1 as it is. Or a tensor, used as it is: [K]
    along both axes, or [K0, K1]; K - s must be even, to be centred on a sample (a zero appended shifts it).
    Beyond the image its edge pixel is repeated. Raises ValueError where the factor does not divide the image.
    """

    def __init__(self, factor: int | tuple[int, int], kernel: Kernel | Tensor = "box") -> None:
        super().__init__()
        self.factor = factor if isinstance(factor, tuple) else (factor, factor)
        if len(self.factor) != 2 or not all(isinstance(s, int) and s > 0 for s in self.factor):
            raise ValueError(f"Downsample: the factor must be one or two positive integers, not {factor}")
        self.filter: nn.Module
        if isinstance(kernel, Tensor):
            self.filter = _filter(kernel, self.factor)
        elif kernel == "box":
            self.filter = nn.AvgPool2d(self.factor)
        else:
            self.filter = _filter([_antialiasing(kernel, s) for s in self.factor], self.factor)

    def forward(self, x: Tensor) -> Tensor:
        if any(n % s for n, s in zip(x.shape[-2:], self.factor, strict=True)):
            raise ValueError(f"Downsample: {self.factor} does not divide an image of {tuple(x.shape[-2:])}")
        return self.filter(x)


class Blur(nn.Module):
    """Convolution, the I * k of section 2.3 alone: [N, C, H, W] -> [N, C, H, W].

    Give `sigma`, a Gaussian's standard deviation in pixels, one or one per axis (rows, columns; 0 leaves an axis as it
    is): the Gaussian is integrated over each pixel, cut at 3.5 sigma, and sums to 1. Or give a `kernel` of odd lengths,
    used as it is: [K] along both axes, or [K0, K1]. Separable kernels are two 1-D passes. Beyond the image its edge
    pixel is repeated.
    """

    def __init__(self, sigma: float | tuple[float, float] | None = None, *, kernel: Tensor | None = None) -> None:
        super().__init__()
        if kernel is not None and sigma is None:
            self.filter = _filter(kernel, (1, 1))
            return
        sigmas = (sigma, sigma) if isinstance(sigma, int | float) else tuple(sigma or ())
        if kernel is not None or len(sigmas) != 2 or not all(0 <= s < math.inf for s in sigmas):
            raise ValueError(f"Blur: either a kernel or a sigma (one or two numbers >= 0) is needed, not {sigma}")
        width = math.sqrt(8 * math.log(2))  # full width at half maximum, in standard deviations
        kernels = [profile_kernel(1.0, width * s, "gaussian") if s else torch.ones(1) for s in sigmas]
        self.filter = _filter(kernels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(x)


class AxisBlur(nn.Module):
    """Convolve a stack [N, 1, H, W] with 1-D kernels along N, H, W: the profile on a registered grid.

    `kernels`: for each of the axes N, H, W an odd-length kernel (see `profile_kernel`) or None. The edge
    voxel is repeated outside the stack. A kernel along N makes neighbouring slices explain one measurement
    together.
    """

    def __init__(self, kernels: Sequence[Tensor | None]) -> None:
        super().__init__()
        if len(kernels) != 3 or any(k is not None and (k.ndim != 1 or len(k) % 2 == 0) for k in kernels):
            raise ValueError("AxisBlur: three 1-D kernels of odd length (or None) are needed")
        for axis, kernel in enumerate(kernels):
            self.register_buffer(f"kernel{axis}", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for axis, dim in enumerate((0, 2, 3)):
            kernel: Tensor | None = getattr(self, f"kernel{axis}")
            if kernel is None or len(kernel) == 1:
                continue
            n, r = x.shape[dim], len(kernel) // 2
            padded = _edges_repeated(x, dim, r)
            weights = kernel.to(x).flip(0)
            x = sum((weights[i] * padded.narrow(dim, i, n) for i in range(2 * r + 1)), torch.zeros_like(x))
        return x


class _Convolution(nn.Module):
    """[..., H, W] convolved with `kernel` [K0, K1], every s-th sample kept; centred on s x s pixels, edges repeated."""

    kernel: Tensor

    def __init__(self, kernel: Tensor, factor: tuple[int, int]) -> None:
        super().__init__()
        self.pad = [(k - s) // 2 for k, s in zip(kernel.shape, factor, strict=True)]
        if any((k - s) % 2 for k, s in zip(kernel.shape, factor, strict=True)):
            raise ValueError(f"a kernel of {tuple(kernel.shape)} pixels has no centre on samples of {factor} pixels")
        self.factor = factor
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for dim, pad in zip((-2, -1), self.pad, strict=True):
            if pad:
                x = _edges_repeated(x, dim, pad)
        weight = self.kernel.to(x).flip(0, 1)[None, None]
        y = nn.functional.conv2d(x.reshape(-1, 1, *x.shape[-2:]), weight, stride=self.factor)
        return y.reshape(*x.shape[:-2], *y.shape[-2:])


def _filter(kernel: Tensor | Sequence[Tensor], factor: tuple[int, int]) -> nn.Module:
    """Convolution with a 2-D kernel, or with a 1-D kernel along each axis (the same one where only one is given)."""
    if isinstance(kernel, Tensor):
        if kernel.ndim not in (1, 2) or kernel.numel() == 0 or not bool(kernel.isfinite().all()):
            raise ValueError(f"a kernel must be finite, [K] or [K0, K1], not {tuple(kernel.shape)}")
        if kernel.ndim == 2:
            return _Convolution(kernel, factor)
        kernel = (kernel, kernel)
    rows, columns = kernel
    return nn.Sequential(_Convolution(rows[:, None], (factor[0], 1)), _Convolution(columns[None], (1, factor[1])))


def _antialiasing(kernel: Kernel, s: int) -> Tensor:
    """The 1-D kernel of that name for factor s, [s + 2 p] float64, summing to 1."""
    if kernel == "gaussian":
        weights = profile_matrix(3 * s, 1.0, 1, 3.0 * s, s, "gaussian")[0]
    elif kernel in ("bicubic", "lanczos"):
        p = math.ceil((1.5 if kernel == "bicubic" else 2.5) * s)
        u = (torch.arange(s + 2 * p, dtype=torch.float64) + 0.5 - s / 2 - p).abs() / s
        weights = keys_cubic(u) if kernel == "bicubic" else lanczos(u)
    else:
        raise ValueError(f"Downsample: unknown kernel {kernel!r}: box, gaussian, bicubic, lanczos or a tensor")
    return weights / weights.sum() if s > 1 else torch.ones(1, dtype=torch.float64)


def keys_cubic(distance: Tensor) -> Tensor:
    """The kernel of cubic interpolation (Keys 1981, a = -1/2) at distances in samples; 0 from 2 on."""
    t = distance.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def lanczos(distance: Tensor) -> Tensor:
    """Lanczos' kernel of three lobes at distances in samples; 0 from 3 on."""
    t = distance.abs()
    return (torch.sinc(t) * torch.sinc(t / 3)).where(t < 3, 0.0)


def _edges_repeated(x: Tensor, dim: int, pad: int) -> Tensor:
    """`pad` more samples at both ends of `dim`, equal to the last ones (or fewer samples, for pad < 0)."""
    n = x.shape[dim]
    return x.index_select(dim, torch.arange(-pad, n + pad, device=x.device).clamp(0, n - 1))
