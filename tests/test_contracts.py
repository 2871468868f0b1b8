"""Every corruption and every operation that the package exports keeps its contract, and so do composed ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from brgm_med import corruptions, ops
from brgm_med.ops import bias_act, fir_filter, modulated_epilogue, upfirdn2d
from tests import contracts
from tests.examples import EXAMPLES, Example, randn

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def exported() -> set[type[nn.Module]]:
    """The corruptions that `brgm_med.corruptions` exports, by class."""
    public = (getattr(corruptions, name) for name in corruptions.__all__)
    return {value for value in public if inspect.isclass(value) and issubclass(value, nn.Module)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("example", [pytest.param(e, id=name) for name, e in EXAMPLES.items()])
def test_a_corruption_is_a_linear_map(example: Example, device: str) -> None:
    contracts.linear_map(example.corruption, example.shape, example.batch, device)


def test_every_exported_corruption_has_an_example_of_its_own() -> None:
    assert exported() <= {type(e.corruption) for e in EXAMPLES.values()}
    assert len(exported()) >= 12


class Scaled(nn.Module):
    """Wrong in one way at a time."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        match self.wrong:
            case "offset":
                return x + 1
            case "adjoint":
                return x + (x - x.detach())
            case "batch":
                return x + x.flip(0)
            case "type":
                return x.double()
        return x.mul_(1)


@pytest.mark.parametrize("wrong", ["offset", "adjoint", "batch", "type"])
def test_the_contract_refuses_what_is_no_corruption(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        contracts.linear_map(Scaled(wrong), (2, 1, 3, 4))


OPERATIONS: dict[str, list[tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]]] = {
    "bias_act": [
        (
            lambda x, b: bias_act(x, b, act="lrelu", gain=1.3),
            lambda x, b: F.leaky_relu(x + b[:, None, None], 0.2) * 1.3,
            [randn(2, 3, 3, 2), randn(3, seed=1)],
        ),
        (
            lambda x, b: bias_act(x, b, act="tanh", gain=-0.7),
            lambda x, b: (x + b[:, None, None]).tanh() * -0.7,
            [randn(2, 3, 3, 2), randn(3, seed=1)],
        ),
    ],
    "modulated_epilogue": [
        (
            modulated_epilogue,
            lambda x, d, b, n, s: (
                F.leaky_relu(x * d[:, :, None, None] + b[:, None, None] + n[:, None] * s, 0.2) / d[:, :, None, None]
            ),
            [randn(2, 3, 2, 4), randn(2, 3, seed=1).abs() + 0.5, randn(3, seed=2), randn(2, 2, 4, seed=3), randn()],
        )
    ],
    "upfirdn2d": [
        (
            lambda x: upfirdn2d(x, fir_filter().double(), up=2, padding=(2, 1, 2, 1), gain=4.0),
            lambda x: 4 * _filtered(_spread(x), (2, 1, 2, 1)),
            [randn(2, 3, 4, 3)],
        ),
        (
            lambda x: upfirdn2d(x, fir_filter().double(), down=2, padding=(1, 1, 1, 1)),
            lambda x: _filtered(x, (1, 1, 1, 1))[:, :, ::2, ::2],
            [randn(2, 3, 5, 4)],
        ),
    ],
}


def _spread(x: Tensor) -> Tensor:
    """Zeros between the samples of x: [N, C, 2 H, 2 W]."""
    n, c, h, w = x.shape
    return F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)


def _filtered(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    taps = fir_filter().double()
    taps = torch.outer(taps, taps) if taps.ndim == 1 else taps
    weight = taps.flip(0, 1).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, padding), weight, groups=x.shape[1])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_composition_with_both_derivatives(name: str) -> None:
    for function, composed, inputs in OPERATIONS[name]:
        contracts.operation(function, composed, inputs)


def test_every_exported_operation_has_an_example() -> None:
    assert set(OPERATIONS) == set(ops.__all__) - {"fir_filter"}


def test_the_contract_refuses_a_wrong_derivative() -> None:
    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
            return 2 * ctx.saved_tensors[0] ** 2 * g

    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        contracts.operation(Cubed.apply, lambda x: x**3, [randn(2, 3)])
