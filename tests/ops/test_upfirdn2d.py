"""upfirdn2d: its four steps, its derivatives, each way of the processor, and the registered operation."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from brgm_med.ops import fir_filter, upfirdn2d
from brgm_med.ops.upfirdn2d import adjoint_padding
from tests.contracts import derivatives
from tests.ops_cases import ORDERS, check_resampling, definition, filters, images
from tests.ops_cases import RESAMPLED_SHAPES as SHAPES
from tests.ops_cases import RESAMPLINGS as CASES
from tests.ops_cases import Resampling as Case

RESAMPLE = sys.modules["brgm_med.ops.resample"]
OPERATION = torch.ops.brgm_med.upfirdn2d.default


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_the_definition(case: Case, order: str) -> None:
    for shape in SHAPES:
        for taps in filters(case[3]):
            check_resampling(upfirdn2d, images(shape, order=order), taps.double(), case, 1e-12)
            check_resampling(upfirdn2d, images(shape, torch.float32, order), taps, case, 1e-5)
            check_resampling(upfirdn2d, images(shape, torch.bfloat16, order), taps.bfloat16().float(), case, 1e-2)


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint(case: Case) -> None:
    """<A x, u> = <x, A' u>, A' being a resampling with `up` and `down` exchanged and the taps turned round."""
    up, down, padding, shape, flip, gain = case
    x, taps = images((2, 3, 7, 6)), filters(shape)[0].double()
    y = upfirdn2d(x, taps, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    u = images(tuple(y.shape), seed=4)
    back = adjoint_padding(x.shape, y.shape, taps, (up, up), (down, down), padding)
    adjoint = upfirdn2d(u, taps, up=down, down=up, padding=back, flip_filter=not flip, gain=gain)
    torch.testing.assert_close((y * u).sum(), (x * adjoint).sum(), rtol=1e-12, atol=1e-12)


LONG = fir_filter((1.0, 2.0, 5.0, 9.0, 12.0, 9.0, 4.0, 2.0))
WAYS = [
    # shape, dtype, up, down, padding -> the way that is taken
    ((1, 1, 5, 6), torch.float32, 2, 1, (2, 1, 2, 1), "by_matrices"),
    ((2, 1, 20, 12), torch.bfloat16, 2, 1, (2, 1, 2, 1), "by_matrices"),
    ((1, 24, 11, 13), torch.float32, 1, 1, (1, 1, 1, 1), "by_matrices"),
    ((1, 16, 10, 13), torch.bfloat16, 1, 2, (1, 1, 1, 1), "by_matrices"),
    ((1, 1, 301, 200), torch.float32, 2, 1, (2, 1, 2, 1), "transposed"),
    ((2, 3, 20, 21), torch.float32, 2, 1, (2, 1, 2, 1), "transposed"),
    ((2, 64, 33, 20), torch.bfloat16, 2, 1, (2, 2, 2, 1), "transposed"),
    ((1, 32, 81, 97), torch.bfloat16, 1, 1, (1, 1, 1, 1), "two_passes"),
    ((1, 32, 81, 97), torch.float32, 1, 1, (3, 4, 4, 3), "two_passes"),
    ((1, 32, 81, 97), torch.bfloat16, 1, 2, (3, 4, 4, 3), "two_passes"),
    ((1, 1, 301, 200), torch.float32, 1, 2, (1, 1, 1, 1), "specification"),
    ((1, 64, 81, 97), torch.float32, 1, 1, (1, 1, 1, 1), "specification"),
    ((1, 64, 81, 97), torch.bfloat16, 1, 2, (1, 1, 1, 1), "specification"),
]


@pytest.mark.parametrize(("shape", "dtype", "up", "down", "padding", "way"), WAYS)
def test_every_fast_way_is_the_specification(
    shape: tuple[int, ...], dtype: torch.dtype, up: int, down: int, padding: Any, way: str, monkeypatch: Any
) -> None:
    taken = []
    for name in ("by_matrices", "transposed", "two_passes", "specification"):
        function = getattr(RESAMPLE, name)
        monkeypatch.setattr(
            RESAMPLE, name, lambda *a, name=name, function=function: (taken.append(name), function(*a))[1]
        )
    x = images(shape, dtype, "last").requires_grad_()
    taps = LONG if padding[0] == 3 else fir_filter()
    y = upfirdn2d(x, taps, up=up, down=down, padding=padding, flip_filter=True)
    assert taken[0] == way
    plain = (taps.double(), (up, up), (down, down), padding)
    exact = RESAMPLE.specification(x.detach().double(), *plain)
    rounding = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(y.double(), exact, rtol=rounding, atol=rounding)
    assert y.stride() == torch.empty(y.shape, memory_format=torch.channels_last).stride()
    y.mul_(2)  # no view, and not remembered
    torch.autograd.grad(y.sum(), x)


@pytest.mark.parametrize("taps", [[1.0, 3.0, 3.0, 1.0], [1.0, 2.0, -1.0], [0.1, 1.0, 2.0, 5.0, 3.0, 2.0, 0.5, 0.2]])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_a_filter_of_one_dimension_is_separable(taps: list[float], up: int, down: int) -> None:
    one, x = torch.tensor(taps, dtype=torch.float64), images((2, 2, 9, 8))
    rest: Any = {"up": up, "down": down, "padding": (3, 4, 5, 2), "flip_filter": True, "gain": 3.0}
    exact = definition(x, torch.outer(one, one), up, down, (3, 4, 5, 2), True, 3.0)
    torch.testing.assert_close(upfirdn2d(x, one, **rest), exact, rtol=0, atol=1e-12)
    # As on devices, where a long one is two operations.
    y = OPERATION(x, one[None], (up, 1), (down, 1), (3, 4, 0, 0), True, 3.0)
    y = OPERATION(y, one[:, None], (1, up), (1, down), (0, 0, 5, 2), True, 1.0)
    torch.testing.assert_close(y, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_the_registered_operation(case: Case) -> None:
    up, down, padding, shape, flip, gain = case
    taps = filters(shape)[0].double()

    def function(x: Tensor) -> Tensor:
        return OPERATION(x, taps, (up, up), (down, down), padding, flip, gain)

    derivatives(function, [images((1, 2, 4, 5))])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own check
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 1, 6, 5), (1, 8, 6, 5)])
def test_the_operation_is_what_torch_expects_of_operations(shape: tuple[int, ...], order: str) -> None:
    for up, down in ((1, 1), (2, 1), (1, 2)):
        x = images(shape, torch.float32, order).requires_grad_()
        torch.library.opcheck(OPERATION, (x, fir_filter(), (up, up), (down, down), (2, 1, 2, 1), False, 4.0))


@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_traces_through_without_a_break(dynamic: bool) -> None:
    def function(x: Tensor) -> Tensor:
        y = upfirdn2d(x * 2, fir_filter(), up=2, padding=(2, 1, 2, 1), gain=4.0)
        return upfirdn2d(y, fir_filter((1.0, 2.0, 1.0)), down=2, padding=(1, 1, 1, 1)).square()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in ((2, 3, 6, 5), (2, 3, 8, 9)):
        x = images(size, torch.float32, "last").requires_grad_()
        plain, traced = function(x), compiled(x)
        torch.testing.assert_close(traced, plain)
        torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (traced, plain)))


def test_the_filter_gets_no_gradient_and_autocast_changes_nothing() -> None:
    x, taps = images((1, 2, 40, 50), torch.float32).requires_grad_(), fir_filter().requires_grad_()
    y = upfirdn2d(x, taps, padding=(1, 1, 1, 1))
    assert torch.autograd.grad(y.sum(), (x, taps), allow_unused=True)[1] is None
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(upfirdn2d(x, taps, padding=(1, 1, 1, 1)), y, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, on the first use
@pytest.mark.parametrize("case", CASES)
def test_forward_derivatives_and_those_of_torch_func(case: Case) -> None:
    up, down, padding, shape, flip, gain = case
    x, v, taps = images((2, 3, 7, 6)), images((2, 3, 7, 6), seed=5), filters(shape)[1].double()

    def function(x: Tensor) -> Tensor:
        return upfirdn2d(x, taps, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)

    y, tangent = torch.func.jvp(function, (x,), (v,))
    torch.testing.assert_close(y, function(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(tangent, function(v), rtol=0, atol=1e-12)
    gradient = torch.func.grad(lambda x: function(x).square().sum() / 2)(x)
    torch.testing.assert_close((gradient * x).sum(), y.square().sum(), rtol=1e-12, atol=0)  # <A'A x, x> = |A x|^2


def test_a_filter_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="a filter of 4 x 4 taps is larger than the padded image"):
        upfirdn2d(images((1, 1, 3, 8)), fir_filter())
