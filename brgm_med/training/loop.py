"""The training loop: an encoder makes the generator reach every slice, a discriminator makes it look right."""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brgm_med.networks.condition import position_code
from brgm_med.networks.stylegan2 import mix_styles
from brgm_med.training.augment import augment
from brgm_med.training.losses import discriminator_loss, generator_loss, r1_penalty
from brgm_med.training.state import TrainState, mean_w, update_average

Features = Callable[[Tensor, Tensor], Tensor]
"""A perceptual distance: two batches [N, C, H, W] -> [N]."""


@dataclass(frozen=True)
class Recipe:
    """What is minimised and how fast.

    Up to `reconstruction_only` images only encoder and generator are trained, to reconstruct; then the
    adversarial game joins in, on samples G(mapping(z)) and on reconstructions alike.
    """

    batch: int = 16
    rate: float = 0.002
    momentum: float = 0.8
    reconstruction_only: int = 32_000
    pixel: float = 4.0
    perceptual: float = 1.0
    adversarial: float = 0.05
    latent: float = 0.002
    w_noise: float = 0.1
    r1_gamma: float = 0.3
    r1_every: int = 16
    mixing: float = 0.9
    half_life: float = 4_000.0
    seed: int = 0


def iteration_seed(seed: int, iteration: int) -> int:
    """The seed from which all randomness of one iteration is drawn, so that resuming needs no generator state."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)[0] >> 1)


def draw(stacks: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """`count` random slices of `stacks` [heads, positions, C, H, W]: images and positions in [-1, 1]."""
    heads, positions = stacks.shape[:2]
    head = torch.randint(heads, (count,)).numpy()
    place = torch.randint(positions, (count,)).numpy()
    image = torch.from_numpy(stacks[head, place].astype(np.float32))
    return image, torch.from_numpy(place.astype(np.float32)) / (positions - 1) * 2 - 1


def _set_grad(state: TrainState, *, players: bool) -> None:
    state.generator.requires_grad_(players)
    state.encoder.requires_grad_(players)
    state.discriminator.requires_grad_(not players)


def train_iteration(state: TrainState, recipe: Recipe, stacks: np.ndarray, perceptual: Features | None) -> dict:
    """One update of every network; returns its losses as floats. All randomness comes from the iteration number."""
    torch.manual_seed(iteration_seed(recipe.seed, state.iteration))
    g, d, e = state.generator, state.discriminator, state.encoder
    adversarial = state.images >= recipe.reconstruction_only
    real, position = draw(stacks, recipe.batch)
    real = augment(real)
    losses: dict[str, float] = {}

    # Encoder and generator.
    _set_grad(state, players=True)
    half = recipe.batch // 2 if adversarial else recipe.batch
    target, code = real[:half], position_code(position, g.c_dim)
    latent = e(target)
    ws = latent + recipe.w_noise * torch.randn_like(latent)
    reached = g.synthesis(ws, noise="none")
    pixel = (reached - target).abs().mean()
    loss = recipe.pixel * pixel + recipe.latent * latent.square().mean()
    losses |= {"pixel": float(pixel.detach()), "latent": float(latent.detach().square().mean())}
    if perceptual is not None:
        distance = perceptual(reached, target).mean()
        loss = loss + recipe.perceptual * distance
        losses["perceptual"] = float(distance.detach())
    fake = reached
    if adversarial:
        codes = code[half:]
        z = torch.randn(2, recipe.batch - half, g.z_dim)
        w = g.mapping(z[0], codes)
        mean_w(g, w.detach())
        crossover = torch.randint(1, g.num_ws, (len(w),))
        crossover[torch.rand(len(w)) >= recipe.mixing] = g.num_ws
        mixed = mix_styles(g.broadcast(w), g.broadcast(g.mapping(z[1], codes)), crossover)
        fake = torch.cat([reached, g.synthesis(mixed, noise="random")])
        score = generator_loss(d(fake, code))
        loss = loss + recipe.adversarial * score
        losses["generator"] = float(score.detach())
    for name in ("generator", "encoder"):
        state.optimisers[name].zero_grad(set_to_none=True)
        for group in state.optimisers[name].param_groups:  # momentum helps a descent and harms a game
            group["betas"] = (min(recipe.momentum, 0.5) if adversarial else recipe.momentum, 0.99)
    loss.backward()
    for name in ("generator", "encoder"):
        state.optimisers[name].step()

    # Discriminator.
    if adversarial:
        _set_grad(state, players=False)
        penalise = state.iteration % recipe.r1_every == 0
        real.requires_grad_(penalise)
        logits = d(real, code)
        loss = discriminator_loss(logits, d(fake.detach(), code))
        losses["discriminator"] = float(loss.detach())
        if penalise:
            penalty = r1_penalty(logits, real)
            losses["r1"] = float(penalty.detach())
            loss = loss + recipe.r1_gamma / 2 * recipe.r1_every * penalty
        state.optimisers["discriminator"].zero_grad(set_to_none=True)
        loss.backward()
        state.optimisers["discriminator"].step()

    state.iteration += 1
    state.images += recipe.batch
    update_average(state.average, g, state.images, recipe.batch, recipe.half_life)
    update_average(state.average_encoder, e, state.images, recipe.batch, recipe.half_life)
    return losses


def train(
    state: TrainState,
    recipe: Recipe,
    stacks: np.ndarray,
    out: Path,
    *,
    images: int,
    perceptual: Features | None = None,
    snapshot_every: float = 300.0,
    report: Callable[[str], None] = print,
    report_every: float = 20.0,
) -> None:
    """Train until `images` slices have been shown, writing `state.pt` and `losses.csv` into the folder `out`.

    The state is written every `snapshot_every` seconds, at the end, and when interrupted (Ctrl-C ends the run
    after the iteration that is under way), so that a resumed run equals an uninterrupted one to the last bit.

    Raises:
        KeyboardInterrupt: after the state was written, when the run was interrupted.
    """
    path = out / "state.pt"
    begun, first = time.monotonic(), state.images
    saved = reported = begun
    total: dict[str, list[float]] = {}
    with _interruption() as interrupted:
        while state.images < images and not interrupted:
            for key, value in train_iteration(state, recipe, stacks, perceptual).items():
                total.setdefault(key, []).append(value)
            now = time.monotonic()
            if now - reported >= report_every or state.images >= images:
                rate = (state.images - first) / (now - begun)
                means = {k: sum(v) / len(v) for k, v in total.items()}
                shown = "  ".join(f"{k} {v:.4f}" for k, v in means.items())
                left = (images - state.images) / rate / 60
                report(f"{state.images / 1000:.1f} kimg  {rate:.1f} images/s  {left:.0f} min left  {shown}")
                _append(out / "losses.csv", {"images": state.images, "seconds": round(now - begun, 1), **means})
                total, reported = {}, now
            if now - saved >= snapshot_every:
                state.save(path)
                saved = now
    state.save(path)
    if interrupted:
        raise KeyboardInterrupt


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives: a half-done update must never be saved."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda number, _frame: arrived.append(number)) for name in names]
    try:
        yield arrived
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


COLUMNS = ("images", "seconds", "pixel", "perceptual", "latent", "generator", "discriminator", "r1")


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)
