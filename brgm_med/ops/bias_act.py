"""Bias, activation, gain and clamp in one operation, with both derivatives."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.ops import layout, nvrtc
from brgm_med.ops.library import register

_ROOT2 = math.sqrt(2.0)

# name -> (activation, the gain that about keeps the variance of a unit normal input)
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, _ROOT2),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), _ROOT2),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (F.silu, _ROOT2),
}

_SCALE, _NEGATIVE = 1.0507009873554804934, 1.0507009873554804934 * 1.6732632423543772848  # of selu

# Of the piecewise linear ones: the slope where the result is not positive.
_SLOPES = {"linear": 1.0, "relu": 0.0, "lrelu": 0.2}

# Of the others: act' and its derivative as functions of a = act(v), of which each is the derivative with respect to
# its own argument; of swish as functions of v.
_CURVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "tanh": (lambda a: 1 - a * a, lambda a: -2 * a),
    "sigmoid": (lambda a: a * (1 - a), lambda a: 1 - 2 * a),
    "elu": (lambda a: torch.where(a > 0, 1, a + 1), lambda a: (a <= 0).to(a.dtype)),
    "selu": (lambda a: torch.where(a > 0, _SCALE, a + _NEGATIVE), lambda a: (a <= 0).to(a.dtype)),
    "softplus": (lambda a: torch.where(a > 20, 1, -torch.expm1(-a)), lambda a: torch.where(a > 20, 0, torch.exp(-a))),
    "swish": (
        lambda v: v.sigmoid() * (1 + v * (1 - v.sigmoid())),
        lambda v: v.sigmoid() * (1 - v.sigmoid()) * (2 + v * (1 - 2 * v.sigmoid())),
    ),
}


def bias_act(
    x: Tensor, bias: Tensor | None = None, *, act: str = "linear", gain: float | None = None, clamp: float | None = None
) -> Tensor:
    """`clip(gain * act(x + bias), -clamp, clamp)`, of the shape and dtype of `x`.

    `bias` [C] is added along dimension 1. `gain` defaults to the activation's own (square root of 2 for the
    rectifiers). Without `clamp` nothing is clipped; at the clamp itself the derivative is 0. Twice differentiable.
    Raises KeyError for an unknown activation, ValueError for a bias of another length than C.
    """
    gain = ACTIVATIONS[act][1] if gain is None else gain
    if bias is not None and bias.dtype != x.dtype:
        bias = bias.to(x.dtype)
    if act == "linear" and gain == 1.0 and clamp is None:  # nothing to do in one pass
        return _added(x, bias)
    if gain > 0:  # which makes the activation's value, and with it its slope, a function of the result
        result: Tensor = _bias_act(x, bias, act, gain, clamp)
    else:
        result = _bias_act(x, bias, act, -gain or 1.0, clamp) * math.copysign(float(gain != 0), gain)
    return result


def _added(x: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return x
    _check(x, bias)
    return x + bias.reshape([-1 if d == 1 else 1 for d in range(x.ndim)])


def _check(x: Tensor, bias: Tensor) -> None:
    if x.ndim < 2 or bias.shape != x.shape[1:2]:
        raise ValueError(f"a bias of {list(bias.shape)} for a tensor of {list(x.shape)}")


def _forward(x: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None) -> Tensor:
    """The specification."""
    y = ACTIVATIONS[act][0](_added(x, bias))
    if gain != 1.0:
        y = y * gain
    elif y is x:
        y = x.clone()  # an operation's result is a tensor of its own
    return y if clamp is None else y.clamp(-clamp, clamp)


def _backward(dy: Tensor, saved: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None) -> Tensor:
    """dx = dy gain act'(x + bias), or 0 where the result was clipped. `saved` is y, for swish x."""
    if act in _SLOPES:
        dy = dy if gain == 1.0 else dy * gain
        dx = torch.ops.aten.leaky_relu_backward(dy, saved, _SLOPES[act], True)
        return dx if clamp is None else dx * _inside(saved, clamp)
    at, inside = _reckoned(saved, bias, act, gain, clamp)
    return (_CURVES[act][0](at) * gain * inside * dy).to(dy.dtype)


def _second(
    ddx: Tensor, dy: Tensor, saved: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None
) -> Tensor:
    """The derivative of <ddx, dx> by `saved`: of gain act' by y = gain a, where the gains cancel; for swish by x."""
    if act in _SLOPES:
        return torch.zeros_like(saved)
    at, inside = _reckoned(saved, bias, act, gain, clamp)
    return (_CURVES[act][1](at) * (gain if act == "swish" else 1.0) * inside * dy * ddx).to(dy.dtype)


def _inside(y: Tensor, clamp: float) -> Tensor:
    """True where `y` is not at the clamp, which lies where rounding to the type of `y` has put it."""
    mantissa, exponent = math.frexp(clamp)
    digits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}.get(y.dtype, 53)
    return y.abs() < math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)


