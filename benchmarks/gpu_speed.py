"""Step (b) of benchmarks/gpu.py: how fast operations, synthesis and the search of a whole scan are.

Operations are compared with torch's own composed ones, value and gradient together, and with the measured bandwidth:
the bytes that they must read and write at the least. A synthesis step is an image and its gradient to W+, compared
with the measured rate of a large matrix product. The search is that of `brgm-med sr`: all slices of the shipped prior's
box together, given slices 6 mm thick of a head that was drawn from the prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.corruptions import SliceProfile, StackAsVolume
from brgm_med.corruptions.profile import profile_matrix
from brgm_med.energies import GaussMarkov, Pixel
from brgm_med.metrics import psnr
from brgm_med.ops import bias_act, fir_filter, modulated_epilogue, upfirdn2d
from brgm_med.ops.resample import specification
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import gauss_markov, load
from brgm_med.solvers import fit_lbfgs
from gpu_step import Step, arguments, device, machine, say
from rates import NETWORKS, Operations, bandwidth, finish, network, product_rate, seconds

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]
BATCHES = [1, 4, 16, 64]
THICKNESS = 6.0
SEARCH_STEPS = 25
NOISE = 0.08


def short(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def resample(up: int, down: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`upfirdn2d` by the network's filter, and the same of torch's own operations."""
    padding = (2, 1, 2, 1) if up == 2 else (1, 1, 1, 1) if down == 2 else (2, 1, 2, 1)
    taps = fir_filter()

    def composed(x: Tensor) -> Tensor:
        return specification(x, taps.to(x), (up, up), (down, down), padding)

    return lambda x: upfirdn2d(x, taps, up=up, down=down, padding=padding, flip_filter=True), composed


def operations(shape: tuple[int, int, int, int], at: torch.device, precision: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Name, ours, torch's composed ones, bytes at the least of value and gradient."""
    n, c, h, w = shape
    size = torch.empty(0, dtype=precision).element_size() * n * c * h * w
    bias = torch.randn(c, device=at).to(precision)
    wide = torch.promote_types(precision, torch.float32)
    parts = (torch.rand(n, c, device=at).to(wide) + 0.5, bias.to(wide))
    noise, strength = torch.randn(1, h, w, device=at).to(wide), torch.tensor(0.7, device=at, dtype=wide)

    def acted(x: Tensor) -> Tensor:
        return F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)

    def epilogue(x: Tensor) -> Tensor:
        d = parts[0][:, :, None, None].to(precision)
        shifted = x * d + bias[:, None, None] + (noise * strength).to(precision)[:, None]
        return F.leaky_relu(shifted, 0.2) / d

    yield "bias_act", lambda x: bias_act(x, bias, act="lrelu"), acted, 5 * size
    yield "modulated_epilogue", lambda x: modulated_epilogue(x, *parts, noise, strength), epilogue, 5 * size
    for up, down in ((1, 1), (2, 1), (1, 2)):
        results = size * up**2 / down**2
        yield f"upfirdn2d up {up} down {down}", *resample(up, down), 2 * (size + results)


def compare_operations(step: Step, at: torch.device, until: float) -> None:
    """A row for each operation, size and precision, largest sizes first."""
    rows = step.results.setdefault("operations", [])
    shapes = [(8, 64, 256, 256), (16, 512, 32, 32)] if at.type == "cuda" else [(1, 32, 64, 64)]
    for shape in shapes:
        for precision in [torch.bfloat16, torch.float32, torch.float16][: 3 if at.type == "cuda" else 2]:
            x = torch.randn(shape, device=at).to(precision).to(memory_format=torch.channels_last).requires_grad_()
            for name, ours, composed, least in operations(shape, at, precision):
                dy = torch.ones_like(ours(x))

                def both(f: Callable[[Tensor], Tensor], x: Tensor = x, dy: Tensor = dy) -> Callable[[], object]:
                    return lambda: torch.autograd.grad(f(x), x, dy)

                mine, theirs = (seconds(both(f), at, 0.05) for f in (ours, composed))
                row = {"name": name, "shape": list(shape), "precision": short(precision)}
                row |= {"ours": mine, "composed": theirs, "of bandwidth": least / mine / step.results["bandwidth"]}
                rows.append(row)
                say(f"(b) {name} {list(shape)} {short(precision)}: {mine * 1e6:.0f} us, torch {theirs * 1e6:.0f} us")
                if step.left() < until:
                    step.save()
                    return
            step.save()


def time_synthesis(step: Step, name: str, at: torch.device, until: float) -> None:
    """A row for each precision and batch that fits memory and time."""
    rows = step.results.setdefault("synthesis", [])
    generator = network(name).to(at).to(memory_format=torch.channels_last)
    for precision in (torch.bfloat16, torch.float32):
        for batch in BATCHES:
            if step.left() < until:
                return
            ws = torch.randn(batch, generator.num_ws, generator.w_dim, device=at, requires_grad=True)

            def once(ws: Tensor = ws, precision: torch.dtype = precision) -> object:
                return torch.autograd.grad(generator.synthesis(ws, dtype=precision).square().sum(), ws)

            row: dict[str, Any] = {"network": name, "precision": short(precision), "batch": batch}
            rows.append(row)
            try:
                if at.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                took = seconds(once, at)
                with Operations() as counter:
                    once()
                finish(at)
            except torch.OutOfMemoryError:
                row["failed"] = "does not fit the memory"
                torch.cuda.empty_cache()
                break
            work = counter.total / took
            row |= {
                "seconds": took,
                "gflop": counter.total / 1e9,
                "of product": work / step.results["products"][short(precision)],
            }
            row["memory"] = torch.cuda.max_memory_allocated() / 1e9 if at.type == "cuda" else None
            say(f"(b) {name} {short(precision)} batch {batch}: {took / batch * 1e3:.2f} ms an image")
            step.save()


