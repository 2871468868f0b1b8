"""The generator that draws: StyleGAN2 trained as one, from the generator of an auto-encoder.

    python benchmarks/gan.py prepare --data ../shared/data --poses ~/brgm-train/population --run ~/brgm-train/gan
    python benchmarks/gan.py train --run ~/brgm-train/gan --kimg 3000 [--start resume/brain-t1-coronal-gan.safetensors]
    python benchmarks/gan.py measure --run ~/brgm-train/gan

`prepare` samples 120 training and 15 validation heads of IXI on the box of 2 mm, where benchmarks/population.py prepare
registered them. Without a snapshot, `train` starts from the auto-encoder's snapshot of 80 x 96 in `resume`: its W+
statistics become the layers' own affine maps, so that one w of z and position draws what these statistics draw; then
mapping and discriminator learn, then all. `measure` compares samples of the averaged generator with validation slices,
beside training slices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from brgm_med.distribution import frechet_distance, kernel_distance, pooled, precision_recall
from brgm_med.networks.condition import position_code
from brgm_med.networks.stylegan2 import Mapping, StyleGAN2
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.run import every_second, lpips_distance
from brgm_med.priors.bundle import DEFAULT, load
from brgm_med.training import loop
from brgm_med.training.export import encode, neighbours, wplus_statistics
from brgm_med.training.loop import Recipe
from brgm_med.training.measure import sample, spread
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.intensity import estimate
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.register import resample_cubic
from brgm_med.transforms.slices import coronal_stack
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid, load_template

ARCHITECTURE = Architecture()
RECIPE = Recipe(
    reconstruction_only=0,
    reconstructed=0.0,
    synthesis_from=4_000,
    adversarial=1.0,
    widened=0.0,
    r1_gamma=0.2,
    steady=1_000_000,
    half_life=10_000.0,
)
"""Adversarial training alone. R1's gamma is about 0.0002 pixels / batch (Karras et al. 2020, Table 5)."""
GRAIN = 0.2
"""Part of the noise inputs' strength that is left at the start: of an auto-encoder these hold anatomy."""
SPREAD, SHIFT = 3.0, 2.0
"""Of the mapping network's start, see `linear_mapping`: the position's code is divided by the one, and w moved by the
other, where the rectifiers are straight."""
COMPARED = 600
"""Slices of either kind that are compared."""


def prepare(data: Path, poses: Path, run: Path) -> None:
    """Write `slices.safetensors`: heads and held_out [heads, Y, 1, H, W], float16."""
    run.mkdir(parents=True, exist_ok=True)
    record = json.loads((poses / "prepared.json").read_text())["heads"]["ixi"]
    template, box = load_template(load(DEFAULT)), centred_grid(BOX_SHAPE, SPACING, (0.0, 0.0, 0.0))
    parts = {}
    for part, entries in (("heads", record["sources"]), ("held_out", record["validation"])):
        stacks = []
        for entry in entries:
            ((values, grid),), pose = Heads([data / entry["name"]]), np.array(entry["pose"])
            normalisation = estimate(values, grid, template, pose)
            seen = normalisation.forward(resample_cubic(values, grid, box, pose, normalisation.low))
            stacks.append(coronal_stack(seen).half())
        parts[part] = torch.stack(stacks)
        print(part, list(parts[part].shape), flush=True)
    save_file(parts, run / "slices.safetensors")


def started(state: TrainState, snapshot: Path, stacks: list[Tensor]) -> None:
    """Start `state` from an auto-encoder's snapshot: its W+ statistics move into the layers' affine maps.

    Of the new w, the first c_dim numbers are the position's code and the others whitened principal coordinates of W+,
    which the mapping network makes of z.
    """
    state.load_snapshot(snapshot)
    pairs = neighbours(len(stacks[0]))
    position = torch.linspace(-1, 1, len(stacks[0]))[torch.from_numpy(pairs)]
    c_dim, w_dim = ARCHITECTURE.c_dim, ARCHITECTURE.w_dim
    latents, maps = encode(state.average_encoder, stacks, pairs.tolist())
    statistics = wplus_statistics(latents, maps, position, c_dim, w_dim - c_dim)
    total = float((latents - statistics.mean(position_code(position, c_dim))).square().sum(-1).mean())
    part = float(statistics.deviation.square().sum()) / total
    print(f"{w_dim - c_dim} components hold {100 * part:.0f} % of the variance of W+", flush=True)
    g = state.generator
    of_w = torch.cat([SPREAD * statistics.coefficients[1:], (statistics.basis * statistics.deviation).T])  # [w_dim, K]
    of_w, mean = of_w.reshape(w_dim, g.num_ws, -1), statistics.coefficients[0].reshape(g.num_ws, -1)
    with torch.no_grad():
        first = 0
        for name in g.synthesis.names:
            block = getattr(g.synthesis, name)
            layers = [getattr(block, layer) for layer in ("conv0", "conv1", "torgb") if hasattr(block, layer)]
            for number, layer in enumerate(layers, first):
                affine = layer.affine
                moved = affine.weight @ of_w[:, number].T
                affine.bias += (affine.weight @ mean[number] - SHIFT * moved.sum(1)) * affine.weight_gain
                affine.weight.copy_(moved)
                if hasattr(layer, "noise_strength"):
                    layer.noise_strength *= GRAIN
            first += block.convolutions
        g.mapping = Mapping(g.z_dim, c_dim, w_dim, ARCHITECTURE.mapping_layers)
        linear_mapping(g.mapping)
    state.average.load_state_dict(g.state_dict())
    for key, network in (("generator", g), ("discriminator", state.discriminator)):
        rate = state.optimisers[key].defaults["lr"]
        state.optimisers[key] = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.99), eps=1e-8)
    state.images = state.iteration = 0
    state.probability = 0.0


