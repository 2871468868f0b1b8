"""Upsample, filter, downsample: the resampling operation of alias-free networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from brgm_med.ops import upfirdn2d_cuda
from brgm_med.ops.library import plain, register, without_autocast
from brgm_med.ops.resample import Pair, Sides, layout, resample


def fir_filter(taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0)) -> Tensor:
    """The separable 2-D filter [n, n] that is the outer product of `taps` with itself, with sum 1, float32."""
    one = torch.tensor(taps, dtype=torch.float32)
    two = torch.outer(one, one)
    return two / two.sum()


def upfirdn2d(
    x: Tensor,
    filter: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, convolve and keep every `down`-th sample of images `x` [N, C, H, W].

    1. `up - 1` zeros are put behind every sample along both axes. 2. `padding` = (left, right, top, bottom)
    zeros are added, or, where negative, samples are cropped. 3. The result is convolved with `filter`
    ([fh, fw], or 1-D for a separable one; correlated when `flip_filter`), keeping the valid part, times
    `gain`. 4. Every `down`-th sample is kept. The result has the dtype of `x` and its order in memory; the filter
    gets no gradient. Derivatives of every order exist. Raises ValueError where the filter is larger than what it is
    laid on.
    """
    left, right, top, bottom = padding
    if filter.ndim == 1 and len(filter) > 6 and not x.is_cpu:  # there the operation itself finds what is separable
        y = _apply(x, filter[None], (up, 1), (down, 1), (left, right, 0, 0), flip_filter, gain)
        return _apply(y, filter[:, None], (1, up), (1, down), (0, 0, top, bottom), flip_filter, 1.0)
    if filter.ndim == 1:
        filter = torch.outer(filter, filter)
    return _apply(x, filter, (up, up), (down, down), (left, right, top, bottom), flip_filter, gain)


def result_shape(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides) -> tuple[int, int]:
    """(width, height) of the result. Raises ValueError where it would have none."""
    fh, fw = filter.shape
    width = (x.shape[3] * up[0] + padding[0] + padding[1] - fw) // down[0] + 1
    height = (x.shape[2] * up[1] + padding[2] + padding[3] - fh) // down[1] + 1
    if width < 1 or height < 1:
        raise ValueError(f"a filter of {fh} x {fw} taps is larger than the padded image of shape {tuple(x.shape[2:])}")
    return width, height


def adjoint_padding(x: Sequence[int], y: Sequence[int], filter: Tensor, up: Pair, down: Pair, padding: Sides) -> Sides:
    """The padding with which the adjoint turns `y`'s shape into `x`'s.

    Along one axis y_j = sum_m x_m t(m up + p - j down), so the adjoint is x'_m = sum_j y'_j t'(j down + p' - m up)
    with t'(a) = t(n - 1 - a) and p' = n - 1 - p: a resampling too, `up` and `down` exchanged and the taps turned
    round. So derivatives of every order are resamplings; those that the framework derives from a convolution with a
    stride or with few channels are many times slower.
    """
    fh, fw = filter.shape
    left, top = fw - 1 - padding[0], fh - 1 - padding[2]
    right = (x[3] - 1) * up[0] + fw - left - y[3] * down[0]
    bottom = (x[2] - 1) * up[1] + fh - top - y[2] * down[1]
    return left, right, top, bottom


def _compute(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float) -> Tensor:
    """Resampling without kernels."""
    up, down, padding = tuple(up), tuple(down), tuple(padding)  # type: ignore[assignment]
    results = result_shape(x, filter, up, down, padding)
    with without_autocast(x.device):
        return resample(x, filter, up, down, padding, flip, gain, results)


def _compute_cuda(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float) -> Tensor:
    y = upfirdn2d_cuda.launched(x, filter, up, down, padding, flip, gain, result_shape(x, filter, up, down, padding))
    return _compute(x, filter, up, down, padding, flip, gain) if y is None else y


def _fake(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float) -> Tensor:
    width, height = result_shape(x, filter, up, down, padding)
    shape = (*x.shape[:2], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x))


def _save(context: Any, arguments: tuple[Any, ...], y: Tensor) -> None:
    x, filter, *context.constants = arguments
    context.save_for_backward(filter)
    context.shapes = x.shape, y.shape


def _derive(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (filter,) = context.saved_tensors
    up, down, padding, flip, gain = context.constants
    x, y = context.shapes
    padding = adjoint_padding(x, y, filter, up, down, padding)
    return _apply(gradient, filter, down, up, padding, not flip, gain), None, None, None, None, None, None


_ARGUMENTS = "Tensor x, Tensor filter, SymInt[2] up, SymInt[2] down, SymInt[4] padding, bool flip, float gain"
_upfirdn2d = register(f"upfirdn2d({_ARGUMENTS}) -> Tensor", _compute, _compute_cuda, _save, _derive, _fake)


class _Direct(torch.autograd.Function):
    """The registered operation for plain tensors on the processor, without the dispatcher: it costs two times what a
    small image does."""

    @staticmethod
    def forward(context: Any, *arguments: Any) -> Tensor:
        y = _compute(*arguments)
        _save(context, arguments, y)
        return y

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _derive(context, *gradients)


def _apply(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float) -> Tensor:
    return (_Direct.apply if plain(x) else _upfirdn2d)(x, filter.detach(), up, down, padding, flip, gain)
