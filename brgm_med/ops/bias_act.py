"""Bias, activation, gain and clamp in one operation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """`clip(gain * act(x + bias), -clamp, clamp)`, of the shape and dtype of `x`.

    `bias` [C] is added along dimension 1. `gain` defaults to the activation's own (square root of 2 for the
    rectifiers). Without `clamp` nothing is clipped.
    """
    function, own_gain = ACTIVATIONS[act]
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([-1 if d == 1 else 1 for d in range(x.ndim)])
    x = function(x)
    gain = own_gain if gain is None else gain
    if gain != 1.0:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
