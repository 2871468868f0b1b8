"""`upfirdn2d` of the processor: the specification, and three ways that are faster where they apply."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops.library import transformed

Pair = tuple[int, int]  # (across, down): along a row, along a column
Sides = tuple[int, int, int, int]  # left, right, top, bottom


def layout(x: Tensor) -> torch.memory_format:
    """The order in memory of an operation's result: that of `x` [N, C, H, W]."""
    last = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def specification(x: Tensor, taps: Tensor, up: Pair, down: Pair, padding: Sides) -> Tensor:
    """The four steps of `upfirdn2d`, correlating with `taps` [fh, fw] of the dtype of `x`."""
    n, c, h, w = x.shape
    left, right, top, bottom = padding
    if up != (1, 1):
        # Zeros and padding in one piece of memory; what is cropped instead is cropped after.
        edges = [max(p, 0) for p in padding]
        shape = (n, c, h * up[1] + edges[2] + edges[3], w * up[0] + edges[0] + edges[1])
        spread = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x)).zero_()
        spread[:, :, edges[2] : edges[2] + h * up[1] : up[1], edges[0] : edges[0] + w * up[0] : up[0]] = x
        x, (left, right, top, bottom) = spread, (min(p, 0) for p in padding)
    if left == right >= 0 and top == bottom >= 0:  # the convolution pads without a copy
        pad = (top, left)
    else:
        x, pad = F.pad(x, (left, right, top, bottom)), (0, 0)
    return F.conv2d(x, taps.expand(c, 1, -1, -1), stride=down[::-1], padding=pad, groups=c)


class Taps(NamedTuple):
    """A filter, turned round and times its gain, so that it is correlated with: whole, and as an outer product."""

    whole: Tensor  # [fh, fw]
    column: tuple[float, ...]  # fh numbers
    row: tuple[float, ...] | None  # fw numbers; None where the filter is no outer product
    lines: tuple[Tensor, Tensor]  # the same as [fh, 1] and [1, fw]


@lru_cache(64)
def _taps(filter: tuple[tuple[float, ...], ...], flip: bool, gain: float, dtype: torch.dtype) -> Taps:
    turn = 1 if flip else -1
    rows = [[gain * value for value in line[::turn]] for line in filter[::turn]]
    whole = torch.tensor(rows, dtype=dtype)
    pivot, i, j = max(
        ((value, i, j) for i, line in enumerate(rows) for j, value in enumerate(line)), key=lambda entry: abs(entry[0])
    )
    if pivot == 0:
        return Taps(whole, (), None, (whole[:, :1], whole[:1]))
    column, row = tuple(line[j] for line in rows), tuple(value / pivot for value in rows[i])
    away = max(
        abs(a * b - value) for a, line in zip(column, rows, strict=True) for b, value in zip(row, line, strict=True)
    )
    rounding = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    lines = torch.tensor(column, dtype=dtype)[:, None], torch.tensor(row, dtype=dtype)[None]
    return Taps(whole, column, row if away <= rounding * abs(pivot) else None, lines)


@lru_cache(64)
def _matrix(
    taps: tuple[float, ...], up: int, down: int, before: int, size: int, results: int, dtype: torch.dtype
) -> Tensor:
    """R [results, size] of the resampling of one axis, y = R x: R[j, q] = taps[q up + before - j down]."""
    index = torch.arange(size) * up + before - torch.arange(results)[:, None] * down
    inside = (index >= 0) & (index < len(taps))
    return torch.tensor(taps, dtype=dtype)[index.clamp(0, len(taps) - 1)] * inside


