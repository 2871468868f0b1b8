"""How fast training is: images a second, and the fraction of the processor's own matrix-multiply rate.

    python benchmarks/training.py [--threads 2] [--precision float32]

Times `train_iteration` on the CPU with the shipped architecture and recipe, over whole cycles of 16 updates, so that
the lazy regularisers count as often as they do in a run: first while there is only reconstruction, then with the
adversary. Images are noise and the perceptual network's weights are random, on which speed does not depend. Operations
are those that convolutions and matrix products were asked for, in all derivatives; the rate to compare with is that of
one large matrix product in the same precision with the same threads. Both are given by the clock and by processor time
(of all threads), which is little disturbed by what else runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from brgm_med.ops.precision import native_precision
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.training.loop import Recipe, train_iteration
from brgm_med.training.state import Architecture, TrainState
from brgm_med.weights import lpips_heads
from rates import Operations

ALEX = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


def perceptual_model() -> LPIPS:
    """LPIPS of AlexNet's shapes, with weights that keep the size of activations."""
    weights = {}
    for index, shape in ALEX.items():
        weights[f"features.{index}.weight"] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(shape[0])
    return LPIPS("alex", weights, lpips_heads("alex"))


def timed(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The least seconds that one call took, by the clock and of processor time."""
    times = []
    for _ in range(repeats):
        clock, busy = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - clock, time.process_time() - busy))
    return min(t[0] for t in times), min(t[1] for t in times)


def matmul_times(precision: torch.dtype, size: int = 2048) -> tuple[float, float]:
    """Seconds an operation of a product of two square matrices takes, by the clock and of processor time."""
    a, b = (torch.randn(size, size).to(precision) for _ in range(2))
    torch.mm(a, b)
    clock, busy = timed(lambda: torch.mm(a, b), 10)
    return clock / (2 * size**3), busy / (2 * size**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["bfloat16", "float32"], help="default: what the processor is good at")
    parser.add_argument("--cycles", type=int, default=2, help="cycles timed, of which the fastest counts")
    options = parser.parse_args()
    set_up_torch(options.threads)
    device = torch.device("cpu")
    precision = getattr(torch, options.precision) if options.precision else native_precision(device)

    recipe = Recipe()
    architecture = Architecture()
    height, width = (n << (len(architecture.generator_channels) - 1) for n in architecture.base_shape)
    stacks = [torch.randn(61, architecture.image_channels, height, width) for _ in range(8)]
    perceptual = perceptual_model()
    updates = max(recipe.r1_every, recipe.path_every)
    peaks = [matmul_times(precision)]
    results = []
    for phase, reconstruction_only in (("reconstruction", 1 << 60), ("adversarial", 0)):
        state = TrainState.new(architecture, seed=0, rate=recipe.rate)
        played = replace(recipe, reconstruction_only=reconstruction_only)

        def cycle(state: TrainState = state, played: Recipe = played) -> None:
            for _ in range(updates):
                train_iteration(state, played, stacks, perceptual, precision)

        with Operations() as counter:
            cycle()
        clock, busy = (t / (updates * recipe.batch) for t in timed(cycle, options.cycles))
        results.append((phase, counter.total / (updates * recipe.batch), clock, busy))
        peaks.append(matmul_times(precision))
    peak_clock, peak_busy = (min(t) for t in zip(*peaks, strict=True))

    name = str(precision).removeprefix("torch.")
    print(f"{height}x{width}, batch {recipe.batch}, {name}, {options.threads} threads")
    print(f"matrix product: {1e-9 / peak_clock:.0f} GFLOP/s, {1e-9 / peak_busy:.0f} a second of processor time")
    for phase, operations, clock, busy in results:
        print(
            f"{phase:14}  {1 / clock:5.1f} images/s  {busy * 1e3:5.1f} ms of processor time an image  "
            f"{operations / 1e9:.2f} GFLOP an image  {operations * peak_clock / clock:.0%} of the product's rate "
            f"({operations * peak_busy / busy:.0%} by processor time)"
        )


if __name__ == "__main__":
    main()
