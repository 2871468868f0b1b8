"""How soon a slice is reconstructed as well as it will be: our default against the published recipe, one at a time.

    python benchmarks/speed_to_quality.py --prepared OUT [--threads 2] [--first 5] [--net vgg]

OUT is the folder of a run of `brgm-med train` that holds heads out. The middle slice of each of its first heads is
degraded by every task and reconstructed by the default search, by 500 steps of Adam, and by the published recipe: 500
steps of Adam with the perceptual term besides, on `--net` at 256 x 256. All go from the mean of the prior, with the
same posterior but for that term. Adam is run with our synthesis; its time with synthesis as published code computes it
(plain.py) is that of one such step, measured here, times the steps. Time to quality is that of the first evaluation
whose image is within 0.1 dB of the last image of the 500 steps, over the slices on which there was one.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import plain
from brgm_med.energies import Perceptual
from brgm_med.metrics import lpips, psnr
from brgm_med.networks.noise import Noise
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.problems import averages
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import slices_of
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.reconstruction import (
    consistent,
    independent_posterior,
    reconstruct_slices,
    solve,
    whitened_generator,
)
from brgm_med.search import SLICES
from brgm_med.solvers import fit_map
from brgm_med.weights import lpips_features, lpips_heads
from demo import perceptual_model

ADAM_STEPS, RATE = 500, 0.1
TASKS = {
    "factor 4": averages((80, 96), (4, 4)),
    "factor 8": averages((80, 96), (8, 8)),
    "6 mm": averages((80, 96), (3, 1)),
}


@dataclass
class Watched:
    """A generator that notes when it was asked and what it answered."""

    generator: Any
    seen: list[tuple[float, Tensor]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        image: Tensor = self.generator.synthesis(ws, noise=noise)
        self.seen.append((time.perf_counter(), image.detach()))
        return image


def plain_step(prior: PriorBundle, corruption: nn.Module, features: LPIPS | None) -> float:
    """Seconds of one step of published code on one slice, with gradients to W+ and the noise maps, and the perceptual
    term of `features` where they are given."""
    whitened = prior.whitened()
    at = torch.zeros(1, 1, whitened.w_dim, requires_grad=True)
    one = replace(whitened, mean=whitened.mean[:1])
    term = None if features is None else Perceptual(features, 1.0)
    measured = corruption(torch.zeros(1, 1, *prior.image_shape))
    times = []
    for _ in range(20 if term is None else 7):
        start = time.perf_counter()
        image = plain.synthesis(whitened.generator, one.ws(at), one.maps(at))
        energy = image.square().sum()
        if term is not None:
            energy = energy + term(corruption(image), measured).sum()
        torch.autograd.grad(energy, at)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--first", type=int, default=5)
    parser.add_argument(
        "--net", choices=("alex", "vgg"), default="vgg", help="of the published recipe's perceptual term"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prior, model = load(), perceptual_model()
    features = LPIPS(options.net, lpips_features(options.net, download=True), lpips_heads(options.net)).at((256, 256))
    adam, recipe = f"Adam, {ADAM_STEPS} steps", f"Adam, {ADAM_STEPS} steps, with {options.net}"
    some = TASKS["factor 4"]
    steps = {adam: plain_step(prior, some, None), recipe: plain_step(prior, some, features)}
    set_up_torch(options.threads)
    index = prior.grid_shape[1] // 2
    times = ", ".join(f"{1e3 * step:.0f} ms ({name})" for name, step in steps.items())
    print(f"{options.threads} threads, {options.first} slices; a step of published code takes {times}\n")
    print("| task | search | evaluations | s | s to within 0.1 dB | PSNR dB | LPIPS | s, `reconstruct_slices` |")
    print("|---|---|---|---|---|---|---|---|")
    for task, corruption in TASKS.items():
        rows: dict[str, list[list[float]]] = {"default": [], adam: [], recipe: []}
        for head in slices_of(options.prepared, "held_out")[: options.first]:
            truth = head[[index]].float()
            low, high = torch.quantile(truth.flatten(), torch.tensor([0.005, 0.995])).tolist()
            y = corruption(truth)
            start = time.perf_counter()
            reconstruct_slices(prior, [index], corruption, y)
            whole = time.perf_counter() - start
            found: dict[str, tuple[float, list[tuple[float, Tensor]], Tensor]] = {}
            for name in rows:
                whitened = whitened_generator(prior, [index], y.device)
                posterior = independent_posterior(whitened, corruption, y, SLICES.misfit)
                watched = Watched(whitened)
                posterior = replace(posterior, generator=watched)
                at = torch.zeros(1, 1, whitened.w_dim)
                began = time.perf_counter()
                if name == "default":
                    answer = solve(posterior, at, SLICES, whitened.curvature)
                else:
                    if name == recipe:
                        term = Perceptual(features, SLICES.perceptual_weight * y[0].numel())
                        posterior = replace(posterior, likelihood=(*posterior.likelihood, term))
                    answer = fit_map(posterior, at, steps=ADAM_STEPS, rate=RATE)
                found[name] = began, watched.seen, answer.image
            final = float(psnr(found[adam][2], truth, high - low))
            for name, (began, seen, image) in found.items():
                quality = [float(psnr(x, truth, high - low)) for _, x in seen]
                soon = next((t - began for (t, _), q in zip(seen, quality, strict=True) if q >= final - 0.1), torch.nan)
                projected = consistent(image, corruption, y)
                far = float(lpips(projected, truth, (low, high), model)) if model else torch.nan
                good = float(psnr(projected, truth, high - low))
                rows[name].append([len(seen) - 1, seen[-1][0] - began, soon, good, far, whole])
        for name, values in rows.items():
            count, seconds, _, good, far, whole = torch.tensor(values).mean(0).tolist()
            reached = [row[2] for row in values if not math.isnan(row[2])]
            soon = f"{sum(reached) / len(reached):.2f} ({len(reached)} of {len(values)})" if reached else "never"
            total = f"{whole:.2f}" if name == "default" else f"published code: {count * steps[name]:.0f} s"
            print(
                f"| {task} | {name} | {count:.0f} | {seconds:.2f} | {soon} | {good:.3f} | {far:.4f} | {total} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
