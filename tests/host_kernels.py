"""The kernels' sources compiled by the host's g++: the same threads, run one after the other on CPU tensors.

And compiled for every architecture, where NVRTC is installed; the types and tolerances of what they compute.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from brgm_med.ops import nvrtc
from brgm_med.ops.nvrtc import BLOCK, Kernel

OPS = Path(nvrtc.__file__).parent
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
STRICT = ("--ptxas-options=-v", "--ptxas-options=--warning-as-error")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="brgm-med-host-")  # gone when the process ends


@functools.cache
def library(source: str, macros: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """A kernel source as a library of loops, every warning an error. Skips where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    target = Path(_folder().name) / f"{abs(hash((source, macros))):x}.so"
    defined = [f"-D{name}={value}" for name, value in macros]
    strict = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    command = ["g++", "-x", "c++", *strict, *defined, "-shared", "-fPIC", "-I", OPS, OPS / source, "-o", target]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


def launch(kernel: Kernel, arguments: ctypes.Structure, threads: int, device: torch.device) -> bool:
    """`nvrtc.launch` on the host: every thread of every block, those beyond `threads` in the last block included."""
    assert device.type == "cpu"
    if threads:
        function = getattr(library(kernel.source, kernel.macros), kernel.name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_longlong]
        function.restype = None
        function(ctypes.addressof(arguments), nvrtc.blocks(threads) * BLOCK)
    return True


@pytest.fixture
def host_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on the host: an op's CUDA body may be called with CPU tensors."""
    monkeypatch.setattr(nvrtc, "launch", launch)


@pytest.fixture
def installed() -> None:
    try:
        nvrtc.version()
    except nvrtc.Refused as reason:
        pytest.skip(str(reason))


def usage(report: str) -> dict[str, tuple[int, int]]:
    """Entry function -> (registers, bytes spilled), from the assembler's report."""
    found = {}
    for part in report.split("Compiling entry function '")[1:]:
        registers, spilled = (re.search(p, part) for p in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
        assert registers
        assert spilled
        found[part.partition("'")[0]] = (int(registers[1]), int(spilled[1]))
    return found
