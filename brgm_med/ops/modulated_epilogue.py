"""Noise, bias and leaky rectifier after a modulated convolution, in one pass over the image."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops import layout, nvrtc
from brgm_med.ops.library import plain, register, without_autocast


def modulated_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    *,
    overwrite: bool = False,
) -> Tensor:
    """`act(d x + strength * noise + bias) / d` with act(v) = max(v, v / 5), of the shape, dtype and order of `x`.

    x [N, C, H, W], demodulation d [N, C] > 0, bias [C], noise [N or 1, H, W] with its scalar strength. That is
    act(x + (strength noise + bias) / d), since act(d v) = d act(v): the factor d is left to the caller, who has
    others to multiply it by (Karras et al. 2020, arXiv 1912.04958, section 2.2). Derivatives of every order.
    With `overwrite` the caller has no more use for x, and its memory may be taken for the result. Raises ValueError for
    noise of another size, or without a strength.
    """
    if noise is not None:
        if strength is None:
            raise ValueError("noise needs a strength")
        bias = torch.stack([bias, strength.expand_as(bias)])
        noise = noise.to(x.dtype)
    coefficients = (bias / demodulation[:, None]).to(x.dtype)  # [N, 1 or 2, C]
    taken = overwrite and plain(x) and layout.is_channels_last(x)
    return (_Overwriting.apply if taken else _modulated_epilogue)(x, coefficients, noise)


def _rows(images: Tensor) -> Tensor:
    """Images [N, C, H, W], of whichever order, as the matrices [N, H W, C]."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def _columns(noise: Tensor | None, like: Tensor) -> Tensor:
    """Factors of the coefficients at every pixel, 1 and the noise: [N, H W, 1 or 2]."""
    n, _, height, width = like.shape
    ones = like.new_ones(1, height * width)
    columns = ones[:, :, None] if noise is None else torch.stack([ones.expand(len(noise), -1), noise.flatten(1)], 2)
    return columns.expand(n, -1, -1)


def _check(x: Tensor, coefficients: Tensor, noise: Tensor | None) -> None:
    n, c, *size = x.shape
    if coefficients.shape != (n, 1 if noise is None else 2, c):
        raise ValueError(f"coefficients of {list(coefficients.shape)} for images of {list(x.shape)}")
    if noise is not None and tuple(noise.shape) not in ((1, *size), (n, *size)):
        raise ValueError(f"noise of {list(noise.shape)} for images of {list(x.shape)}")


def _forward(x: Tensor, coefficients: Tensor, noise: Tensor | None) -> Tensor:
    """The specification: x + coefficients * (1, noise), a matrix product of rank 1 or 2, and the rectifier."""
    _check(x, coefficients, noise)
    columns = _columns(noise, x)
    with without_autocast(x.device):
        if x.is_contiguous():
            y = torch.baddbmm(x.flatten(2), coefficients.transpose(1, 2), columns.transpose(1, 2)).view(x.shape)
        else:
            y = torch.baddbmm(_rows(x), columns, coefficients)
            y = y.reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return F.leaky_relu_(y, 0.2)


class _Arguments(ctypes.Structure):
    """`Arguments` of modulated_epilogue.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("result", "x", "coefficients", "noise")),
        *((name, ctypes.c_longlong) for name in ("count", "channels", "pixels", "noise_step")),
    )


def _forward_cuda(x: Tensor, coefficients: Tensor, noise: Tensor | None) -> Tensor:
    _check(x, coefficients, noise)
    layout.same_kind(x, coefficients, *(() if noise is None else (noise,)))
    last = not x.is_contiguous()  # and so is the result, as the specification's
    order = torch.channels_last if last else torch.contiguous_format
    image, result = layout.dense(x, last), torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=order)
    coefficients, noise = coefficients.contiguous(), None if noise is None else noise.contiguous()
    pixels = x.shape[2] * x.shape[3]
    pack = layout.elements_a_thread(x.numel(), x.element_size(), image.data_ptr(), result.data_ptr())
    arguments = _Arguments(
        *(None if t is None else t.data_ptr() for t in (result, image, coefficients, noise)),
        x.numel(),
        x.shape[1],
        pixels,
        0 if noise is None or len(noise) == 1 else pixels,
    )
    kernel = nvrtc.Kernel("modulated_epilogue.cu", "forward", layout.macros(x, pack, LAST=str(int(last))))
    if not nvrtc.launch(kernel, arguments, x.numel() // pack, x.device):
        return _forward(x, coefficients, noise)
    return result


def _save(context: Any, arguments: tuple[Any, ...], y: Tensor) -> None:
    _, coefficients, noise = arguments
    _, by_coefficients, by_noise = context.needs_input_grad
    context.save_for_backward(y, coefficients if by_noise else None, noise if by_coefficients else None)
    context.noises = None if noise is None else len(noise)  # 0 of an empty batch


def _derive(context: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Derivatives, linear in dy, in torch's own differentiable operations: the slope is a function of the sign of y."""
    y, coefficients, noise = context.saved_tensors
    dx = torch.ops.aten.leaky_relu_backward(dy, y.detach(), 0.2, True)
    by_coefficients = by_noise = None
    with without_autocast(dx.device):
        if context.needs_input_grad[1]:
            if context.noises is not None:
                by_coefficients = torch.bmm(_columns(noise, dx).transpose(1, 2), _rows(dx))
            else:
                by_coefficients = dx.sum((2, 3))[:, None]
        if context.needs_input_grad[2]:
            by_noise = torch.bmm(_rows(dx), coefficients[:, 1, :, None]).reshape(len(dx), *dx.shape[2:])
            by_noise = by_noise.sum(0, keepdim=True) if context.noises == 1 else by_noise
    return dx, by_coefficients, by_noise


_SCHEMA = "modulated_epilogue(Tensor x, Tensor coefficients, Tensor? noise) -> Tensor"
_modulated_epilogue = register(_SCHEMA, _forward, _forward_cuda, _save, _derive)


class _Overwriting(torch.autograd.Function):
    """The operation in place, for images on the processor in channels-last memory: two passes over it, not three."""

    @staticmethod
    def forward(context: Any, x: Tensor, coefficients: Tensor, noise: Tensor | None) -> Tensor:
        with without_autocast(x.device):
            _rows(x).baddbmm_(_columns(noise, x), coefficients)
        y = F.leaky_relu_(x, 0.2)
        context.mark_dirty(y)
        _save(context, (x, coefficients, noise), y)
        return y

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _derive(context, *gradients)
