"""Step (c) of benchmarks/gpu.py: training goes on from what benchmarks/pack.py packed, for as long as there is time.

First images a second at growing batches: the largest that pays is taken, with the step size and the average of
`scaled`. Then it trains, in bfloat16 on a GPU, and returns its state every `SAVE_EVERY` seconds and at the end, in
files that gpu_state.py joins. The part of the time that waits for data is the difference to training on one batch that
is at hand.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from brgm_med.ops.precision import native_precision
from brgm_med.perceptual import LPIPS
from brgm_med.training import loop
from brgm_med.training.loop import Features, Recipe, train_iteration
from brgm_med.training.sources import Sources
from brgm_med.training.state import Architecture, TrainState
from gpu_state import split
from gpu_step import Step, arguments, device, machine, say
from pack import LPIPS_WEIGHTS, SLICES, SNAPSHOT, TRAINING, unpack
from prefetch import Prefetched
from rates import finish

BATCHES = (16, 32, 64, 128, 256, 512)
PAYS = 1.25
"""A batch of twice the size is worth it where it shows so many times the images a second."""
SAVE_EVERY = 90.0
RESERVE = 8.0
"""Seconds before the limit at which the last update has ended and the state is returned."""


def scaled(recipe: Recipe, batch: int) -> Recipe:
    """The recipe for another batch: step sizes grow as its square root once they have fallen from `rate` (for Adam:
    Malladi et al. 2022, arXiv 2205.10287), and the average goes over as many updates as before."""
    larger = batch / recipe.batch
    steady, half_life = round(recipe.steady * larger), recipe.half_life * larger
    return dataclasses.replace(recipe, batch=batch, steady=steady, half_life=half_life)


def perceptual_term(folder: Path, at: torch.device) -> LPIPS | None:
    """LPIPS of the packed weights; None where there are none."""
    path = folder / LPIPS_WEIGHTS
    if not path.is_file():
        return None
    tensors = {key: value.float() for key, value in load_file(path).items()}
    heads = [tensors.pop(f"head.{i}") for i in range(5)]
    return LPIPS("alex", tensors, heads).to(at)


@dataclasses.dataclass
class Training:
    """A state with all that an update takes; `processes` draw its slices ahead."""

    state: TrainState
    recipe: Recipe
    sources: Sources
    perceptual: Features | None
    precision: torch.dtype
    processes: int

    def __post_init__(self) -> None:
        self.use(self.recipe)

    def use(self, recipe: Recipe) -> None:
        """Go on with another recipe."""
        self.recipe = recipe
        pin = self.state.device.type == "cuda"
        self.slices = Prefetched(self.sources, recipe, self.state.iteration, self.processes, pin=pin)

    def update(self) -> dict[str, float]:
        """One update of every network."""
        return train_iteration(self.state, self.recipe, self.slices, self.perceptual, self.precision)

    def cycle(self) -> float:
        """Images a second over as many updates as it takes for every regulariser to come once."""
        begun = time.perf_counter()
        for _ in range(max(self.recipe.r1_every, self.recipe.path_every)):
            self.update()
        finish(self.state.device)
        return max(self.recipe.r1_every, self.recipe.path_every) * self.recipe.batch / (time.perf_counter() - begun)


def choose_batch(step: Step, training: Training, recipe: Recipe, until: float) -> None:
    """Set the recipe to the largest batch that pays; every update counts as training."""
    rates: dict[str, float] = {}
    step.results["images a second"] = rates
    chosen = recipe
    for batch in BATCHES:
        if step.left() < until:
            break
        training.use(scaled(recipe, batch))
        try:
            training.cycle()
            rates[str(batch)] = training.cycle()
        except torch.OutOfMemoryError:
            say(f"(c) a batch of {batch} does not fit the memory")
            torch.cuda.empty_cache()
            break
        say(f"(c) batch {batch}: {rates[str(batch)]:.0f} images/s")
        step.save()
        if len(rates) > 1 and rates[str(batch)] < PAYS * rates[str(chosen.batch)]:
            break
        chosen = training.recipe
    training.use(chosen)


def waiting(training: Training) -> dict[str, float]:
    """Images a second with data drawn as ever and with one batch that is at hand, and the part that is waited for."""
    ordinary = training.cycle()
    data = loop.draw(training.slices, training.recipe.batch, training.recipe)
    with patch.object(loop, "draw", lambda *_: data):
        at_hand = training.cycle()
    training.use(training.recipe)  # the slices of the iterations that come now
    return {"images a second": ordinary, "at hand": at_hand, "part": max(0.0, 1 - ordinary / at_hand)}


def give(step: Step, training: Training, out: Path, entry: dict[str, Any], begun: float) -> None:
    """Return the state as it is."""
    state = training.state
    state.record["seconds"] = entry["before"] + time.monotonic() - begun
    files = split(state, out)
    step.results |= {"images": [entry["images"], state.images], "updates": state.iteration}
    step.results["files"] = {path.name: path.stat().st_size for path in files}
    step.save()
    say(f"(c) state returned at {state.images} images: {', '.join(path.name for path in files)}")


def train(step: Step, training: Training, out: Path, recipe: Recipe) -> None:
    """Choose the batch, train until the limit is near, and return the state now and then."""
    state, begun = training.state, time.monotonic()
    entry: dict[str, Any] = {
        "images": state.images,
        "precision": str(training.precision).removeprefix("torch."),
        "device": state.device.type,
        "threads": torch.get_num_threads(),
        "processes": 1,
    }
    state.record.setdefault("runs", []).append(entry)
    choose_batch(step, training, recipe, 0.8 * step.seconds)
    entry["batch"] = training.recipe.batch
    if step.left() > 0.3 * step.seconds:
        step.results["waiting"] = waiting(training)
        say(f"(c) waiting for data: {step.results['waiting']['part']:.1%} of the time")
    step.results["batch"] = training.recipe.batch
    sums: dict[str, list[float]] = {}
    rows: list[dict[str, float]] = []
    step.results["losses"] = rows
    note = {"images": entry["images"], "before": state.record.get("seconds", 0.0)}
    saved = reported = time.monotonic()
    since = state.images
    while step.left() > RESERVE:
        for key, value in training.update().items():
            sums.setdefault(key, []).append(value)
        now = time.monotonic()
        if now - reported > step.seconds / 24 or step.left() <= RESERVE:
            means = {key: sum(v) / len(v) for key, v in sums.items()}
            rate = (state.images - since) / (now - reported)
            rows.append({"images": state.images, "images a second": rate, **means})
            say(
                f"(c) {state.images} images, {rate:.0f} a second, "
                + "  ".join(f"{k} {v:.4f}" for k, v in means.items())
            )
            step.save()
            sums, since, reported = {}, state.images, now
        if now - saved > SAVE_EVERY:
            give(step, training, out, note, begun)
            saved = time.monotonic()
    give(step, training, out, note, begun)


def page(results: dict[str, Any]) -> list[str]:
    """The step's part of the page."""
    if "not run" in results:
        return [f"Not run: {results['not run']}."]
    lines = [f"On {results.get('device', '?')}, in {results.get('precision')}, {results.get('perceptual')}."]
    if "images" in results:
        first, last = results["images"]
        lines += [f"From {first} to {last} images, batch {results.get('batch')}."]
    if "waiting" in results:
        w = results["waiting"]
        lines += [
            f"Waiting for data: {w['part']:.1%} of the time ({w['images a second']:.0f} images/s, {w['at hand']:.0f} "
            f"with a batch at hand; {results.get('processes')} processes draw)."
        ]
    lines += ["", "| batch | images/s |", "|---|---|"]
    lines += [f"| {batch} | {rate:.0f} |" for batch, rate in results.get("images a second", {}).items()]
    rows: Sequence[dict[str, float]] = results.get("losses", [])
    if rows:
        names = list(dict.fromkeys(key for row in rows for key in row if not key.startswith("images")))
        lines += ["", f"| images | images/s | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
        for row in rows:
            values = " | ".join(f"{row[n]:.4f}" if n in row else "" for n in names)
            lines += [f"| {row['images']} | {row['images a second']:.0f} | {values} |"]
    if "files" in results:
        files = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in results["files"].items())
        lines += ["", f"Returned: {files}; `python benchmarks/gpu_state.py FOLDER --run RUN` joins them."]
    return lines


