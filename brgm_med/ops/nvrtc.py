"""Kernels compiled at run time by NVRTC and launched through the driver: no nvcc, no host compiler, no torch ABI.

`cuda.bindings`, which comes with torch's CUDA wheels, is imported when the first kernel is launched. Where it or
NVRTC is missing, or refuses, `launch` warns once and answers False from then on: callers take the reference path.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from brgm_med.ops import kernel_cache

BLOCK = 256  # threads of a block, as the kernels' launch bounds say


@dataclass(frozen=True)
class Kernel:
    """Function `name` of the file `source` in this package, with macros (name, value) defined."""

    source: str
    name: str
    macros: tuple[tuple[str, str], ...] = ()


class Refused(RuntimeError):
    """NVRTC is missing or does not compile."""


@functools.cache
def sources() -> dict[str, str]:
    """The text of every kernel source and header, by file name."""
    files = sorted(resources.files("brgm_med.ops").iterdir(), key=lambda file: file.name)
    return {file.name: file.read_text() for file in files if file.name.endswith((".cu", ".cuh"))}


def _bindings() -> tuple[Any, Any]:
    """The modules (nvrtc, driver). Raises ImportError."""
    from cuda.bindings import driver, nvrtc

    return nvrtc, driver


def _checked(answer: tuple[Any, ...]) -> Any:
    """The value of a call's answer (error, value...). Raises Refused."""
    error, *values = answer
    if int(error) != 0:
        raise Refused(f"{error.name}")
    return values[0] if values else None


@functools.cache
def version() -> str:
    """NVRTC's version. Raises Refused, saying why, where it cannot be loaded."""
    try:
        nvrtc, _ = _bindings()
        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, OSError, RuntimeError) as reason:
        raise Refused(f"NVRTC is missing: {str(reason).splitlines()[0]}") from None
    _checked((error,))
    return f"{major}.{minor}"


def architecture(capability: tuple[int, int]) -> str:
    """`sm_XY` for a device that NVRTC knows; else `compute_XY`, the newest before it, which the driver translates.

    Raises Refused for a device older than all that NVRTC knows.
    """
    known: list[int] = _checked(_bindings()[0].nvrtcGetSupportedArchs())
    wanted = 10 * capability[0] + capability[1]
    older = [arch for arch in known if arch <= wanted]
    if not older:
        raise Refused(f"NVRTC {version()} knows no device as old as sm_{wanted}")
    return f"sm_{wanted}" if wanted in known else f"compute_{max(older)}"


def options(kernel: Kernel, arch: str) -> list[str]:
    """Options of NVRTC, beside the sources."""
    macros = [f"--define-macro={name}={value}" for name, value in kernel.macros]
    return ["--std=c++17", f"--gpu-architecture={arch}", *macros]


def compile(kernel: Kernel, arch: str, extra: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """(binary or PTX, the compiler's report) of `kernel`. Raises Refused with the report."""
    nvrtc, _ = _bindings()
    headers = {name: text for name, text in sources().items() if name.endswith(".cuh")}
    program = _checked(
        nvrtc.nvrtcCreateProgram(
            sources()[kernel.source].encode(),
            kernel.source.encode(),
            len(headers),
            [text.encode() for text in headers.values()],
            [name.encode() for name in headers],
        )
    )
    try:
        asked = [option.encode() for option in (*options(kernel, arch), *extra)]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(asked), asked)
        report = bytes(_checked(nvrtc.nvrtcGetProgramLogSize(program)))  # filled in place, as `code` below
        _checked(nvrtc.nvrtcGetProgramLog(program, report))
        log = report.rstrip(b"\0 \n").decode(errors="replace")
        if int(error) != 0:
            raise Refused(f"{kernel.source} for {arch}: {log}")
        form = "CUBIN" if arch.startswith("sm_") else "PTX"
        code = bytes(_checked(getattr(nvrtc, f"nvrtcGet{form}Size")(program)))
        _checked(getattr(nvrtc, f"nvrtcGet{form}")(program, code))
        return code, log
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def compiled(kernel: Kernel, arch: str) -> bytes:
    """`compile`, or what it made of the same sources and options before. Raises Refused."""
    key = kernel_cache.digest(
        version(), *options(kernel, arch), kernel.source, *(t for f in sources().items() for t in f)
    )
    code = kernel_cache.read(key)
    if code is None:
        code, _ = compile(kernel, arch)
        kernel_cache.write(key, code)
    return code


@functools.cache
def _context(device: int) -> Any:
    """torch's own (primary) context of a device. Raises Refused."""
    _, driver = _bindings()
    try:
        return _checked(driver.cuDevicePrimaryCtxRetain(_checked(driver.cuDeviceGet(device))))
    except RuntimeError as reason:
        raise Refused(f"no CUDA driver: {reason}") from None


@functools.cache
def _function(kernel: Kernel, device: int) -> Any:
    """The kernel, loaded on a device. Its context must be current. Raises Refused."""
    _, driver = _bindings()
    code = compiled(kernel, architecture(torch.cuda.get_device_capability(device)))
    return _checked(driver.cuModuleGetFunction(_checked(driver.cuModuleLoadData(code)), kernel.name.encode()))


_lock = threading.Lock()  # backward passes run in threads of their own
_refusal: str | None = None


def refusal() -> str | None:
    """The reason why kernels are not used in this process any more; None while nothing failed."""
    return _refusal


def launch(kernel: Kernel, arguments: ctypes.Structure, threads: int, device: torch.device) -> bool:
    """Queue `threads` threads or a few more on torch's current stream of a CUDA device; False: use the reference.

    Raises RuntimeError when the device itself reports an error: nothing can be computed on it any more.
    """
    if _refusal is not None:
        return False
    if threads == 0:
        return True
    try:
        version()
        _, driver = _bindings()
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            _checked(driver.cuCtxSetCurrent(_context(index)))
            with _lock:
                function = _function(kernel, index)
            stream = torch.cuda.current_stream(index).cuda_stream
            values = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            (error,) = driver.cuLaunchKernel(
                function, blocks(threads), 1, 1, BLOCK, 1, 1, 0, stream, ctypes.addressof(values), 0
            )
    except Refused as reason:
        _refuse(str(reason))
        return False
    if int(error) != 0:
        raise RuntimeError(f"CUDA kernel {kernel.name} of {kernel.source}: {error.name}")
    return True


def _refuse(reason: str) -> None:
    """Warn, once in a process."""
    global _refusal
    _refusal = reason
    warnings.warn(f"custom CUDA kernels are not used, torch's own operations are: {reason}", stacklevel=3)


def blocks(threads: int) -> int:
    """Number of blocks that hold `threads` threads. Raises ValueError beyond CUDA's 2^31 - 1."""
    count = -(-threads // BLOCK)
    if count >= 2**31:
        raise ValueError(f"{threads} threads are more than one launch holds")
    return count
