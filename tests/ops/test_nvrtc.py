"""Compiling at run time: every kernel for every architecture, the cache on disk, and doing without."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brgm_med.ops import kernel_cache, layout, nvrtc
from brgm_med.ops.bias_act import ACTIVATIONS, _backward, _backward_cuda, _forward, _forward_cuda
from brgm_med.ops.nvrtc import Kernel
from tests.host_kernels import ARCHITECTURES, STRICT, usage
from tests.host_kernels import installed as installed
from tests.house import ROOT

SCALARS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def every_instance() -> Iterator[Kernel]:
    """What the operations ask to be compiled: a file (a kernel of it stands for all) with its macros."""
    for dtype in SCALARS:
        x = torch.empty(0, dtype=dtype)
        for pack in (1, 16 // x.element_size()):
            for act in ACTIVATIONS:
                yield Kernel("bias_act.cu", "forward", layout.macros(x, pack, ACT=act.capitalize()))
            for last in "01":
                yield Kernel("modulated_epilogue.cu", "forward", layout.macros(x, pack, LAST=last))


def chosen_instances() -> Iterator[Kernel]:
    """Those that networks spend their time in, and every activation once."""
    for dtype in SCALARS[:3]:
        x = torch.empty(0, dtype=dtype)
        for last in "01":
            yield Kernel("modulated_epilogue.cu", "forward", layout.macros(x, 16 // x.element_size(), LAST=last))
        yield Kernel("bias_act.cu", "forward", layout.macros(x, 16 // x.element_size(), ACT="Lrelu"))
    for number, act in enumerate(ACTIVATIONS):
        x = torch.empty(0, dtype=SCALARS[number % 4])
        yield Kernel("bias_act.cu", "forward", layout.macros(x, 1, ACT=act.capitalize()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "brgm-med" / "kernels"


def check_compiled(kernel: Kernel, arch: str) -> None:
    """Without a warning or a spill, in few enough registers for 65536 to be shared by 1024 threads or more.

    That is all the threads that a multiprocessor of sm_75 holds, and two thirds of most others'.
    """
    code, report = nvrtc.compile(kernel, arch, STRICT)
    assert code[:4] == b"\x7fELF"
    assert "warning" not in report, report
    used = usage(report)
    assert set(used) == set(re.findall(r"KERNEL\((\w+),", nvrtc.sources()[kernel.source]))
    assert kernel.name in used
    assert max(registers for registers, _ in used.values()) <= (64 if arch == "sm_75" else 48), (kernel, used)
    assert all(spilled == 0 for _, spilled in used.values()), used


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_busy_kernels_compile_for_every_architecture(arch: str) -> None:
    for kernel in chosen_instances():
        check_compiled(kernel, arch)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_compiles_for_every_architecture(arch: str) -> None:
    for kernel in every_instance():
        check_compiled(kernel, arch)
        long = tuple((name, "long long" if name == "INDEX" else value) for name, value in kernel.macros)
        nvrtc.compile(Kernel(kernel.source, kernel.name, long), arch, STRICT)


@pytest.mark.usefixtures("installed")
def test_a_source_that_does_not_compile_is_refused_with_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "sources", lambda: {"broken.cu": "__global__ void k() { return 1 }"})
    with pytest.raises(nvrtc.Refused, match=r"(?s)broken.cu for sm_90: .*expected a"):
        nvrtc.compile(Kernel("broken.cu", "k"), "sm_90")


@pytest.mark.usefixtures("installed")
def test_the_architecture_is_the_devices_own_or_the_newest_before_it() -> None:
    assert nvrtc.architecture((9, 0)) == "sm_90"
    assert re.fullmatch(r"compute_\d+", nvrtc.architecture((99, 0)))
    with pytest.raises(nvrtc.Refused, match="sm_10"):
        nvrtc.architecture((1, 0))
    code, _ = nvrtc.compile(next(chosen_instances()), nvrtc.architecture((99, 0)))
    assert b".target sm_" in code  # text for the driver to translate


@pytest.mark.usefixtures("installed")
def test_a_kernel_is_compiled_once_and_again_when_its_file_was_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(kernel: Kernel, arch: str) -> tuple[bytes, str]:
        made.append(arch)
        return compile_(kernel, arch)

    compile_ = nvrtc.compile
    monkeypatch.setattr(nvrtc, "compile", counted)
    kernel = next(chosen_instances())
    code = nvrtc.compiled(kernel, "sm_90")
    assert nvrtc.compiled(kernel, "sm_90") == code
    assert made == ["sm_90"]
    (file,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o077 == 0
    whole = file.read_bytes()
    for damaged in (whole[:-100], b"", whole[:40], whole[:500] + b"?" + whole[501:], whole[:-1] + b"??"):
        file.write_bytes(damaged)
        made.clear()
        assert nvrtc.compiled(kernel, "sm_90") == code
        assert made == ["sm_90"]
        assert file.read_bytes() == whole
    nvrtc.compiled(kernel, "sm_80")
    changed = {name: text + "\n" for name, text in nvrtc.sources().items()}
    monkeypatch.setattr(nvrtc, "sources", lambda: changed)
    nvrtc.compiled(kernel, "sm_90")
    assert made == ["sm_90", "sm_80", "sm_90"]
    assert len(list(cache.iterdir())) == 3


def test_what_was_written_under_one_key_is_not_read_under_another(cache: Path) -> None:
    kernel_cache.write("one", b"code")
    assert kernel_cache.read("one") == b"code"
    (cache / "one").rename(cache / "other")
    assert kernel_cache.read("other") is None
    assert kernel_cache.digest("ab", "c") != kernel_cache.digest("a", "bc")


def test_a_folder_that_others_can_write_is_not_trusted(cache: Path) -> None:
    kernel_cache.write("key", b"code")
    cache.chmod(0o777)
    assert kernel_cache.read("key") is None
    kernel_cache.write("new", b"code")
    assert [file.name for file in cache.iterdir()] == ["key"]


def test_a_cache_that_cannot_be_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kernel_cache.write("key", b"code")
    assert kernel_cache.read("key") is None


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without cuda.bindings, in a process that has not launched anything yet."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(nvrtc, "_refusal", None)
    nvrtc.version.cache_clear()
    yield
    nvrtc.version.cache_clear()


@pytest.mark.usefixtures("missing")
def test_without_nvrtc_there_is_one_warning_and_the_reference() -> None:
    x, how = torch.randn(2, 3), ("lrelu", 1.3, None)
    with pytest.warns(UserWarning, match="NVRTC is missing") as given:
        y = _forward_cuda(x, None, *how)
    assert len(given) == 1
    assert torch.equal(y, _forward(x, None, *how))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(_backward_cuda(x, y, None, *how), _backward(x, y, None, *how))
    assert "NVRTC is missing" in str(nvrtc.refusal())


@pytest.mark.cuda
def test_a_source_that_does_not_compile_is_one_warning_and_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_refusal", None)
    monkeypatch.setattr(nvrtc, "sources", lambda: {"bias_act.cu": "broken"})
    nvrtc._function.cache_clear()
    x, how = torch.randn(2, 3, device="cuda"), ("lrelu", 1.3, None)
    with pytest.warns(UserWarning, match="bias_act.cu for") as given:
        y = _forward_cuda(x, None, *how)
    assert len(given) == 1
    assert torch.equal(y, _forward(x, None, *how))


@pytest.mark.cuda
def test_a_launch_is_on_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is queued behind a long one on a side stream sees what that one wrote."""
    monkeypatch.setattr(nvrtc, "_refusal", None)
    x = torch.zeros(1 << 20, 1, device="cuda")
    _forward_cuda(x, None, "lrelu", 1.0, None)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(200_000_000)
        x.fill_(3.0)
        y = _forward_cuda(x, None, "lrelu", 1.0, None)
    torch.cuda.synchronize()
    assert nvrtc.refusal() is None
    assert torch.equal(y, torch.full_like(y, 3.0))


