"""The definition of upfirdn2d, a tap at a time, and the cases that every way of computing it is held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops.resample import layout
from tests.contracts import random_images

# up, down, padding, shape of the filter, flip, gain
Case = tuple[int, int, tuple[int, int, int, int], tuple[int, int], bool, float]
CASES: list[Case] = [
    (1, 1, (1, 1, 1, 1), (4, 4), False, 4.0),
    (1, 1, (2, 2, 2, 2), (4, 4), True, 1.0),
    (2, 1, (2, 1, 2, 1), (4, 4), False, 4.0),
    (2, 1, (1, 2, 3, -2), (4, 4), False, 1.0),
    (2, 1, (-1, 3, 0, 0), (4, 4), True, 0.5),
    (2, 1, (5, 4, 4, 6), (4, 4), False, 1.0),
    (1, 2, (1, 1, 1, 1), (4, 4), False, 1.0),
    (1, 2, (2, -1, 0, 3), (4, 4), True, 1.0),
    (1, 1, (0, 0, 0, 0), (1, 1), False, -2.0),
    (3, 1, (2, 2, 1, 0), (3, 5), False, 1.0),
    (1, 3, (4, 0, 2, 5), (5, 3), True, 1.0),
    (2, 3, (3, 0, 1, 2), (3, 4), False, 0.5),
    (3, 2, (-2, 4, 6, -1), (2, 3), True, 1.0),
    (3, 3, (1, 1, 1, 1), (4, 4), False, 1.0),
    (2, 2, (9, 0, 0, 9), (4, 4), False, 1.0),
    (1, 1, (-1, -1, -2, 0), (2, 1), False, 1.0),
]
# Odd sizes, an empty batch, one channel, a size at which small maps end and the filter is met by few samples.
SHAPES = [(2, 3, 5, 7), (0, 3, 5, 4), (2, 1, 9, 6), (1, 8, 11, 13), (3, 16, 4, 5), (1, 2, 4, 3)]


def filters(shape: tuple[int, int]) -> list[Tensor]:
    """One that is no outer product, one that is."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(n, generator=generator) for n in shape)
    return [torch.randn(shape, generator=generator), torch.outer(a, b)]


def definition(x: Tensor, taps: Tensor, up: int, down: int, padding: Any, flip: bool, gain: float) -> Tensor:
    """The four steps one after the other, a tap at a time."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h * up, w * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, padding)
    fh, fw = taps.shape
    taps = (taps if flip else taps.flip((0, 1))).to(x.dtype)
    rows, columns = spread.shape[2] - fh + 1, spread.shape[3] - fw + 1
    y = x.new_zeros(n, c, rows, columns)
    for a in range(fh):
        for b in range(fw):
            y = y + gain * taps[a, b] * spread[:, :, a : a + rows, b : b + columns]
    return y[:, :, ::down, ::down]


def check(function: Callable[..., Tensor], x: Tensor, taps: Tensor, case: Case, rounding: float) -> None:
    """Value, first and second derivative against those of the definition in float64; order in memory kept."""
    up, down, padding, _, flip, gain = case
    exact_x = x.detach().double().cpu().requires_grad_()
    exact = definition(exact_x, taps.double(), up, down, padding, flip, gain)
    x = x.detach().requires_grad_()
    y = function(x, taps.to(x.device), up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    assert y.dtype == x.dtype
    assert y.is_contiguous(memory_format=layout(x))
    probe, second = (
        random_images(tuple(y.shape), x.dtype, seed=2).to(x.device),
        random_images(tuple(x.shape), x.dtype, seed=3).to(x.device),
    )
    probe.requires_grad_()
    (dx,) = torch.autograd.grad(y, x, probe, create_graph=True)
    (exact_dx,) = torch.autograd.grad(exact, exact_x, probe.detach().double().cpu())
    (ddy,) = torch.autograd.grad(dx, probe, second)  # linear: the derivative of A' g by g is A
    exact_ddy = definition(second.double().cpu(), taps.double(), up, down, padding, flip, gain)
    for ours, wanted in ((y, exact), (dx, exact_dx), (ddy, exact_ddy)):
        size = float(wanted.detach().abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(ours.double().cpu(), wanted, rtol=rounding, atol=rounding * size)
