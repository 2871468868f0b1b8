"""upfirdn2d's kernels: launch geometry, every thread on the host, compilation for every architecture, and on a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brgm_med.ops import fir_filter, nvrtc, upfirdn2d, upfirdn2d_cuda
from brgm_med.ops.layout import SCALARS
from brgm_med.ops.upfirdn2d_cuda import TILES, Memory, axis, index_type, instance, launched, pack, unrolled
from tests.host_kernels import ARCHITECTURES, STRICT, host_launch, installed, usage
from tests.ops_cases import DEVICE_SHAPE, ORDERS, ROUNDING, check_resampling, definition, filters, images
from tests.ops_cases import RESAMPLED_SHAPES as SHAPES
from tests.ops_cases import RESAMPLINGS as CASES
from tests.ops_cases import Resampling as Case

__all__ = ["host_launch", "installed"]

HOT = [case for case in CASES if unrolled((case[0],) * 2, (case[1],) * 2, case[3])]


@pytest.fixture
def kernels(host_launch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`upfirdn2d` of CPU tensors by the kernels, the derivatives too."""
    monkeypatch.setattr(sys.modules["brgm_med.ops.upfirdn2d"], "resample", launched)


# Geometry.


@pytest.mark.parametrize(("up", "down"), TILES)
def test_tiles_hold_every_result_once_and_begin_at_tap_0(up: int, down: int) -> None:
    for tile, before, results in product(TILES[up, down], range(-5, 6), range(1, 12)):
        a = axis(9, results, 4, up, down, before, tile)
        starts = [a.origin + tile * k for k in range(a.tiles)]
        held = [start + r for start in starts for r in range(tile) if 0 <= start + r < results]
        assert held == list(range(results))
        assert all((start * down - before) % up == 0 for start in starts) or tile == 1 == up
        assert all(start < results and start + tile > 0 for start in starts)


def test_the_generic_instance_has_a_thread_for_every_result() -> None:
    for up, down, before, results in product((1, 2, 3), (1, 2, 3), (-2, 0, 3), (1, 2, 7)):
        a = axis(5, results, 3, up, down, before, 1)
        assert (a.origin, a.tiles) == (0, results)


def test_unrolled_instances_are_those_of_4_x_4_taps_alike_along_both_axes() -> None:
    assert [unrolled((u, u), (d, d), (4, 4)) for u, d in ((1, 1), (2, 1), (1, 2))] == [(1, 1), (2, 1), (1, 2)]
    for up, down, taps in [
        ((2, 2), (2, 2), (4, 4)),
        ((2, 1), (1, 1), (4, 4)),
        ((1, 1), (1, 1), (4, 3)),
        ((3, 3), (1, 1), (4, 4)),
    ]:
        assert unrolled(up, down, taps) is None


def test_packs_are_whole_in_every_stride_and_address() -> None:
    def at(shape: tuple[int, ...], strides: tuple[int, ...], address: int = 0) -> Memory:
        return Memory(shape, strides, address)

    last = at((2, 8, 3, 5), (120, 1, 40, 8))
    assert pack(8, 4, last, last) == 4
    assert pack(8, 2, last, last) == 4
    assert pack(8, 8, last) == 2
    assert pack(8, 4, last, at((2, 8, 3, 5), (120, 1, 40, 8), 8)) == 2
    assert pack(8, 4, last, at((2, 8, 3, 5), (120, 1, 40, 8), 4)) == 1
    assert pack(6, 4, at((2, 6, 3, 5), (90, 1, 30, 6))) == 2
    assert pack(8, 4, at((2, 8, 3, 5), (120, 15, 5, 1))) == 1
    assert pack(8, 4, at((2, 8, 3, 5), (120, 1, 40, 9))) == 1


def test_indices_have_64_bits_from_2_to_the_31_on() -> None:
    def lies(*strides: int) -> Memory:
        return Memory((3, 1, 2, 2), strides, 0)

    assert index_type(10, lies(4, 4, 2, 1)) == "unsigned"
    assert index_type(10, lies(2**30 - 2, 4, 2, 1)) == "unsigned"
    assert index_type(10, lies(2**30, 4, 2, 1)) == "long long"
    assert index_type(10, lies(4, 4, 2, 1), lies(2**40, 4, 2, 1)) == "long long"
    assert index_type(2**31 - nvrtc.BLOCK, lies(4, 4, 2, 1)) == "long long"  # the last block's surplus threads count


