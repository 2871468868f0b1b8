"""Which training recipe gives the best prior for the same processor time: the comparison of docs/recipes.md.

    python benchmarks/recipes.py --slices RUN --out OUT --minutes 7
    python benchmarks/recipes.py --data ../shared/data/ixi-hh-2mm/t1 --out OUT --minutes 7

RUN is a run folder of `brgm-med train`; from `--data` one is made first, OUT/run, with the shipped prior's template:
the first 120 heads train, the 15 after them choose. All recipes have the same networks, data, seed and thread, and
train by the package's own `train_iteration` for as many processor minutes, measuring not counted. After each fifth of
the time they are measured on the validation heads, all recipes in turn, so that what else runs on the machine meets all
alike. OUT holds a state for each, from which an interrupted comparison goes on; recipes.csv, recipes.md (table) and
recipes.png (curves) are written after every measurement.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import Downsample
from brgm_med.distribution import frechet_distance, pooled
from brgm_med.energies import Gaussian, Pixel
from brgm_med.metrics import lpips, psnr
from brgm_med.networks.condition import position_code
from brgm_med.networks.noise import pixels
from brgm_med.ops.precision import native_precision
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import prepare, slices_of
from brgm_med.pipelines.training.run import lpips_distance
from brgm_med.posterior import Posterior, Whitened
from brgm_med.priors.bundle import DEFAULT, SHIPPED
from brgm_med.search import VOLUME
from brgm_med.solvers import fit_lbfgs
from brgm_med.training.export import head_statistics
from brgm_med.training.loop import Recipe, train_iteration
from brgm_med.training.measure import mean_ws, measure, spread
from brgm_med.training.state import Architecture, TrainState

NEVER = 1 << 60
RECIPES = {
    "A adversarial": Recipe(reconstruction_only=0, reconstructed=0.0, adversarial=1.0),
    "B both from the start": Recipe(reconstruction_only=0, reconstructed=0.5),
    "C reconstruction, then both": Recipe(reconstruction_only=NEVER, reconstructed=0.5),  # the adversary at half time
    "D reconstruction": Recipe(reconstruction_only=NEVER),
}
FIFTHS = 5
INVERTED, STEPS, SAMPLES, EVERY = 12, 40, 100, 6
RECONSTRUCTED, FACTOR, MAP_STEPS, ENCODED, RANK = 16, 4, 60, 40, 512


class Means:
    """In an encoder's place where none was trained: the mean w at each slice's position, and noise maps of 0."""

    def __init__(self, state: TrainState, positions: Tensor) -> None:
        self.g, self.positions = state.average, positions

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps = {name: torch.zeros(len(images), 1, *shape) for name, shape in self.g.noise_shapes.items()}
        return mean_ws(self.g, self.positions, seed=0), maps


def numbers(state: TrainState, recipe: Recipe, slices: Tensor, positions: Tensor, features: LPIPS) -> dict[str, float]:
    """`measure` on held-out slices; without a trained encoder, inversions start at the mean w of their position."""
    trained = recipe.reconstructed > 0
    encoder: Any = state.average_encoder if trained else Means(state, positions[spread(positions, INVERTED)])
    few = {"steps": STEPS, "inverted": INVERTED, "samples": SAMPLES}
    quality = measure(state.average, encoder, slices, positions, features, **few)
    if not trained:
        del quality["encoded_psnr"]
    return quality


def whitened(state: TrainState, recipe: Recipe, stacks: Sequence[Tensor], positions: Tensor) -> Whitened:
    """The prior over all latent inputs, with its mean at each of `positions` [N].

    With an encoder the Gaussian of the W+ of `ENCODED` training heads. Without, that of mapped z: the mean at each
    position and the covariance around it, in every layer alike and on its own, as style mixing trains them.
    """
    g = state.average
    if recipe.reconstructed > 0:
        heads = [stacks[h] for h in torch.linspace(0, len(stacks) - 1, min(ENCODED, len(stacks))).long().tolist()]
        statistics = head_statistics(state.average_encoder, heads, g.c_dim, RANK)
        mean, basis, deviation = (
            statistics.mean(position_code(positions, g.c_dim)),
            statistics.basis,
            statistics.deviation,
        )
    else:
        with torch.no_grad():
            z = torch.randn(10_000, g.z_dim, generator=torch.Generator().manual_seed(0))
            places = torch.linspace(-1, 1, 20).repeat_interleave(500)
            w = g.mapping(z, position_code(places, g.c_dim)).unflatten(0, (20, 500)).double()
        rest = (w - w.mean(1, keepdim=True)).flatten(0, 1)
        values, vectors = torch.linalg.eigh(rest.T @ rest / len(rest))
        significant = values > 1e-6 * values[-1]
        basis = torch.block_diag(*[vectors[:, significant].float()] * g.num_ws)
        deviation = values[significant].sqrt().float().repeat(g.num_ws)
        mean = mean_ws(g, positions, seed=0).flatten(1)
    alone = torch.zeros(len(deviation) + pixels(g.noise_shapes))  # slices here have no neighbours
    return Whitened(g, mean, basis, deviation, alone, g.noise_shapes)


def drawn(prior: Whitened) -> Tensor:
    """A sample of the prior over all latent inputs at each of its positions [N, C, H, W]."""
    a = torch.randn(len(prior.mean), 1, prior.w_dim, generator=torch.Generator().manual_seed(0))
    parts = zip(a.split(25), prior.mean.split(25), strict=True)
    with torch.no_grad():
        return torch.cat([replace(prior, mean=mean).synthesis(coordinates) for coordinates, mean in parts])


def cubic(measured: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(measured, scale_factor=FACTOR, mode="bicubic", align_corners=False)


def judged(image: Tensor, truth: Tensor, features: LPIPS, name: str) -> dict[str, float]:
    """PSNR (dB, data_range 2) and LPIPS over whole slices."""
    distance = lpips(image, truth, (-1.0, 1.0), features).mean()
    return {f"{name}_psnr": float(psnr(image, truth, 2.0).mean()), f"{name}_lpips": float(distance)}


def worth(
    state: TrainState, recipe: Recipe, stacks: Sequence[Tensor], slices: Tensor, positions: Tensor, features: LPIPS
) -> dict[str, float]:
    """What a finished prior makes of held-out slices averaged over FACTOR x FACTOR pixels, each slice on its own."""
    chosen, f = spread(positions, RECONSTRUCTED), Downsample(FACTOR)
    truth = slices[chosen].float()
    y = f(truth)
    prior = whitened(state, recipe, stacks, positions[chosen])
    terms = (Pixel(0.5 / VOLUME.misfit**2),), (Gaussian(torch.zeros(()), torch.ones(()), VOLUME.prior_weight),)
    posterior = Posterior(prior, f, y, *terms, noise="none")
    image = fit_lbfgs(posterior, torch.zeros(len(truth), 1, prior.w_dim), steps=MAP_STEPS).image
    scores = judged(image, truth, features, "map") | judged(project(image, f, y), truth, features, "projected")
    places = positions.sort().values[torch.linspace(0, len(positions) - 1, SAMPLES).round().long()]
    fake = drawn(whitened(state, recipe, stacks, places))
    return scores | {"drawn_frechet": frechet_distance(pooled(features, slices.float()), pooled(features, fake))}


def baseline(slices: Tensor, positions: Tensor, features: LPIPS) -> dict[str, float]:
    """Cubic interpolation of the same measurements, alone and projected."""
    truth, f = slices[spread(positions, RECONSTRUCTED)].float(), Downsample(FACTOR)
    y = f(truth)
    image = cubic(y)
    return judged(image, truth, features, "map") | judged(project(image, f, y), truth, features, "projected")


def advance(name: str, stage: int, options: argparse.Namespace, data: Any, features: LPIPS) -> None:
    """Train the recipe `name` until it had `stage` fifths of its time, and measure it; nothing where that is done."""
    stacks, slices, positions = data
    recipe, file = RECIPES[name], options.out / f"{name[0]}.pt"
    state = TrainState.new(Architecture(), seed=recipe.seed, rate=recipe.rate)
    if file.is_file():
        state.load(file)
    record = state.record
    if record.setdefault("minutes", options.minutes) != options.minutes:
        raise SystemExit(f"{file}: is of --minutes {record['minutes']}; give that, or another --out")
    curve, busy = record.setdefault("curve", []), record.setdefault("seconds", 0.0)
    if len(curve) >= stage:
        return
    until, total = 60 * options.minutes * stage / FIFTHS, 60 * options.minutes
    while busy < until:
        if name[0] == "C" and busy >= total / 2:
            recipe = replace(recipe, reconstruction_only=record.setdefault("joined", state.images))
        begun = time.process_time()
        train_iteration(state, recipe, stacks, features, native_precision(state.device))
        busy += time.process_time() - begun
    record["seconds"] = busy
    scores = {"images": float(state.images)} | numbers(state, recipe, slices, positions, features)
    if stage == FIFTHS:
        scores |= worth(state, recipe, stacks, slices, positions, features)
    curve.append({"minutes": busy / 60} | scores)
    state.save(file)
    announce(f"{name}  {busy / 60:.1f} min  " + "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))


def curves(out: Path) -> dict[str, list[dict[str, float]]]:
    """What was measured so far, by recipe."""
    measured = {}
    for name in RECIPES:
        if (out / f"{name[0]}.pt").is_file():
            measured[name] = torch.load(out / f"{name[0]}.pt", weights_only=True)["record"]["curve"]
    return measured


def write(out: Path, cubic_alone: dict[str, float]) -> None:
    """recipes.csv, recipes.md and recipes.png."""
    from matplotlib import pyplot

    measured = curves(out)
    columns = ["recipe", *dict.fromkeys(key for rows in measured.values() for row in rows for key in row)]
    with open(out / "recipes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for name, rows in measured.items():
            writer.writerows({"recipe": name} | {key: f"{v:.6g}" for key, v in row.items()} for row in rows)

    shown = {
        "images": ("images", 0),
        "inversion_psnr": ("inversion, all latents, dB", 2),
        "wplus_psnr": ("inversion, W+, dB", 2),
        "inversion_lpips": ("inversion LPIPS", 3),
        "encoded_psnr": ("encoder, dB", 2),
        "frechet": ("Frechet, mapped z", 3),
        "drawn_frechet": ("Frechet, fitted Gaussian", 3),
        "kernel": ("kernel, mapped z", 5),
        "precision": ("precision", 2),
        "recall": ("recall", 2),
        "map_psnr": (f"MAP x{FACTOR}, dB", 2),
        "map_lpips": (f"MAP x{FACTOR} LPIPS", 3),
        "projected_psnr": (f"MAP x{FACTOR} + consistency, dB", 2),
        "projected_lpips": (f"MAP x{FACTOR} + consistency LPIPS", 3),
    }
    ends = {name: rows[-1] for name, rows in measured.items()} | {"cubic": cubic_alone}
    lines = ["| | " + " | ".join(ends) + " |", "|---" * (len(ends) + 1) + "|"]
    for key, (label, digits) in shown.items():
        cells = [f"{row[key]:.{digits}f}" if key in row else "-" for row in ends.values()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    (out / "recipes.md").write_text("\n".join(lines) + "\n")

    panels = {
        "inversion_psnr": "inversion by all latents, dB",
        "wplus_psnr": "inversion by W+ alone, dB",
        "encoded_psnr": "encoder's answer, dB",
        "inversion_lpips": "LPIPS of the inversion",
        "frechet": "Frechet distance of samples",
        "recall": "recall of samples",
    }
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.4), sharex=True, layout="constrained")
    for axis, (key, title) in zip(axes.flat, panels.items(), strict=True):
        for colour, (name, rows) in zip(("C0", "C1", "C2", "C3"), measured.items(), strict=False):
            have = [row for row in rows if key in row]
            axis.plot([r["minutes"] for r in have], [r[key] for r in have], "o-", color=colour, label=name)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("processor minutes of training")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(out / "recipes.png", dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--slices", type=Path, help="a run folder of brgm-med train")
    source.add_argument("--data", type=Path, help="a folder of heads, to be prepared first")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0, help="processor time of each recipe")
    parser.add_argument("--lpips-weights", type=Path, help="AlexNet's features, for LPIPS")
    options = parser.parse_args()
    set_up_torch(1)
    options.out.mkdir(parents=True, exist_ok=True)
    features = lpips_distance(options.lpips_weights)
    if features is None:
        raise SystemExit("the comparison needs LPIPS: give --lpips-weights")
    run = options.slices
    if run is None:
        run = options.out / "run"
        run.mkdir(exist_ok=True)
        for file in ("template.nii.gz", "mask.nii.gz"):
            shutil.copyfile(SHIPPED / DEFAULT / file, run / file)
        prepare(options.data, run, 120, 15)
    stacks, held = slices_of(run), slices_of(run, "held_out")
    validation = [held[h][::EVERY] for h in range(len(held))]
    places = torch.linspace(-1, 1, len(held[0]))[::EVERY].repeat(len(validation))
    data = (stacks, torch.cat(validation), places)
    alone = baseline(*data[1:], features)
    announce("cubic  " + "  ".join(f"{k} {v:.4g}" for k, v in alone.items()))
    for stage in range(1, FIFTHS + 1):
        for name in RECIPES:
            advance(name, stage, options, data, features)
            write(options.out, alone)


if __name__ == "__main__":
    main()
