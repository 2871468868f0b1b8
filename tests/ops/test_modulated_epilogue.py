"""modulated_epilogue: its formula and derivatives, its kernel thread by thread, what it does not do, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from brgm_med.ops import layout, modulated_epilogue
from brgm_med.ops.modulated_epilogue import _forward, _forward_cuda
from tests.contracts import derivatives
from tests.host_kernels import host_launch
from tests.ops_cases import (
    DEVICE_SHAPE,
    DTYPES,
    NOISES,
    ORDERS,
    TOLERANCE,
    epilogue_comparison,
    epilogue_derivatives,
    images,
)
from tests.ops_cases import EPILOGUE_SHAPES as SHAPES
from tests.ops_cases import epilogue_formula as formula
from tests.ops_cases import epilogue_parts as parts

__all__ = ["host_launch"]

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_its_formula(dtype: torch.dtype, noise: str, order: str, device: str) -> None:
    for shape in SHAPES:
        given = parts(shape, noise, order, dtype, device)
        y = modulated_epilogue(*given)
        exact = formula(*(t.double() for t in given))
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, rtol=2 * TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])
        if order != "turned":
            assert y.stride() == given[0].stride() or min(shape) < 2


@pytest.mark.usefixtures("host_launch")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_thread_of_the_kernel_on_the_host(dtype: torch.dtype, noise: str, order: str) -> None:
    for shape in SHAPES:
        epilogue_comparison("cpu", shape, noise, order, dtype).check()


@pytest.mark.usefixtures("host_launch")
@pytest.mark.parametrize("order", ["first", "last"])
def test_the_kernel_with_indices_of_64_bits(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "index_type", lambda _: "long long")
    for shape in SHAPES:
        epilogue_comparison("cpu", shape, "each", order, torch.float32).check()


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_on_a_gpu(dtype: torch.dtype) -> None:
    for shape in [*SHAPES, DEVICE_SHAPE]:
        for order in ORDERS:
            for noise in NOISES:
                epilogue_comparison("cuda", shape, noise, order, dtype).check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_derivatives_are_those_of_the_formula(dtype: torch.dtype, noise: str, device: str) -> None:
    for shape, order in product(SHAPES, ORDERS):
        for comparison in epilogue_derivatives(device, shape, noise, order, dtype):
            comparison.check()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("noise", NOISES)
def test_first_and_second_derivatives(noise: str, order: str, device: str) -> None:
    given = parts((2, 3, 2, 3), noise, order, torch.float64, device)
    derivatives(modulated_epilogue, given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_derivatives_in_half_precision(dtype: torch.dtype) -> None:
    given = [t.requires_grad_() for t in parts((2, 8, 16, 8), "one", "last", dtype, "cpu")]
    exact = [t.detach().double().requires_grad_() for t in given]
    dy = images((2, 8, 16, 8), dtype, "last", 1, 2.0)
    near = torch.autograd.grad(modulated_epilogue(*given), given, dy)
    for ours, true in zip(near, torch.autograd.grad(formula(*exact), exact, dy.double()), strict=True):
        assert float((ours.double() - true).norm() / true.norm()) < 20 * TOLERANCE[dtype]


@pytest.mark.parametrize("wanted", [(0,), (0, 1), (0, 1, 4), (1, 2)])
def test_what_needs_no_gradient_costs_no_work(wanted: tuple[int, ...]) -> None:
    given = parts((2, 3, 5, 7), "one", "last", torch.float32, "cpu")
    for index in wanted:
        given[index].requires_grad_()
    inputs = [given[index] for index in wanted]
    with patch("torch.bmm", wraps=torch.bmm) as products:
        gradients = torch.autograd.grad(modulated_epilogue(*given).sum(), inputs)
    assert all(g.shape == t.shape for g, t in zip(gradients, inputs, strict=True))
    # One product with the image is the gradient of the coefficients, another that of the noise, here never wanted.
    assert products.call_count == (0 if wanted == (0,) else 1)


def test_noise_without_a_strength_is_refused() -> None:
    x, d, bias, noise, _ = parts((2, 3, 4, 5), "one", "first", torch.float32, "cpu")
    with pytest.raises(ValueError, match="strength"):
        modulated_epilogue(x, d, bias, noise)


@pytest.mark.usefixtures("host_launch")
@pytest.mark.parametrize("function", [_forward, _forward_cuda])
def test_other_shapes_are_refused(function: Callable[..., Tensor]) -> None:
    """By the kernel too, which would read beyond its arguments."""
    x, noise = torch.ones(3, 4, 5, 6), torch.ones(1, 5, 6)
    for shape in ((3, 1, 4), (3, 2, 1), (1, 2, 4), (3, 2, 5)):
        with pytest.raises(ValueError, match="coefficients of"):
            function(x, torch.ones(shape), noise)
    for size in ((2, 5, 6), (1, 6, 5), (1, 1, 1)):
        with pytest.raises(ValueError, match="noise of"):
            function(x, torch.ones(3, 2, 4), torch.ones(size))


def test_autocast_changes_nothing() -> None:
    given = [t.requires_grad_() for t in parts((2, 3, 5, 7), "one", "last", torch.float32, "cpu")]
    plain = modulated_epilogue(*given)
    with torch.autocast("cpu", torch.bfloat16):
        cast = modulated_epilogue(*given)
        gradients = torch.autograd.grad(cast.sum(), given)
    assert torch.equal(cast, plain)
    for a, b in zip(gradients, torch.autograd.grad(plain.sum(), given), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own check
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("noise", NOISES)
def test_the_operation_is_what_torch_expects_of_operations(noise: str, order: str) -> None:
    x, _, _, *rest = parts((2, 3, 4, 5), noise, order, torch.float32, "cpu")
    coefficients = torch.randn(2, 2 if rest else 1, 3).requires_grad_()
    image = rest[0].requires_grad_() if rest else None
    torch.library.opcheck(torch.ops.brgm_med.modulated_epilogue.default, (x.requires_grad_(), coefficients, image))


def test_torch_compile_traces_through_without_a_break() -> None:
    given = [t.requires_grad_() for t in parts((2, 3, 4, 5), "one", "last", torch.float32, "cpu")]
    traced = torch.compile(modulated_epilogue, fullgraph=True, backend="aot_eager")(*given)
    plain = modulated_epilogue(*given)
    torch.testing.assert_close(traced, plain)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), given) for y in (traced, plain)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_overwriting_gives_the_same_values_and_derivatives(dtype: torch.dtype, noise: str) -> None:
    for shape in SHAPES:
        given = parts(shape, noise, "last", dtype, "cpu")
        kept = [t.clone(memory_format=torch.preserve_format) for t in given]
        y = modulated_epilogue(*kept, overwrite=True)
        torch.testing.assert_close(y, modulated_epilogue(*given), rtol=0, atol=2 * TOLERANCE[dtype])
        if min(shape) > 1:
            assert y.data_ptr() == kept[0].data_ptr()
    given = [t.double().requires_grad_() for t in parts((2, 3, 5, 7), noise, "last", dtype, "cpu")]

    def overwritten(x: Tensor, *others: Tensor) -> Tensor:
        return modulated_epilogue(x * 1.0, *others, overwrite=True)

    derivatives(overwritten, given)
    for ours, expected in zip(
        *(torch.autograd.grad(f(*given).square().sum(), given) for f in (overwritten, modulated_epilogue)), strict=True
    ):
        torch.testing.assert_close(ours, expected)
