"""`upfirdn2d` on a CUDA device: which instance of upfirdn2d.cu, and its launch geometry."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from brgm_med.ops import nvrtc
from brgm_med.ops.layout import SCALARS
from brgm_med.ops.nvrtc import Kernel
from brgm_med.ops.resample import Pair, Sides, layout

# (up, down) -> (rows, columns) of the tile of results that a thread makes, where the filter has 4 x 4 taps.
TILES = {(1, 1): (4, 1), (2, 1): (2, 2), (1, 2): (2, 1)}


class Axis(ctypes.Structure):
    """One axis, as upfirdn2d.cu declares it."""

    _fields_ = [(name, ctypes.c_int) for name in ("size", "results", "taps", "up", "down", "before", "origin", "tiles")]


class Arguments(ctypes.Structure):
    """The kernel's arguments, as upfirdn2d.cu declares them."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("threads", ctypes.c_longlong),
        ("x_strides", ctypes.c_longlong * 4),
        ("y_strides", ctypes.c_longlong * 4),
        ("rows", Axis),
        ("columns", Axis),
        ("channels", ctypes.c_int),
        ("flip", ctypes.c_int),
        ("gain", ctypes.c_double),
    ]


class Memory(NamedTuple):
    """Memory layout of a tensor [N, C, H, W]."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int


def axis(size: int, results: int, taps: int, up: int, down: int, before: int, tile: int) -> Axis:
    """`results` positions in tiles of `tile`. Tiles of more than one begin where first - before is a multiple of `up`
    (`down` is 1 there, or `up` is), so the first may begin before position 0."""
    origin = -(-before % up) if tile > 1 else 0
    return Axis(size, results, taps, up, down, before, origin, -(-(results - origin) // tile))


def pack(channels: int, itemsize: int, *memories: Memory) -> int:
    """Number of neighbouring channels moved in one access, of which all addresses must be whole multiples: at most
    4, and at most 16 bytes. (Twice as many of 16 bits make the unrolled instances spill registers.)"""
    count = min(4, 16 // itemsize)
    while count > 1 and not (
        channels % count == 0
        and all(
            m.strides[1] == 1
            and m.address % (count * itemsize) == 0
            and all(m.strides[d] % count == 0 for d in (0, 2, 3))
            for m in memories
        )
    ):
        count //= 2
    return count


def index_type(threads: int, *memories: Memory) -> str:
    """The integer that holds every thread number and every offset: 64 bits from 2^31 elements on."""
    furthest = (sum((n - 1) * s for n, s in zip(m.shape, m.strides, strict=True)) for m in memories)
    return "unsigned" if max(threads + nvrtc.BLOCK, *furthest) < 2**31 else "long long"


def unrolled(up: Pair, down: Pair, taps: Sequence[int]) -> Pair | None:
    """The (up, down) of the instance whose loops unroll; None where the generic one is meant."""
    alike = up[0] == up[1] and down[0] == down[1] and tuple(taps) == (4, 4)
    return (up[0], down[0]) if alike and (up[0], down[0]) in TILES else None


def instance(scalar: str, index: str, last: bool, pack: int, hot: Pair | None) -> Kernel:
    """The kernel with these macros; `hot` = (up, down) names an unrolled one."""
    macros = [("SCALAR", scalar), ("INDEX", index), ("CHANNELS_LAST", str(int(last))), ("PACK", str(pack))]
    if hot is not None:
        rows, columns = TILES[hot]
        numbers = {"TAPS": 4, "UP": hot[0], "DOWN": hot[1], "ROWS": rows, "COLUMNS": columns}
        macros += [(name, str(value)) for name, value in numbers.items()]
    return Kernel("upfirdn2d.cu", "upfirdn2d", tuple(macros))


def memory(x: Tensor) -> Memory:
    return Memory(tuple(x.shape), x.stride(), x.data_ptr())


def launched(
    x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: Sides, flip: bool, gain: float, results: Pair
) -> Tensor | None:
    """The kernel's result; None where the reference must be used."""
    width, height = results
    n, c, h, w = x.shape
    fh, fw = filter.shape
    if x.dtype not in SCALARS or max(c, h * up[1] + fh, w * up[0] + fw, height * down[1], width * down[0]) >= 2**30:
        return None  # positions along an axis are counted in 32 bits
    order = layout(x)
    y = torch.empty((n, c, height, width), dtype=x.dtype, device=x.device, memory_format=order)
    if y.numel() == 0:
        return y
    taps = filter.to(device=x.device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    hot = unrolled(up, down, filter.shape)
    tile = TILES[hot] if hot else (1, 1)
    rows = axis(h, height, fh, up[1], down[1], padding[2], tile[0])
    columns = axis(w, width, fw, up[0], down[0], padding[0], tile[1])
    memories = memory(x), memory(y)
    last = order == torch.channels_last
    together = pack(c, x.element_size(), *memories) if last else 1
    threads = n * (c // together) * rows.tiles * columns.tiles
    kernel = instance(SCALARS[x.dtype], index_type(threads, *memories), last, together, hot)
    strides = [(ctypes.c_longlong * 4)(*m.strides) for m in memories]
    arguments = Arguments(
        x.data_ptr(), taps.data_ptr(), y.data_ptr(), threads, *strides, rows, columns, c, int(flip), gain
    )
    return y if nvrtc.launch(kernel, arguments, threads, x.device) else None