def by_matrices(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """rows x columns^T for every channel: `columns` [W', W], `rows` [H', H], x [N, C, H, W] -> [N, C, H', W']."""
    n, c, h, w = x.shape
    height, width = len(rows), len(columns)
    y = torch.empty((n, c, height, width), dtype=x.dtype, memory_format=layout(x))  # its own, not a product's view
    if c > 1 and layout(x) == torch.channels_last:
        between = torch.bmm(rows.expand(n, -1, -1), x.permute(0, 2, 3, 1).reshape(n, h, w * c))
        lines = y.permute(0, 2, 3, 1).view(n * height, width, c)
        torch.bmm(columns.expand(n * height, -1, -1), between.view(n * height, w, c), out=lines)
    elif height * width * (h + w) < h * w * (height + width):
        between = torch.bmm(rows.expand(n * c, -1, -1), x.reshape(n * c, h, w))
        torch.mm(between.view(-1, w), columns.T, out=y.view(-1, width))
    else:
        between = torch.mm(x.reshape(-1, w), columns.T).view(n * c, h, width)
        torch.bmm(rows.expand(n * c, -1, -1), between, out=y.view(n * c, height, width))
    return y


def transposed(x: Tensor, taps: Tensor, up: Pair, padding: Sides, results: Pair) -> Tensor | None:
    """Upsampling as the transpose of a convolution with a stride, which multiplies no zeros; None where the padding
    is none that a transposed convolution knows. Computed in float32 where `x` has 16 bits: far faster."""
    (fh, fw), (h, w) = taps.shape, x.shape[2:]
    crop = (fh - 1 - padding[2], fw - 1 - padding[0])
    more = (results[1] - ((h - 1) * up[1] - 2 * crop[0] + fh), results[0] - ((w - 1) * up[0] - 2 * crop[1] + fw))
    if min(crop) < 0 or not (0 <= more[0] < up[1] and 0 <= more[1] < up[0]):
        return None
    c, wide = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    kernel = taps.flip((0, 1)).to(wide).expand(c, 1, -1, -1)
    return F.conv_transpose2d(x.to(wide), kernel, None, up[::-1], crop, more, c).to(x.dtype)


def two_passes(x: Tensor, taps: Taps, up: Pair, down: Pair, padding: Sides) -> Tensor:
    """Rows first, then columns: fh + fw products a sample in place of fh fw, for one more rounding."""
    column, row = taps.lines
    left, right, top, bottom = padding
    y = specification(x, row, (up[0], 1), (down[0], 1), (left, right, 0, 0))
    return specification(y, column, (1, up[1]), (1, down[1]), (0, 0, top, bottom))


def resample(
    x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float, results: Pair
) -> Tensor:
    """`upfirdn2d` without kernels, x [N, C, H, W] -> [N, C, results[1], results[0]] in the memory order of `x`."""
    if x.numel() == 0:
        y = x.new_zeros(*x.shape[:2], results[1], results[0])
    elif x.is_cpu and not transformed():
        taps = _taps(tuple(map(tuple, filter.tolist())), flip, gain, x.dtype)
        y = _fastest(x, taps, up, down, padding, results)
    else:
        y = specification(x, (filter if flip else filter.flip((0, 1))).to(x.dtype) * gain, up, down, padding)
    order = layout(x)
    if order == layout(y) and y.is_contiguous(memory_format=order):
        return y
    return torch.empty(y.shape, dtype=y.dtype, device=y.device, memory_format=order).copy_(y)


def _fastest(x: Tensor, taps: Taps, up: Pair, down: Pair, padding: Sides, results: Pair) -> Tensor:
    """The fastest way, measured with one thread of a processor with AVX-512, on the shapes of this package's
    networks (fir_filter, channels last): matrices up to 8 times on images of one channel and on small maps, whose
    convolutions are all overhead; the transposed convolution 2 to 4 times on upsampling and on the derivative of
    downsampling; two passes 1.5 times on large 16-bit maps, whose convolution is bound by arithmetic,
    and 2 to 6 times with 12 x 12 taps.
    """
    (n, c, h, w), (width, height) = x.shape, results
    wide = torch.promote_types(x.dtype, torch.float32)
    if taps.row is not None and (c == 1 or c >= 8 or layout(x) == torch.contiguous_format):
        products = n * c * min(h * w * width + h * width * height, h * w * height + w * width * height)
        if products <= 2**22 or (c == 1 and max(h, w, height, width) <= (256 if down == (1, 1) else 128)):
            columns = _matrix(taps.row, up[0], down[0], padding[0], w, width, wide)
            rows = _matrix(taps.column, up[1], down[1], padding[2], h, height, wide)
            return by_matrices(x.to(wide), columns, rows).to(x.dtype)
    if up != (1, 1) and down == (1, 1):
        y = transposed(x, taps.whole, up, padding, results)
        if y is not None:
            return y
    few = 49 if x.dtype == wide else 15 if down == (1, 1) else 35  # taps for which one pass is as fast as two
    if taps.row is not None and up == (1, 1) and taps.whole.numel() > few and x.numel() >= 200_000:
        return two_passes(x, taps, up, down, padding)
    return specification(x, taps.whole, up, down, padding)
