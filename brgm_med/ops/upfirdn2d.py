"""Upsample, filter, downsample: the resampling operation of alias-free networks."""

from __future__ import annotations

from collections.abc import Sequence

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
    `gain`. 4. Every `down`-th sample is kept.
    """
    n, c, h, w = x.shape
    if up > 1:
        spread = x.new_zeros(n, c, h, up, w, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.reshape(n, c, h * up, w * up)
    x = F.pad(x, list(padding))
    taps = filter.to(x.dtype)
    if not flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    if taps.ndim == 1:
        taps = torch.outer(taps, taps)
    kernel = (taps * gain)[None, None].expand(c, 1, -1, -1)
    return F.conv2d(x, kernel, stride=down, groups=c)
