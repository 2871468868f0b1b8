"""The kernels' sources compiled by the host's g++: the same threads, run one after the other on CPU tensors."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from brgm_med.ops import nvrtc
from brgm_med.ops.nvrtc import BLOCK, Kernel

OPS = Path(nvrtc.__file__).parent


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="brgm-med-host-")  # gone when the process ends


def available() -> bool:
    """Whether there is a g++."""
    return shutil.which("g++") is not None


@functools.cache
def library(source: str, macros: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """A kernel source as a library of loops, every warning an error. Raises RuntimeError with the compiler's report."""
    target = Path(_folder().name) / f"{abs(hash((source, macros))):x}.so"
    defined = [f"-D{name}={value}" for name, value in macros]
    strict = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    command = ["g++", "-x", "c++", *strict, *defined, "-shared", "-fPIC", "-I", OPS, OPS / source, "-o", target]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
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
