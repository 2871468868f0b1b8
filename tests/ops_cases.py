"""Cases on which kernels are compared with their specifications in float64 on the processor.

One table for the tests and for benchmarks/gpu.py; nothing here needs pytest, or a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops import modulated_epilogue
from brgm_med.ops.bias_act import ACTIVATIONS, _backward, _backward_cuda, _forward, _forward_cuda, _second, _second_cuda
from brgm_med.ops.modulated_epilogue import _forward as _epilogue
from brgm_med.ops.modulated_epilogue import _forward_cuda as _epilogue_cuda
from brgm_med.ops.resample import layout

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
ORDERS = ["first", "last", "turned"]
ACTS = sorted(ACTIVATIONS)
CLAMPS = [None, 0.9]
NOISES = ["none", "one", "each"]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of bias_act and modulated_epilogue, relative and absolute."""
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of upfirdn2d, relative, and absolute in units of the largest value."""

# Empty, odd, more than one block, whole packs, one channel, no space, three dimensions of space.
BIAS_ACT_SHAPES = [(0, 3, 4, 4), (2, 3, 5, 7), (3, 5, 13, 11), (2, 8, 16, 8), (2, 1, 9, 8), (6, 32), (2, 4, 3, 2, 3)]
EPILOGUE_SHAPES = [(0, 3, 4, 4), (2, 3, 5, 7), (3, 5, 13, 11), (2, 8, 16, 8), (2, 1, 9, 8), (3, 16, 1, 1)]
# Odd sizes, an empty batch, one channel, a size at which small maps end and the filter is met by few samples.
RESAMPLED_SHAPES = [(2, 3, 5, 7), (0, 3, 5, 4), (2, 1, 9, 6), (1, 8, 11, 13), (3, 16, 4, 5), (1, 2, 4, 3)]
DEVICE_SHAPE = (4, 64, 33, 32)
"""One more on a device: many blocks."""

Resampling = tuple[int, int, tuple[int, int, int, int], tuple[int, int], bool, float]
# up, down, padding, shape of the filter, flip, gain
RESAMPLINGS: list[Resampling] = [
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


class Comparison(NamedTuple):
    """A result and the same in float64 on the processor, with what it must agree in.

    `bound` is relative, and absolute in units of `size`; with `norm` it bounds the relative norm of the difference.
    `name` begins with operation, result and dtype. `ordered` says whether the result lies in memory as it should.
    """

    name: str
    ours: Tensor
    exact: Tensor
    bound: float
    dtype: torch.dtype
    ordered: bool = True
    size: float = 1.0
    norm: bool = False

    def check(self) -> None:
        """Raises AssertionError, with the values that differ."""
        assert self.ours.dtype == self.dtype, self.name
        assert self.ordered, self.name
        if self.norm:
            assert self.error() <= 1, f"{self.name}: {self.error()} times the bound"
        else:
            ours = self.ours.double().cpu()
            torch.testing.assert_close(ours, self.exact, rtol=self.bound, atol=self.bound * self.size)

    def error(self) -> float:
        """The largest difference in units of what is allowed there: right up to 1. Infinite for another shape, dtype,
        order in memory, or a value that is not finite."""
        if not self.ordered or self.ours.shape != self.exact.shape or self.ours.dtype != self.dtype:
            return math.inf
        if not self.exact.numel():
            return 0.0
        exact = self.exact.detach()
        difference = (self.ours.detach().double().cpu() - exact).abs()
        if self.norm:
            largest = float(difference.norm() / (self.bound * exact.norm()).clamp_min(1e-300))
        else:
            largest = float((difference / (self.bound * (self.size + exact.abs())).clamp_min(1e-300)).max())
        return largest if math.isfinite(largest) else math.inf


def images(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
    order: str = "first",
    seed: int = 0,
    deviation: float = 1.0,
) -> Tensor:
    """Normal numbers in one of `ORDERS` of memory: plain, channels last, transposed."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(deviation).to(dtype)
    return ordered(x, order)


def ordered(x: Tensor, order: str) -> Tensor:
    if order == "last":
        last = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return torch.empty_like(x, memory_format=last).copy_(x)
    return x.transpose(0, -1).contiguous().transpose(0, -1) if order == "turned" else x.contiguous()


def exactly(t: Tensor | None) -> Any:
    """The same numbers in float64 on the processor."""
    return None if t is None else t.detach().double().cpu()


# bias_act: its three kernels.


def bias_act_comparisons(
    device: str, act: str, clamp: float | None, dtype: torch.dtype, shape: tuple[int, ...], order: str, biased: bool
) -> Iterator[Comparison]:
    """Value, first and second derivative, each from exactly the numbers that the kernel has."""
    x, dy, ddx = (images(shape, dtype, order, seed, 2.0).to(device) for seed in range(3))
    dy = ordered(dy, "first")  # a gradient may come in another order
    bias = images(shape[1:2], dtype, seed=3).to(device) if biased else None
    how: Any = (act, 1.3, clamp)
    name = f"{str(dtype).removeprefix('torch.')} {act} clamp={clamp} {order} {list(shape)} bias={biased}"

    def compared(kernel: str, ours: Tensor, exact: Tensor) -> Comparison:
        laid = ours.stride() == torch.empty_like(x).stride()
        return Comparison(f"bias_act {kernel} {name}", ours, exact, TOLERANCE[dtype], dtype, laid)

    y = _forward_cuda(x, bias, *how)
    yield compared("forward", y, _forward(exactly(x), exactly(bias), *how))
    saved, added, at_clamp = (x, bias, clamp) if act == "swish" else (y, None, float(y.new_tensor(clamp or 0.0)))
    how_saved: Any = (exactly(saved), exactly(added), act, 1.3, None if clamp is None else at_clamp)
    yield compared("backward", _backward_cuda(dy, saved, added, *how), _backward(exactly(dy), *how_saved))
    second = _second(exactly(ddx), exactly(dy), *how_saved)
    yield compared("second", _second_cuda(ddx, dy, saved, added, *how), second)


