"""Floating-point format that a device multiplies fastest, found by measurement."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from brgm_med.ops import kernel_cache

REPEATS = 3
MARGIN = 1.1
"""By so much bfloat16 must be faster: less is noise, and float32 is the more accurate."""


def native_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` convolves and multiplies faster in it, else float32.

    Decided by `seconds` of both formats, about 50 ms, once per process; the answer is kept per processor and version
    of torch in the user's cache folder, without which it is only measured again. The flags of a processor do not
    tell: of two that have avx512_bf16, one multiplies bfloat16 at twice the rate of float32, one at half of it.
    """
    return _measured(device.type, _processor(device))


@cache
def _measured(kind: str, processor: str) -> torch.dtype:
    key = kernel_cache.digest("precision", processor, torch.__version__)
    known = kernel_cache.read(key)
    if known is None:
        device = torch.device(kind)
        times = {name: seconds(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
        known = json.dumps({"processor": processor, "seconds": times}).encode()
        kernel_cache.write(key, known)
    times = json.loads(known)["seconds"]
    return torch.bfloat16 if MARGIN * times["bfloat16"] < times["float32"] else torch.float32


def seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Time of one 3 x 3 convolution of 8 images [128, 20, 24], channels last, and one product of 512 x 512 matrices:
    the shapes on which training spends its time on a processor. On a GPU 256 images and 4096 x 4096, which keep it
    busy for longer than a launch takes. Each is the least of `REPEATS`, after a first that is not timed."""
    images, size = (256, 4096) if device.type == "cuda" else (8, 512)
    image = torch.ones(images, 128, 20, 24, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(128, 128, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    with torch.no_grad():
        convolution = _least(lambda: torch.conv2d(image, weight, padding=1), device)
        return convolution + _least(lambda: matrix @ matrix, device)


def _least(operation: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        operation()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def _processor(device: torch.device) -> str:
    """Name of the processor: on Linux its family, model, stepping and flags, without what changes from boot to boot."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        entries = {key.strip(): value for key, _, value in (line.partition(":") for line in first.splitlines())}
        chosen = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
        return "\n".join(f"{name}:{entries.get(name, '')}" for name in chosen)
    return f"{platform.machine()} {platform.processor()}"
