"""Upsample, filter, downsample: the resampling operation of alias-free networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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
    `gain`. 4. Every `down`-th sample is kept. The result has the dtype of `x`; the filter gets no gradient.
    """
    taps = filter.detach().to(x.dtype)
    if taps.ndim == 1:
        taps = torch.outer(taps, taps)
    if not flip_filter:
        taps = taps.flip((0, 1))
    result: Tensor = _Resample.apply(x, taps * gain, up, down, tuple(padding))
    return result


def _resample(x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int, int, int]) -> Tensor:
    """The four steps of `upfirdn2d`, correlating with `taps` [fh, fw]: the specification."""
    n, c, h, w = x.shape
    left, right, top, bottom = padding
    if up > 1:
        # Zeros and padding in one piece of memory; what is cropped instead is cropped after.
        edges = [max(p, 0) for p in padding]
        shape = (n, c, h * up + edges[2] + edges[3], w * up + edges[0] + edges[1])
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        spread = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).zero_()
        spread[:, :, edges[2] : edges[2] + h * up : up, edges[0] : edges[0] + w * up : up] = x
        x, (left, right, top, bottom) = spread, (min(p, 0) for p in padding)
    if left == right >= 0 and top == bottom >= 0:  # the convolution pads without a copy
        pad = (top, left)
    else:
        x, pad = F.pad(x, (left, right, top, bottom)), (0, 0)
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, taps.expand(c, 1, -1, -1), stride=down, padding=pad, groups=c)


class _Resample(torch.autograd.Function):
    """`_resample`, whose adjoint is a resampling too: `up` and `down` exchanged and the taps turned round.

    Along one axis y_j = sum_m x_m t(m up + p - j down), so the adjoint is x'_m = sum_j y'_j t'(j down + p' - m up)
    with t'(a) = t(n - 1 - a) and p' = n - 1 - p. So derivatives of every order are resamplings; those that the
    framework derives from a convolution with a stride or with few channels are many times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int, int, int]) -> Tensor:
        y = _resample(x, taps, up, down, padding)
        ctx.save_for_backward(taps)
        ctx.up, ctx.down, ctx.padding, ctx.shapes = up, down, padding, (x.shape, y.shape)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (taps,) = ctx.saved_tensors
        (*_, h, w), (*_, rows, columns) = ctx.shapes
        left, _, top, _ = ctx.padding
        before = (taps.shape[1] - 1 - left, taps.shape[0] - 1 - top)
        after = (
            (w - 1) * ctx.up + taps.shape[1] - before[0] - columns * ctx.down,
            (h - 1) * ctx.up + taps.shape[0] - before[1] - rows * ctx.down,
        )
        padding = (before[0], after[0], before[1], after[1])
        return _Resample.apply(gradient, taps.flip((0, 1)), ctx.down, ctx.up, padding), None, None, None, None