def test_an_empty_batch_launches_nothing_and_a_long_axis_is_left_to_the_reference(monkeypatch: Any) -> None:
    monkeypatch.setattr(nvrtc, "launch", None)
    rest: Any = ((1, 1), (1, 1), (1, 1, 1, 1), False, 1.0)
    y = launched(torch.empty(0, 3, 5, 4), fir_filter(), *rest, (3, 4))
    assert y is not None
    assert y.shape == (0, 3, 4, 3)
    long = torch.empty(1).expand(1, 1, 1, 2**30)
    assert launched(long, torch.ones(1, 1), *rest[:2], (0, 0, 0, 0), False, 1.0, (2**30, 1)) is None


# Arithmetic and indices.


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_the_kernels_on_the_host(dtype: torch.dtype, order: str) -> None:
    for case, shape in product(CASES, SHAPES):
        check_resampling(upfirdn2d, images(shape, dtype, order), filters(case[3])[0], case, ROUNDING[dtype])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("case", [*HOT, CASES[-1]])
def test_every_thread_with_indices_of_64_bits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upfirdn2d_cuda, "index_type", lambda *_: "long long")
    for order in ("first", "last"):
        check_resampling(upfirdn2d, images((2, 8, 5, 7), torch.float32, order), filters(case[3])[0], case, 1e-5)


@pytest.mark.usefixtures("host_launch")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file with holes, mapped")
def test_images_that_lie_further_apart_than_32_bits_count(tmp_path: Path) -> None:
    apart = 2**32 + 64
    memory = torch.from_file(str(tmp_path / "holes"), shared=True, size=apart + 64, dtype=torch.float16)
    x = memory.as_strided((2, 1, 5, 7), (apart, 35, 7, 1))
    x.copy_(images((2, 1, 5, 7), torch.float16))
    y = launched(x, fir_filter(), (2, 2), (1, 1), (2, 1, 2, 1), False, 4.0, (14, 10))
    assert y is not None
    exact = definition(x.double(), fir_filter(), 2, 1, (2, 1, 2, 1), False, 4.0)
    torch.testing.assert_close(y.double(), exact, rtol=2e-3, atol=2e-3)


# Compilation.


def instances() -> Iterator[tuple[tuple[int, int] | None, Any]]:
    for (dtype, scalar), hot in product(SCALARS.items(), (None, *TILES)):
        for index, together in product(("unsigned", "long long"), (1, min(4, 16 // dtype.itemsize))):
            yield hot, instance(scalar, index, together > 1, together, hot)


def check_compiled(arch: str, hot: tuple[int, int] | None, kernel: nvrtc.Kernel) -> None:
    """Without a warning; the unrolled ones without a spill and in at most 64 registers (96 for float64): half of the
    threads that a multiprocessor holds, each with several loads in flight."""
    code, report = nvrtc.compile(kernel, arch, STRICT)
    assert code[:4] == b"\x7fELF"
    assert "warning" not in report, report
    registers, spilled = usage(report)["upfirdn2d"]
    if hot is not None:
        assert spilled == 0, kernel
        assert registers <= (96 if ("SCALAR", "double") in kernel.macros else 64), (kernel, registers)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_busy_kernels_compile_for_every_architecture(arch: str) -> None:
    for scalar, together in (("float", 4), ("Half", 4), ("BFloat16", 4)):
        for hot in TILES:
            check_compiled(arch, hot, instance(scalar, "unsigned", True, together, hot))
    check_compiled(arch, None, instance("float", "unsigned", False, 1, None))


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_for_every_architecture(arch: str) -> None:
    for hot, kernel in instances():
        check_compiled(arch, hot, kernel)


# A device.


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("order", ORDERS)
def test_the_kernels_on_a_gpu(dtype: torch.dtype, order: str) -> None:
    for case, shape in product(CASES, [*SHAPES, DEVICE_SHAPE]):
        x = images(shape, dtype, order).to("cuda")
        check_resampling(upfirdn2d, x, filters(case[3])[0], case, ROUNDING[dtype])
    assert nvrtc.refusal() is None


@pytest.mark.cuda
def test_more_than_2_to_the_31_elements_on_a_gpu() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 24 * 2**30:
        pytest.skip("needs 24 GiB")
    x = torch.zeros(3, 1, 26755, 26755, dtype=torch.bfloat16, device="cuda")
    corner: Tensor = images((1, 1, 40, 50), torch.bfloat16).to("cuda")
    x[2:, :, -40:, -50:] = corner
    y = upfirdn2d(x, fir_filter(), padding=(1, 2, 1, 2))
    exact = definition(corner.double(), fir_filter().to("cuda"), 1, 1, (1, 2, 1, 2), False, 1.0)
    torch.testing.assert_close(y[2:, :, -40:, -50:].double(), exact, rtol=1e-2, atol=1e-2)