def slices_of(run: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Training and validation heads, each [Y, 1, H, W]."""
    parts = load_file(run / "slices.safetensors")
    return list(parts["heads"]), list(parts["held_out"])


def linear_mapping(mapping: Mapping) -> None:
    """Set a mapping network to w = (position's code / SPREAD, first part of normalised z) + SHIFT, but where the
    rectifiers bend it, and a little at random."""
    w_dim, c_dim, z_dim = mapping.fc0.weight.shape[0], mapping.c_dim, mapping.z_dim
    # Many equal constants beside the code leave its normalisation nearly linear.
    mapping.embed.weight.zero_()
    mapping.embed.weight[:c_dim] = torch.eye(c_dim) / mapping.embed.weight_gain
    mapping.embed.bias.fill_(SPREAD)
    mapping.embed.bias[:c_dim] = 0.0
    for number in range(mapping.layers):
        layer = getattr(mapping, f"fc{number}")
        chosen = torch.eye(w_dim)
        if number == 0:
            chosen = torch.zeros(w_dim, z_dim + w_dim)
            chosen[:c_dim, z_dim : z_dim + c_dim] = torch.eye(c_dim)
            chosen[c_dim:, : w_dim - c_dim] = torch.eye(w_dim - c_dim)
            layer.bias.fill_(SHIFT * 0.5**0.5 / layer.bias_gain)
        else:
            layer.bias.zero_()
        layer.weight.mul_(0.02).add_(chosen * 0.5**0.5 / layer.weight_gain)  # the rectifier's gain is sqrt(2)


def distances(generator: StyleGAN2, real: Tensor, position: Tensor, features: LPIPS) -> dict[str, float]:
    """Frechet and kernel distance, precision and recall of samples at the positions [N] of slices [N, 1, H, W]."""
    drawn = sample(generator, position, seed=0).clamp(-1, 3)
    return between(pooled(features, real), pooled(features, drawn))


def between(real: Tensor, other: Tensor) -> dict[str, float]:
    """The same of two sets of pooled features."""
    precision, recall = precision_recall(real, other)
    numbers = {"frechet": frechet_distance(real, other), "kernel": kernel_distance(real, other)}
    return numbers | {"precision": precision, "recall": recall}


def compared(stacks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """So many slices, spread evenly over positions, and these."""
    slices, positions = every_second(stacks)
    chosen = spread(positions, COMPARED)
    return slices[chosen].float(), positions[chosen]


def train(run: Path, kimg: float, start: Path | None, batch: int, weights: Path | None) -> None:
    set_up_torch(1)
    recipe = dataclasses.replace(RECIPE, batch=batch)
    state = TrainState.new(ARCHITECTURE, seed=recipe.seed, rate=recipe.rate)
    stacks, held_out = slices_of(run)
    if (run / "state.pt").is_file():
        state.load(run / "state.pt")
    elif start is not None:
        state.load_snapshot(start)
    else:
        started(state, Path(__file__).resolve().parent.parent / "resume" / f"{DEFAULT}.safetensors", stacks)
    features = lpips_distance(weights)
    assert features is not None
    real, position = compared(held_out)

    def quality(now: TrainState) -> dict[str, float]:
        numbers = distances(now.average, real, position, features)
        return {**numbers, "score": -numbers["frechet"]}

    shown = spread(position, 8)
    loop.train(
        *(state, recipe, stacks, run),
        images=int(kimg * 1000),
        measure=quality,
        shown=(real[shown], position[shown]),
        snapshot_every=1200.0,
    )


def measure(run: Path, weights: Path | None) -> None:
    set_up_torch(1)
    state = TrainState.new(ARCHITECTURE, seed=0, rate=0.0)
    state.load(run / "state.pt")
    stacks, held_out = slices_of(run)
    features = lpips_distance(weights)
    assert features is not None
    real, position = compared(held_out)
    known, _ = compared(stacks)
    print("training slices", between(pooled(features, real), pooled(features, known)))
    print("samples", distances(state.average, real, position, features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("prepare", "train", "measure"))
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--kimg", type=float, default=3000)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lpips-weights", type=Path)
    options = parser.parse_args()
    if options.command == "prepare":
        if options.data is None or options.poses is None:
            parser.error("prepare needs --data and --poses")
        prepare(options.data / "ixi-hh-2mm" / "t1", options.poses, options.run)
    elif options.command == "train":
        train(options.run, options.kimg, options.start, options.batch, options.lpips_weights)
    else:
        measure(options.run, options.lpips_weights)


if __name__ == "__main__":
    main()
