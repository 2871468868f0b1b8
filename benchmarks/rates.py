"""What the benchmarks of speed share: networks, operations counted, times and rates on any device. Torch alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.priors.bundle import load

NETWORKS: dict[str, dict[str, Any]] = {
    "128": {"channels": (512, 512, 512, 512, 256, 128)},
    "256": {"channels": (512, 512, 512, 512, 256, 128, 64)},
    "1024": {"channels": (512, 512, 512, 512, 512, 256, 128, 64, 32), "image_channels": 3},
}
"""128 x 128 and 256 x 256 grey, the latter with 24.8 M parameters; 1024 x 1024 RGB, config F of the StyleGAN2 paper."""


def network(name: str) -> StyleGAN2:
    """A network of NETWORKS with random weights, or the shipped prior's ("prior"), frozen."""
    torch.manual_seed(0)
    generator = load().generator if name == "prior" else StyleGAN2(**NETWORKS[name])
    for parameter_name, parameter in generator.named_parameters():
        if parameter_name.endswith("noise_strength"):
            parameter.data.fill_(0.1)  # as in a trained network, noise is added
    return generator.eval().requires_grad_(False)


class Operations(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products, in all derivatives too.

    By the formulas of `FlopCounterMode`, which itself cannot run a derivative with respect to an input (R1).
    """

    total = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        formula = flop_registry.get(operator.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def finish(device: torch.device) -> None:
    """Wait for everything that was queued on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device, least: float = 0.2) -> float:
    """The median time of one call, after two that are not counted. On a GPU calls are queued, as many together as
    take about a twentieth of `least`, and waited for; at least three times."""
    function()
    function()
    finish(device)
    begun = time.perf_counter()
    function()
    finish(device)
    once = max(time.perf_counter() - begun, 1e-7)
    together = max(1, int(least / 20 / once))
    times: list[float] = []
    while sum(times) * together < least or len(times) < 3:
        begun = time.perf_counter()
        for _ in range(together):
            function()
        finish(device)
        times.append((time.perf_counter() - begun) / together)
    return statistics.median(times)


def bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by a copy of 1 GiB (on the processor 64 MiB)."""
    count = 2**30 if device.type == "cuda" else 2**26
    a = torch.randn(count // 4, device=device)
    b = torch.empty_like(a)
    return 2 * count / seconds(lambda: b.copy_(a), device)


def product_rate(device: torch.device, precision: torch.dtype) -> float:
    """Operations a second of the product of two square matrices of 8192 (on the processor 1024), random numbers."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    return 2 * size**3 / seconds(lambda: torch.mm(a, b), device)
