"""Type, index and memory order that a kernel is compiled and launched for."""

from __future__ import annotations

import torch
from torch import Tensor

SCALARS = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "BFloat16", torch.float64: "double"}


def is_channels_last(x: Tensor) -> bool:
    """True where `x` is to be written in channels-last order: it lies so, and not in plain order."""
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor, last: bool) -> Tensor:
    """`x` in channels-last order, or in plain order; a copy only where it lies otherwise."""
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def same_kind(*tensors: Tensor) -> None:
    """Raise ValueError unless all are of one type and on one device, as a kernel takes for granted."""
    kinds = {(t.dtype, t.device) for t in tensors}
    if len(kinds) > 1:
        raise ValueError(f"tensors of several types or devices: {sorted(map(str, kinds))}")


def elements_a_thread(count: int, itemsize: int, *addresses: int) -> int:
    """Number of elements that fill 16 bytes, if that divides `count` and all `addresses`; else 1."""
    pack = 16 // itemsize
    return pack if count % pack == 0 and all(address % 16 == 0 for address in addresses) else 1


def macros(x: Tensor, pack: int, **others: str) -> tuple[tuple[str, str], ...]:
    """The macros of a kernel over the elements of `x`, `pack` a thread. Raises TypeError for other scalars."""
    scalar = SCALARS.get(x.dtype)
    if scalar is None:
        raise TypeError(f"expected a floating-point tensor, not {x.dtype}")
    return (("SCALAR", scalar), ("INDEX", index_type(x.numel())), ("PACK", str(pack)), *others.items())


def index_type(count: int) -> str:
    """The integer that holds every index of `count` elements, and those of the last block's surplus threads."""
    return "unsigned" if count < 2**31 else "long long"
