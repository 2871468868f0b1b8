"""bias_act: its derivatives, its kernels' arithmetic thread by thread on the host, torch.compile, and on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from brgm_med.ops import bias_act, layout
from brgm_med.ops.bias_act import ACTIVATIONS, _backward_cuda, _forward_cuda
from tests.contracts import derivatives
from tests.host_kernels import host_launch
from tests.ops_cases import (
    ACTS,
    BIAS_ACT_SHAPES,
    CLAMPS,
    DEVICE_SHAPE,
    DTYPES,
    ORDERS,
    TOLERANCE,
    bias_act_comparisons,
    images,
)

__all__ = ["host_launch"]

OPS = torch.ops.brgm_med


def check_kernels(*arguments: Any, biased: bool) -> None:
    """The three kernels against the specification in float64, each from exactly the same numbers."""
    for comparison in bias_act_comparisons(*arguments, biased=biased):
        comparison.check()


@pytest.mark.usefixtures("host_launch")
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_thread_of_the_kernels_on_the_host(act: str, clamp: float | None, dtype: torch.dtype) -> None:
    for shape in BIAS_ACT_SHAPES:
        for order in ORDERS:
            check_kernels("cpu", act, clamp, dtype, shape, order, biased=shape[0] != 3)


@pytest.mark.usefixtures("host_launch")
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_the_kernels_with_indices_of_64_bits(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "index_type", lambda _: "long long")
    for shape in BIAS_ACT_SHAPES:
        check_kernels("cpu", act, 0.9, torch.float32, shape, "last", biased=True)


@pytest.mark.cuda
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_on_a_gpu(act: str, dtype: torch.dtype) -> None:
    for shape in [*BIAS_ACT_SHAPES, DEVICE_SHAPE]:
        for order in ORDERS:
            for clamp in CLAMPS:
                check_kernels("cuda", act, clamp, dtype, shape, order, biased=shape[0] != 3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("gain", [1.3, -0.7])
@pytest.mark.parametrize("act", ACTS)
def test_first_and_second_derivatives(act: str, gain: float, clamp: float | None, device: str) -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, device=device)
    bias = torch.randn(3, dtype=torch.float64, device=device)
    derivatives(lambda x, bias: bias_act(x, bias, act=act, gain=gain, clamp=clamp), (x, bias))


@pytest.mark.parametrize("act", ["lrelu", "tanh"])
def test_a_gain_of_zero(act: str) -> None:
    x = torch.randn(2, 3, requires_grad=True)
    y = bias_act(x, act=act, gain=0.0)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, torch.zeros(2, 3))
    assert torch.equal(dx, torch.zeros(2, 3))


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", ACTS)
def test_derivatives_in_half_precision(act: str, dtype: torch.dtype, clamp: float | None) -> None:
    """Against float64 throughout, where rounding does not move a value over a corner or over the clamp."""
    x, dy = images((2, 3, 5, 7), dtype, "first", 0, 2.0).requires_grad_(), images((2, 3, 5, 7), dtype, "first", 1, 2.0)
    exact_x = x.detach().double().requires_grad_()
    free = ACTIVATIONS[act][0](exact_x) * 1.3
    exact_y = free if clamp is None else free.clamp(-clamp, clamp)
    (exact,) = torch.autograd.grad(exact_y, exact_x, dy.double())
    y = bias_act(x, act=act, gain=1.3, clamp=clamp)
    (dx,) = torch.autograd.grad(y, x, dy)
    clear = (exact_x.abs() > 0.01) & ((free.abs() - (clamp or torch.inf)).abs() > 0.02)
    rounding = TOLERANCE[dtype]
    torch.testing.assert_close(y.double(), exact_y, rtol=rounding, atol=rounding)
    torch.testing.assert_close(dx.double()[clear], exact[clear], rtol=rounding, atol=4 * rounding)
    clipped = free.abs() > (clamp or torch.inf) + 0.02
    assert not dx[clipped].any()


def test_the_third_derivative_says_so() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(bias_act(x, act="tanh").sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third, of tanh"):
        torch.autograd.grad(second.sum(), x)


def test_an_unknown_activation_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="gelu"):
        bias_act(torch.ones(1, 2), act="gelu")


@pytest.mark.usefixtures("host_launch")
def test_a_bias_of_another_length_type_or_device_is_refused() -> None:
    """By the kernels too, which would read beyond it."""
    x, how = torch.ones(2, 3, 4, 4), ("lrelu", 1.3, None)
    for length in (1, 2, 4):
        with pytest.raises(ValueError, match="a bias of"):
            bias_act(x, torch.ones(length), act="lrelu")
        with pytest.raises(ValueError, match="a bias of"):
            bias_act(x, torch.ones(length))
        with pytest.raises(ValueError, match="a bias of"):
            _forward_cuda(x, torch.ones(length), *how)
    for other in (torch.ones(3).half(), torch.ones(3, device="meta")):
        with pytest.raises(ValueError, match="several types or devices"):
            _forward_cuda(x, other, *how)
    with pytest.raises(ValueError, match="several types or devices"):
        _backward_cuda(x.double(), x, None, *how)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own check
@pytest.mark.parametrize("act", ["lrelu", "swish", "elu"])
@pytest.mark.parametrize("order", ["first", "last"])
def test_the_operations_are_what_torch_expects_of_operations(act: str, order: str) -> None:
    x, dy, ddx = (images((2, 3, 4, 5), torch.float32, order, seed, 2.0).requires_grad_() for seed in range(3))
    bias = torch.randn(3, requires_grad=True)
    saved_bias = bias if act == "swish" else None
    torch.library.opcheck(OPS.bias_act.default, (x, bias, act, 1.3, 0.9))
    torch.library.opcheck(OPS.bias_act_backward.default, (dy, x, saved_bias, act, 1.3, None))
    forward_only = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPS.bias_act_second.default, (ddx, dy, x, saved_bias, act, 1.3, 0.9), test_utils=forward_only)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_torch_compile_traces_through_without_a_break(act: str) -> None:
    def function(x: Tensor, bias: Tensor) -> Tensor:
        return bias_act(x * 2, bias, act=act, clamp=1.5).square()

    x, bias = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(3, requires_grad=True)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    plain, traced = function(x, bias), compiled(x, bias)
    torch.testing.assert_close(traced, plain)
    for a, b in zip(*(torch.autograd.grad(y.sum(), (x, bias)) for y in (traced, plain)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")  # torch.func's own
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_forward_derivatives_are_those_of_the_formula(act: str) -> None:
    x, tangent = torch.randn(2, 3), torch.randn(2, 3)

    def plain(x: Tensor) -> Tensor:
        return ACTIVATIONS[act][0](x) * 1.3

    def ours(x: Tensor) -> Tensor:
        return bias_act(x, act=act, gain=1.3)

    torch.testing.assert_close(torch.func.jvp(ours, (x,), (tangent,)), torch.func.jvp(plain, (x,), (tangent,)))
    torch.testing.assert_close(torch.func.jacrev(ours)(x), torch.func.jacrev(plain)(x))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(ours(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(dual, torch.func.jvp(plain, (x,), (tangent,))[1])