def test_a_grid_holds_every_thread_and_no_more_than_one_surplus_block() -> None:
    for threads in (1, 255, 256, 257, 2**31, 2**39 - 256):
        assert 0 <= nvrtc.blocks(threads) * nvrtc.BLOCK - threads < nvrtc.BLOCK
    assert nvrtc.blocks(0) == 0
    with pytest.raises(ValueError, match="one launch"):
        nvrtc.blocks(2**39)


def test_indices_hold_every_element_and_the_last_blocks_surplus() -> None:
    assert layout.index_type(2**31 - 1) == "unsigned"
    assert layout.index_type(2**31) == "long long"
    for pack in (1, 2, 4, 8):  # the greatest index that a surplus thread forms
        assert nvrtc.blocks(-(-(2**31 - 1) // pack)) * nvrtc.BLOCK * pack < 2**32


def test_elements_a_thread_are_those_of_an_aligned_16_bytes() -> None:
    assert layout.elements_a_thread(64, 2, 0, 160) == 8
    assert layout.elements_a_thread(64, 4, 4096) == 4
    assert layout.elements_a_thread(63, 2, 0) == 1
    assert layout.elements_a_thread(64, 2, 0, 8) == 1
    assert layout.elements_a_thread(0, 8) == 2


def test_integers_have_no_kernels() -> None:
    with pytest.raises(TypeError, match="int64"):
        layout.macros(torch.arange(3), 1)


def test_importing_the_operations_does_not_import_cuda_bindings() -> None:
    """torch itself may import a part of it."""
    code = """
import sys, torch
before = set(sys.modules)
import brgm_med.ops
print([name for name in sys.modules if name.startswith("cuda") and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kernel_sources_are_installed() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    ops = ROOT / "brgm_med" / "ops"
    shipped = {file.name for pattern in data["brgm_med.ops"] for file in ops.glob(pattern)}
    assert {"common.cuh", "bias_act.cu", "modulated_epilogue.cu"} <= shipped
    assert shipped == {file.name for file in ops.glob("*.cu*")} == set(nvrtc.sources())