# modulated_epilogue: its kernel, and the derivatives that follow from it.


def epilogue_parts(
    shape: tuple[int, int, int, int], noise: str, order: str, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """x, demodulation, bias and, unless `noise` is none, noise and strength."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(7)
    others = [torch.rand(n, c, generator=generator) + 0.5, torch.randn(c, generator=generator)]
    if noise != "none":
        others += [torch.randn(1 if noise == "one" else n, h, w, generator=generator), torch.tensor(0.7)]
    wide = torch.promote_types(dtype, torch.float32)
    return [images(shape, dtype, order, 0, 2.0).to(device), *(t.to(device, wide) for t in others)]


def epilogue_formula(
    x: Tensor, d: Tensor, bias: Tensor, noise: Tensor | None = None, strength: Tensor | None = None
) -> Tensor:
    d = d[:, :, None, None]
    y = x * d + bias[:, None, None]
    if noise is not None and strength is not None:
        y = y + noise[:, None] * strength
    return F.leaky_relu(y, 0.2) / d


def epilogue_comparison(
    device: str, shape: tuple[int, int, int, int], noise: str, order: str, dtype: torch.dtype
) -> Comparison:
    """The kernel and the specification, from the same numbers; in memory as the specification's."""
    x, _, _, *rest = epilogue_parts(shape, noise, order, dtype, device)
    image = rest[0].to(dtype) if rest else None
    coefficients = images((shape[0], 2 if rest else 1, shape[1]), dtype, seed=5).to(device)
    y = _epilogue_cuda(x, coefficients, image)
    exact = _epilogue(exactly(x), exactly(coefficients), exactly(image))
    name = f"modulated_epilogue forward {str(dtype).removeprefix('torch.')} {order} {list(shape)} noise={noise}"
    return Comparison(name, y, exact, TOLERANCE[dtype], dtype, y.stride() == exact.stride())


def epilogue_derivatives(
    device: str, shape: tuple[int, int, int, int], noise: str, order: str, dtype: torch.dtype
) -> Iterator[Comparison]:
    """First and second derivatives by every argument against those of the formula. By their norms, since rounding
    moves single values over the corner of the rectifier."""

    def derivatives(function: Callable[..., Tensor], given: list[Tensor], dy: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(function(*given), given, dy, create_graph=True)
        probes = [images(tuple(t.shape), seed=11 + i).to(t) for i, t in enumerate(given)]
        total = sum((a * b).sum().double() for a, b in zip(first, probes, strict=True))
        return [*first, *torch.autograd.grad(total, [dy, *given[1:3]])]  # type: ignore[arg-type]

    given = epilogue_parts(shape, noise, order, dtype, device)
    dy = images(shape, dtype, order, 1).to(device)
    exact = derivatives(epilogue_formula, [exactly(t).requires_grad_() for t in given], exactly(dy).requires_grad_())
    ours = derivatives(modulated_epilogue, [t.requires_grad_() for t in given], dy.requires_grad_())
    firsts = ["dx", "dd", "dbias", "dnoise", "dstrength"]
    names = [*firsts[: len(given)], "ddy", "ddd", "ddbias"]
    base = f"{str(dtype).removeprefix('torch.')} {order} {list(shape)} noise={noise}"
    for what, near, true in zip(names, ours, exact, strict=True):
        bound = 20 * TOLERANCE[dtype]
        yield Comparison(f"modulated_epilogue {what} {base}", near, true.detach(), bound, near.dtype, norm=True)


# upfirdn2d.


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


def resampling_comparisons(
    function: Callable[..., Tensor], x: Tensor, taps: Tensor, case: Resampling, rounding: float, name: str = ""
) -> Iterator[Comparison]:
    """Value, first and second derivative against those of the definition in float64."""
    up, down, padding, _, flip, gain = case
    exact_x = exactly(x).requires_grad_()
    exact = definition(exact_x, taps.double(), up, down, padding, flip, gain)
    x = x.detach().requires_grad_()
    y = function(x, taps.to(x.device), up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    probe, second = (
        images(tuple(y.shape), x.dtype, seed=2).to(x.device),
        images(tuple(x.shape), x.dtype, seed=3).to(x.device),
    )
    probe.requires_grad_()
    (dx,) = torch.autograd.grad(y, x, probe, create_graph=True)
    (exact_dx,) = torch.autograd.grad(exact, exact_x, exactly(probe))
    (ddy,) = torch.autograd.grad(dx, probe, second)  # linear: the derivative of A' g by g is A
    exact_ddy = definition(exactly(second), taps.double(), up, down, padding, flip, gain)
    how = f"up={up} down={down} padding={list(padding)} taps={list(taps.shape)} flip={flip} {list(x.shape)} {name}"
    laid = y.is_contiguous(memory_format=layout(x))
    for what, ours, true in (("forward", y, exact), ("backward", dx, exact_dx), ("second", ddy, exact_ddy)):
        true = true.detach()
        size = float(true.abs().max()) if true.numel() else 0.0
        yield Comparison(
            f"upfirdn2d {what} {str(x.dtype).removeprefix('torch.')} {how}",
            ours.detach(),
            true,
            rounding,
            x.dtype,
            laid,
            size,
        )


def check_resampling(
    function: Callable[..., Tensor], x: Tensor, taps: Tensor, case: Resampling, rounding: float
) -> None:
    """As `resampling_comparisons`; the order in memory is kept. Raises AssertionError."""
    for comparison in resampling_comparisons(function, x, taps, case, rounding):
        comparison.check()
