"""Noise, bias and leaky rectifier after a modulated convolution, in one pass over the image."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops import layout, nvrtc
from brgm_med.ops.library import register


def modulated_epilogue(
    x: Tensor, demodulation: Tensor, bias: Tensor, noise: Tensor | None = None, strength: Tensor | None = None
) -> Tensor:
    """`act(d x + strength * noise + bias) / d` with act(v) = max(v, v / 5), of the shape, dtype and order of `x`.

    x [N, C, H, W], demodulation d [N, C] > 0, bias [C], noise [N or 1, H, W] with its scalar strength. That is
    act(x + (strength noise + bias) / d), since act(d v) = d act(v): the factor d is left to the caller, who has
    others to multiply it by (Karras et al. 2020, arXiv 1912.04958, section 2.2). Derivatives of every order.
    Raises ValueError for noise without a strength.
    """
    offset = (bias / demodulation).to(x.dtype)
    if noise is None:
        result: Tensor = _modulated_epilogue(x, offset, None, None)
    elif strength is None:
        raise ValueError("noise needs a strength")
    else:
        result = _modulated_epilogue(x, offset, noise.to(x.dtype), (strength / demodulation).to(x.dtype))
    return result


def _rows(images: Tensor) -> Tensor:
    """Images [N, C, H, W], of whichever order, as the matrices [N, H W, C]."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def _columns(noise: Tensor | None, like: Tensor) -> Tensor:
    """What offset and strength are multiplied by at every pixel, 1 and the noise: [N, H W, 1 or 2]."""
    n, _, height, width = like.shape
    ones = like.new_ones(1, height * width)
    columns = ones[:, :, None] if noise is None else torch.stack([ones.expand(len(noise), -1), noise.flatten(1)], 2)
    return columns.expand(n, -1, -1)


def _forward(x: Tensor, offset: Tensor, noise: Tensor | None, strength: Tensor | None) -> Tensor:
    """The specification: x + offset + strength * noise, by a matrix product of rank 1 or 2, and the rectifier."""
    coefficients = offset[:, None] if strength is None else torch.stack([offset, strength], 1)  # [N, 1 or 2, C]
    columns = _columns(noise, x)
    with torch.autocast(x.device.type, enabled=False):
        if x.is_contiguous():
            y = torch.baddbmm(x.flatten(2), coefficients.transpose(1, 2), columns.transpose(1, 2)).view(x.shape)
        else:
            y = torch.baddbmm(_rows(x), columns, coefficients)
            y = y.reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return F.leaky_relu_(y, 0.2)


class _Arguments(ctypes.Structure):
    """`Arguments` of modulated_epilogue.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("result", "x", "offset", "noise", "strength")),
        *((name, ctypes.c_longlong) for name in ("count", "channels", "pixels", "noise_step")),
    )


def _forward_cuda(x: Tensor, offset: Tensor, noise: Tensor | None, strength: Tensor | None) -> Tensor:
    last = not x.is_contiguous()  # and so is the result, as the specification's
    order = torch.channels_last if last else torch.contiguous_format
    image, result = layout.dense(x, last), torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=order)
    offset = offset.contiguous()
    noise, strength = (None if t is None else t.contiguous() for t in (noise, strength))
    pixels = x.shape[2] * x.shape[3]
    pack = layout.elements_a_thread(x.numel(), x.element_size(), image.data_ptr(), result.data_ptr())
    arguments = _Arguments(
        *(None if t is None else t.data_ptr() for t in (result, image, offset, noise, strength)),
        x.numel(),
        x.shape[1],
        pixels,
        0 if noise is None or len(noise) == 1 else pixels,
    )
    kernel = nvrtc.Kernel("modulated_epilogue.cu", "forward", layout.macros(x, pack, LAST=str(int(last))))
    if not nvrtc.launch(kernel, arguments, x.numel() // pack, x.device):
        return _forward(x, offset, noise, strength)
    return result


def _save(context: Any, arguments: tuple[Any, ...], y: Tensor) -> None:
    _, _, noise, strength = arguments
    wanted = context.needs_input_grad
    context.save_for_backward(y, noise if wanted[3] else None, strength if wanted[2] else None)
    context.noises = None if noise is None else len(noise)


def _derive(context: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """The rectifier's slope is a function of y alone; the rest is linear, in torch's own differentiable operations."""
    y, noise, strength = context.saved_tensors
    wanted = context.needs_input_grad
    dx = torch.ops.brgm_med.bias_act_backward(dy, y, None, "lrelu", 1.0, None)
    by_offset = by_noise = by_strength = None
    with torch.autocast(dx.device.type, enabled=False):
        if wanted[3]:
            sums = torch.bmm(_columns(noise, dx).transpose(1, 2), _rows(dx))
            by_offset, by_strength = sums.unbind(1)
        elif wanted[1]:
            by_offset = dx.sum((2, 3))
        if wanted[2]:
            by_noise = torch.bmm(_rows(dx), strength[:, :, None]).reshape(len(dx), *dx.shape[2:])
            by_noise = by_noise.sum(0, keepdim=True) if context.noises == 1 else by_noise
    return dx, by_offset if wanted[1] else None, by_noise, by_strength


_modulated_epilogue = register(
    "modulated_epilogue(Tensor x, Tensor offset, Tensor? noise, Tensor? strength) -> Tensor",
    body=_forward,
    cuda=_forward_cuda,
    save=_save,
    backward=_derive,
)