def search(step: Step, at: torch.device) -> None:
    """Seconds of the search, and how much nearer it comes to the head that was drawn."""
    prior = load()
    whitened = prior.whitened(at)
    heads = prior.grid_shape[1]
    drawn = gauss_markov(whitened.correlation.cpu(), heads, torch.Generator().manual_seed(0))[:, None].to(at)
    with torch.no_grad():
        truth = whitened.synthesis(drawn)
    fine, coarse = truth.shape[2], round(truth.shape[2] * prior.spacing / THICKNESS)
    matrix = profile_matrix(fine, prior.spacing, coarse, THICKNESS, THICKNESS, "gaussian")
    corruption = nn.Sequential(StackAsVolume(), SliceProfile((None, matrix, None))).to(at)
    noise = 0.02 * torch.randn(corruption(truth).shape, generator=torch.Generator().manual_seed(1))
    measured = corruption(truth) + noise.to(truth)
    normal = (GaussMarkov(whitened.correlation),)
    posterior = Posterior(whitened, corruption, measured, (Pixel(0.5 / NOISE**2),), normal, noise="none", coupled=True)
    start = torch.zeros_like(drawn)

    def sought(steps: int) -> Tensor:
        return fit_lbfgs(posterior, start, steps=steps, curvature=whitened.curvature).image

    before = float(psnr(sought(1), truth, 2.0).mean())
    finish(at)
    begun = step.left()
    after = float(psnr(sought(SEARCH_STEPS), truth, 2.0).mean())
    finish(at)
    took = begun - step.left()
    step.results["search"] = {"slices": heads, "steps": SEARCH_STEPS, "seconds": took, "psnr": [before, after]}
    say(f"(b) search of {heads} slices, {SEARCH_STEPS} steps: {took:.2f} s, {before:.2f} to {after:.2f} dB")
    step.save()


def page(results: dict[str, Any]) -> list[str]:
    """The step's part of the page."""
    lines = []
    if "bandwidth" in results:
        products = ", ".join(f"{k} {v / 1e12:.3g} TFLOP/s" for k, v in results.get("products", {}).items())
        lines += [
            f"A copy moves {results['bandwidth'] / 1e9:.0f} GB/s (read and written); matrix products: {products}."
        ]
    if results.get("convolutions in TF32"):
        lines += ["Convolutions of float32 are made in TF32, torch's default; products are not."]
    if "search" in results:
        s = results["search"]
        lines += [
            f"Search of a whole scan ({s['slices']} slices, {s['steps']} steps, float32): {s['seconds']:.2f} s, "
            f"from {s['psnr'][0]:.2f} to {s['psnr'][1]:.2f} dB."
        ]
    lines += [f"**Failed**: {text}." for text in results.get("failures", [])]
    lines += ["", "| operation and gradient | shape | precision | ours, us | torch's, us | ratio | of the bandwidth |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in results.get("operations", []):
        lines += [
            f"| {r['name']} | {r['shape']} | {r['precision']} | {r['ours'] * 1e6:.0f} | {r['composed'] * 1e6:.0f} | "
            f"{r['composed'] / r['ours']:.2f} | {r['of bandwidth']:.0%} |"
        ]
    lines += ["", "| network | precision | batch | ms an image | GFLOP an image | of the product's rate | GB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in results.get("synthesis", []):
        if "seconds" not in r:
            lines += [f"| {r['network']} | {r['precision']} | {r['batch']} | {r.get('failed', 'cut')} | | | |"]
            continue
        memory = "" if r["memory"] is None else f"{r['memory']:.1f}"
        lines += [
            f"| {r['network']} | {r['precision']} | {r['batch']} | {r['seconds'] / r['batch'] * 1e3:.3g} | "
            f"{r['gflop'] / r['batch']:.2f} | {r['of product']:.0%} | {memory} |"
        ]
    return lines


def main() -> None:
    options = arguments(__doc__)
    step, at = Step(options.results, options.seconds, begun=options.since), device()
    step.results |= machine()
    step.results["bandwidth"] = bandwidth(at)
    step.results["convolutions in TF32"] = at.type == "cuda" and torch.backends.cudnn.allow_tf32
    step.results["products"] = {
        short(p): product_rate(at, p) for p in PRECISIONS if at.type == "cuda" or p != torch.float16
    }
    step.save()
    parts: list[tuple[str, Callable[[], None]]] = [
        ("operations", lambda: compare_operations(step, at, 0.7 * options.seconds)),
        ("search", lambda: search(step, at)),
        *((n, lambda n=n: time_synthesis(step, n, at, 0.05 * options.seconds)) for n in ("prior", *NETWORKS)),
    ]
    for name, part in parts:
        try:
            part()
        except Exception as error:  # one part that fails leaves the others theirs
            text = (str(error).strip().splitlines() or [""])[0][:200]
            step.results.setdefault("failures", []).append(f"{name}: {type(error).__name__}: {text}")
            say(f"(b) {name} failed: {type(error).__name__}: {text}")
        step.save()
        if step.left() < 0.05 * options.seconds:
            break


if __name__ == "__main__":
    main()