def _reckoned(
    saved: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None
) -> tuple[Tensor, Tensor | float]:
    """Argument of the curves, in float32 at least, and 1 where the result was not clipped."""
    wide = saved.to(torch.promote_types(saved.dtype, torch.float32))
    at = _added(wide, bias) if act == "swish" else wide / gain
    if clamp is None:
        return at, 1.0
    return at, _inside(F.silu(at) * gain if act == "swish" else saved, clamp).to(at.dtype)


class _Arguments(ctypes.Structure):
    """`Arguments` of bias_act.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("result", "first", "second", "saved", "bias")),
        *((name, ctypes.c_longlong) for name in ("count", "channels", "inner")),
        *((name, ctypes.c_double) for name in ("gain", "clamp")),
        ("clipped", ctypes.c_int),
    )


def _launched(
    name: str, bias: Tensor | None, act: str, gain: float, clamp: float | None, like: Tensor, **tensors: Tensor
) -> Tensor | None:
    """Output of kernel `name` for `tensors`, in memory as `torch.empty_like(like)`; None if refused."""
    if bias is not None:
        _check(like, bias)
    layout.same_kind(like, *tensors.values(), *(() if bias is None else (bias,)))
    last = layout.is_channels_last(like)
    inputs = {key: layout.dense(value, last) for key, value in tensors.items()}
    bias = None if bias is None else bias.contiguous()
    answer = torch.empty_like(like)
    result = layout.dense(answer, last)  # itself, or for orders that kernels do not know another
    addresses = {key: value.data_ptr() for key, value in inputs.items()} | {"result": result.data_ptr()}
    pack = layout.elements_a_thread(like.numel(), like.element_size(), *addresses.values())
    arguments = _Arguments(
        count=like.numel(),
        channels=like.shape[1] if like.ndim > 1 else 1,
        inner=1 if last else math.prod(like.shape[2:]),
        gain=gain,
        clamp=clamp or 0.0,
        clipped=clamp is not None,
        bias=None if bias is None else bias.data_ptr(),
        **addresses,
    )
    kernel = nvrtc.Kernel("bias_act.cu", name, layout.macros(like, pack, ACT=act.capitalize()))
    if not nvrtc.launch(kernel, arguments, like.numel() // pack, like.device):
        return None
    return answer if result is answer else answer.copy_(result)


def _forward_cuda(x: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None) -> Tensor:
    y = _launched("forward", bias, act, gain, clamp, x, first=x)
    return _forward(x, bias, act, gain, clamp) if y is None else y


def _backward_cuda(
    dy: Tensor, saved: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None
) -> Tensor:
    dx = _launched("backward", bias, act, gain, clamp, saved, first=dy, saved=saved)
    return _backward(dy, saved, bias, act, gain, clamp) if dx is None else dx


def _second_cuda(
    ddx: Tensor, dy: Tensor, saved: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None
) -> Tensor:
    result = _launched("second", bias, act, gain, clamp, saved, first=ddx, second=dy, saved=saved)
    return _second(ddx, dy, saved, bias, act, gain, clamp) if result is None else result


def _over_channels(gradient: Tensor) -> Tensor:
    """The gradient of a bias from that of what it was added to."""
    return gradient.sum([d for d in range(gradient.ndim) if d != 1])


def _save_forward(context: Any, arguments: tuple[Any, ...], y: Tensor) -> None:
    x, bias, *context.constants = arguments
    swish = context.constants[0] == "swish"
    context.save_for_backward(x if swish else y, bias if swish else None)


def _derive_forward(context: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    dx = _bias_act_backward(dy, *context.saved_tensors, *context.constants)
    return dx, _over_channels(dx) if context.needs_input_grad[1] else None, None, None, None


def _save_backward(context: Any, arguments: tuple[Any, ...], _: Tensor) -> None:
    dy, saved, bias, *context.constants = arguments
    context.save_for_backward(None if context.constants[0] in _SLOPES else dy, saved, bias)


def _derive_backward(context: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    dy, saved, bias = context.saved_tensors
    needs_dy, needs_saved, needs_bias, *_ = context.needs_input_grad
    by_dy = _bias_act_backward(ddx, saved, bias, *context.constants) if needs_dy else None
    if dy is None or not (needs_saved or needs_bias):
        return by_dy, None, None, None, None, None
    by_saved = _bias_act_second(ddx, dy, saved, bias, *context.constants)
    return by_dy, by_saved, _over_channels(by_saved) if needs_bias else None, None, None, None


def _save_second(context: Any, arguments: tuple[Any, ...], _: Tensor) -> None:
    context.act = arguments[4]


def _derive_second(context: Any, _: Tensor) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(f"bias_act has two derivatives; a third, of {context.act}, was asked for")


_REST = "Tensor? bias, str act, float gain, float? clamp) -> Tensor"
_bias_act = register(f"bias_act(Tensor x, {_REST}", _forward, _forward_cuda, _save_forward, _derive_forward)
_bias_act_backward = register(
    f"bias_act_backward(Tensor dy, Tensor saved, {_REST}", _backward, _backward_cuda, _save_backward, _derive_backward
)
_bias_act_second = register(
    f"bias_act_second(Tensor ddx, Tensor dy, Tensor saved, {_REST}", _second, _second_cuda, _save_second, _derive_second
)
