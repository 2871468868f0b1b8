"""Registration of an operation with torch: `torch.ops.brgm_med.<name>`.

The body that holds for every device is the specification; CUDA has its kernel; shapes, types and memory orders are
those of the body (or of `fake`) run without values, so torch.compile traces through; derivatives are operations
too. `torch.library.register_autograd` makes the same of them, at 20 µs a call and derivative more than an autograd
function put straight at the Autograd key. Under forward derivatives and torch.func the specification itself is
differentiated, by torch: there an operation would silently have tangents of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("brgm_med", "FRAGMENT")


def transformed() -> bool:
    """True where torch differentiates what is computed now: under forward derivatives and torch.func."""
    return forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


def plain(x: Tensor) -> bool:
    """True where `x` is an ordinary tensor on the CPU, now: nothing traces, transforms or intercepts operations."""
    return type(x) is Tensor and x.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Computation in the types of the operands."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def register(
    schema: str,
    body: Callable[..., Tensor],
    cuda: Callable[..., Tensor],
    save: Callable[[Any, tuple[Any, ...], Tensor], None],
    backward: Callable[..., tuple[Any, ...]],
    fake: Callable[..., Tensor] | None = None,
) -> Any:
    """The operation of that `schema`, "name(Tensor x, ...) -> Tensor".

    All functions take the schema's arguments in order, but `save(context, arguments, result)` and
    `backward(context, gradient)`, which are those of `torch.autograd.Function`; `backward` calls differentiable
    operations only, and gives a gradient, or None, for each argument.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, body, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"brgm_med::{name}", fake or body, lib=_LIBRARY)
    operation = getattr(torch.ops.brgm_med, name).default

    def below(*arguments: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return operation(*arguments)

    def forward(context: Any, *arguments: Any) -> Tensor:
        result = below(*arguments)
        save(context, arguments, result)
        return result

    function = type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )

    def differentiable(*arguments: Any) -> Tensor:
        if transformed():
            return body(*arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return function.apply(*arguments)  # type: ignore[attr-defined]
        return below(*arguments)

    _LIBRARY.impl(name, differentiable, "Autograd")
    return operation