def main() -> None:
    extra = [("--packed", {"type": Path, "required": True}), ("--out", {"type": Path, "required": True})]
    options = arguments(__doc__, extra)
    step, at = Step(options.results, options.seconds, begun=options.since), device()
    step.results |= machine()
    missing = [name for name in (SLICES, SNAPSHOT, TRAINING) if not (options.packed / name).is_file()]
    if missing:
        step.results["not run"] = f"{options.packed} lacks {', '.join(missing)}; benchmarks/pack.py makes them"
        step.save()
        say(f"(c) {step.results['not run']}")
        return
    packed = json.loads((options.packed / TRAINING).read_text())
    recipe = Recipe(**packed["recipe"])
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in packed["architecture"].items()}
    state = TrainState.new(Architecture(**sizes), seed=recipe.seed, rate=recipe.rate, device=at)
    state.load_snapshot(options.packed / SNAPSHOT)
    perceptual = perceptual_term(options.packed, at)
    precision = torch.bfloat16 if at.type == "cuda" else native_precision(at)
    step.results |= {
        "architecture": packed["architecture"],
        "packed": packed["lost"],
        "precision": str(precision).removeprefix("torch."),
        "perceptual": "without a perceptual term: no weights were packed" if perceptual is None else "LPIPS on AlexNet",
    }
    step.save()
    # One thread each beside this process and the one that queues the gradients' kernels.
    processes = min(14, max(0, (os.cpu_count() or 1) - 2))
    step.results["processes"] = processes
    sources = unpack(options.packed / SLICES)
    train(step, Training(state, recipe, sources, perceptual, precision, processes), options.out, recipe)


if __name__ == "__main__":
    main()
