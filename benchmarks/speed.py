"""How fast reconstruction is, as ratios in one run: ours against synthesis as published PyTorch code computes it.

    python benchmarks/speed.py [--threads 2] [--only 256 128 1024 prior] [--batches 1 8 32] [--reference DIR]

A step is one pass of the generator and the gradient of a sum of squares to W+, with frozen weights. The baseline
(plain.py) has weights per image and channels first, in float32, one image at a time; both compute the same image, which
is checked first. Networks: 256 x 256 (24.8 M parameters) and 128 x 128, grey; 1024 x 1024 RGB (the paper's config F,
one image); the shipped prior. Every line is measured in processes of its own, so that its peak memory is its own. The
fraction is of the rate of one large matrix product with the same threads in the same precision, of all operations of
convolutions and matrix products that ours asks for (the baseline's gradient also passes through weights of every
image).

`--reference DIR` takes the published networks themselves as the baseline: DIR is a clone of them that has
`training/networks.py` with `SynthesisNetwork` (StyleGAN2-ADA in PyTorch). Its weights are random, so images are not
compared, but numbers of parameters are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import plain
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.ops.precision import native_precision
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from rates import Operations, network
from training import matmul_times

PUBLISHED = {
    "128": {"img_resolution": 128, "img_channels": 1, "channel_base": 16384},
    "256": {"img_resolution": 256, "img_channels": 1, "channel_base": 16384},
    "1024": {"img_resolution": 1024, "img_channels": 3, "channel_base": 32768},
}
"""Arguments of the published `SynthesisNetwork` for the networks of `rates.NETWORKS`."""

SECONDS = 6.0  # for which a step is repeated, three times at least


def published(folder: str, name: str) -> torch.nn.Module:
    """The synthesis network of a clone of the published code, with random weights, as large as ours."""
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("published_networks", Path(folder) / "training" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs: torch.nn.Module = module.SynthesisNetwork(w_dim=512, **PUBLISHED[name]).eval().requires_grad_(False)
    counts = [sum(p.numel() for p in net.parameters()) for net in (theirs, network(name).synthesis)]
    if counts[0] != counts[1]:
        raise SystemExit(f"{folder}: its network of {name} has {counts[0]} parameters, ours {counts[1]}")
    return theirs


def step_of(generator: StyleGAN2, which: str, batch: int, reference: torch.nn.Module | None) -> Callable[[], Tensor]:
    """One step on `batch` images; it returns the gradient."""
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(1))
    if which == "plain":

        def image(w: Tensor) -> Tensor:
            answer: Tensor = plain.synthesis(generator, w) if reference is None else reference(w, noise_mode="const")
            return answer

        def gradient_of_one(w: Tensor) -> Tensor:
            w = w[None].requires_grad_(True)
            return torch.autograd.grad(image(w).square().sum(), w)[0]

        return lambda: torch.cat([gradient_of_one(w) for w in ws])
    precision = native_precision(ws.device)
    ws.requires_grad_(True)
    return lambda: torch.autograd.grad(generator.synthesis(ws, dtype=precision).square().sum(), ws)[0]


def measure(name: str, which: str, batch: int, threads: int, folder: str | None) -> dict[str, float]:
    """Seconds of a step (median, and least), its operations, peak memory in GB and the matrix product's rate."""
    if which == "plain":
        torch.set_num_threads(threads)  # and nothing else: as it would run
        generator = network(name)
    else:
        set_up_torch(threads)
        generator = network(name).to(memory_format=torch.channels_last)
    theirs = published(folder, name) if folder and which == "plain" and name in PUBLISHED else None
    step = step_of(generator, which, batch, theirs)
    step()
    step()
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    memory = peak_memory()
    with Operations() as counter:
        step()
    rate = 1 / matmul_times(native_precision(torch.device("cpu")) if which == "ours" else torch.float32)[0]
    found = {"median": statistics.median(times), "least": min(times), "memory": memory}
    return found | {"operations": counter.total, "rate": rate}


def peak_memory() -> float:
    """GB that this process alone had in memory at most; not known but on Linux. A process starts with the record of
    its parent by the usual call."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return float(found[1]) / 1e6 if found else math.nan


def agree(name: str) -> float:
    """The largest difference between the two images of one W+, relative to the image's deviation."""
    generator = network(name)
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    theirs, ours = plain.synthesis(generator, ws), generator.synthesis(ws)
    return float((ours - theirs).abs().max() / theirs.std())


def apart(name: str, which: str, batch: int, threads: int, folder: str | None) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--measure", name, which, str(batch)]
    command += ["--reference", folder] if folder else []
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=[*PUBLISHED, "prior"], default=["256", "128", "1024", "prior"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--reference", metavar="DIR", help="a clone of the published networks")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, which, batch = options.measure
        print(json.dumps(measure(name, which, int(batch), options.threads, options.reference)))
        return
    precision = str(native_precision(torch.device("cpu"))).removeprefix("torch.")
    baseline = options.reference or "plain.py"
    print(f"{options.threads} threads, baseline {baseline}, ours in {precision}; medians, of one image of the batch\n")
    print("| network | batch | plain, ms | ours, ms | ratio | GFLOP | of the product's rate | GB, plain | GB, ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.only:
        difference = agree(name)
        if not difference < 1e-3:
            raise SystemExit(f"{name}: the two images differ by {difference} deviations")
        theirs = apart(name, "plain", 1, options.threads, options.reference)
        for batch in [1] if name == "1024" else options.batches:
            ours = apart(name, "ours", batch, options.threads, None)
            rate, work = ours["operations"] / ours["median"] / ours["rate"], ours["operations"] / batch / 1e9
            print(
                f"| {name} | {batch} | {theirs['median'] * 1e3:.0f} | {ours['median'] / batch * 1e3:.1f} | "
                f"{theirs['median'] / ours['median'] * batch:.1f} | {work:.2f} | {rate:.0%} | "
                f"{theirs['memory']:.1f} | {ours['memory']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
