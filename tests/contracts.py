"""Contracts that every corruption, every format and every operation of the package keeps, each stated once."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brgm_med.consistency import check_linear
from brgm_med.errors import InputRefusedError
from tests.ops_cases import ORDERS, images, ordered

# A corruption.


def adjoint(f: Callable[[Tensor], Tensor], shape: Sequence[int], u: Tensor) -> Tensor:
    """A^T u for the linear map `f` of images of `shape`: the vector-Jacobian product, which no one writes by hand."""
    x = torch.zeros(tuple(shape), dtype=u.dtype, device=u.device, requires_grad=True)
    (back,) = torch.autograd.grad(f(x), x, u)
    return back


def adjoint_is_exact(f: Callable[[Tensor], Tensor], shape: Sequence[int], device: str = "cpu") -> None:
    """<A x, u> = <x, A^T u> for random x and u, to rounding in float64."""
    x = images(shape, seed=0).to(device)
    y = f(x)
    u = images(y.shape, seed=1).to(device)
    difference = (y * u).sum() - (x * adjoint(f, shape, u)).sum()
    assert abs(float(difference)) <= 1e-12 * float(y.norm() * u.norm() + x.norm() * u.norm())


def linear_map(f: nn.Module, shape: Sequence[int], batch: int | None = 0, device: str = "cpu") -> None:
    """The contract of a corruption `f` of images of `shape`, whose first axis is the batch.

    Linear, with an exact adjoint; the measurement has the image's type and device; the image is not changed; nothing is
    trained or saved; a float64 copy exists. `batch` is the axis of the measurement that counts the images of a batch:
    each is measured alone. None: neighbouring images share a measurement.
    """
    f = copy.deepcopy(f).to(device)
    adjoint_is_exact(f, shape, device)
    x, z = images(shape, seed=2).to(device), images(shape, seed=3).to(device)
    before = x.clone()
    y = f(x)
    torch.testing.assert_close(f(2 * x - 3 * z), 2 * y - 3 * f(z), rtol=1e-9, atol=1e-9)
    check_linear(f, x)
    assert torch.equal(x, before)
    assert (y.dtype, y.device) == (x.dtype, x.device)
    single = f(x.float())
    assert (single.dtype, single.device) == (torch.float32, x.device)
    torch.testing.assert_close(single, copy.deepcopy(f).double()(x.float().double()).float(), rtol=1e-4, atol=1e-4)
    assert not list(f.parameters())
    assert not f.state_dict()
    if batch is not None:
        assert y.shape[batch] == len(x) > 1
        for i in range(len(x)):
            torch.testing.assert_close(y.narrow(batch, i, 1), f(x[i : i + 1]), rtol=0, atol=1e-13)


# A format.


def round_trip(
    path: Path,
    write: Callable[[Path], NDArray[Any]],
    read: Callable[[Path], Any],
    values: NDArray[Any],
    affine: NDArray[np.float64] | None = None,
    header: Callable[[Any], Any] = lambda _: None,
    expected: Any = None,
) -> Any:
    """The contract of a format: `write(path)`, a file or a folder, then `read(path)`; returns what was read.

    `write` returns the values that the file has: these are `values`, and `read` gives them bit by bit in float32, on a
    grid whose corners are those of `affine` within 1e-3 mm. `header` of what was read is `expected`. Written again, it
    has the same bytes. Nothing else is left beside it. An output that exists is refused and stays as it was. A file
    that is empty or cut short is refused in one line.
    """
    others = set(path.parent.iterdir())
    stored = write(path)
    assert set(path.parent.iterdir()) - others == {path}
    read_back = read(path)
    np.testing.assert_array_equal(stored.astype(np.float32), values.astype(np.float32))
    np.testing.assert_array_equal(read_back.array, values.astype(np.float32))
    assert read_back.array.dtype == np.float32
    if affine is not None:
        corners = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in values.shape), [1.0], indexing="ij")).reshape(4, -1)
        assert np.linalg.norm((read_back.affine - affine)[:3] @ corners, axis=0).max() < 1e-3
    assert header(read_back) == expected
    content = _content(path)
    with pytest.raises(InputRefusedError, match="exists already"):
        write(path)
    assert _content(path) == content
    again = path.with_name(f"again-{path.name}")
    write(again)
    assert list(_content(again).values()) == list(content.values())
    (last, *_) = sorted(_content(again), reverse=True)
    whole = last.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 20):
        last.write_bytes(whole[:size])
        refused(read, again)
    shutil.rmtree(again) if again.is_dir() else again.unlink()
    assert set(path.parent.iterdir()) - others == {path}
    return read_back


def _content(path: Path) -> dict[Path, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file: file.read_bytes() for file in files if file.is_file()}


def refused(read: Callable[[Path], Any], path: Path, says: str = "") -> None:
    """`read(path)` is refused in one line: the path, once, what is wrong, which holds `says`, and what to do."""
    with pytest.raises(InputRefusedError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(str(path) if path.is_dir() else f"{path}: "), line
    assert line.count(str(path)) == 1, line
    assert "\n" not in line, line
    assert "; " in line, line
    assert says in line, line


# An operation.


def derivatives(function: Callable[..., Tensor], inputs: Sequence[Tensor], fast: bool = False) -> None:
    """First and second derivatives of `function` are those of finite differences, in float64."""
    assert all(t.dtype == torch.float64 for t in inputs)
    leaves = tuple(t.detach().clone().requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=fast)


def operation(function: Callable[..., Tensor], composed: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """The contract of an operation whose first input is a batch: `composed` is the same of plain torch operations.

    Derivatives are those of finite differences; value and first derivatives those of `composed`, in every order in
    memory; an empty batch gives an empty result and gradients of the inputs' shapes, those of the other inputs 0.
    """
    derivatives(function, inputs)
    for order in ORDERS:
        arguments = [ordered(inputs[0], order), *inputs[1:]]
        values, gradients = zip(*(_value_and_gradients(f, arguments) for f in (function, composed)), strict=True)
        torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
        for ours, plain in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    batch = len(inputs[0])
    empty = [t[:0] if t.ndim and len(t) == batch else t for t in inputs]
    y, slopes = _value_and_gradients(function, empty)
    assert y.shape == composed(*empty).shape
    assert y.numel() == 0
    for t, slope in zip(empty, slopes, strict=True):
        assert slope.shape == t.shape
        assert not slope.any()


def _value_and_gradients(f: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = f(*leaves)
    weights = images(y.shape, seed=9).to(y)
    return y.detach(), torch.autograd.grad((y * weights).sum(), leaves)
