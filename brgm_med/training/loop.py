"""The training loop: an encoder makes the generator reach every slice, a discriminator makes it look right."""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.networks.condition import position_code
from brgm_med.networks.stylegan2 import mix_styles
from brgm_med.ops.precision import native_precision
from brgm_med.training import distributed
from brgm_med.training.augment import Augmentation, adapted
from brgm_med.training.losses import (
    discriminator_loss,
    generator_loss,
    information,
    path_lengths,
    path_penalty,
    r1_penalty,
)
from brgm_med.training.record import Record
from brgm_med.training.sources import Drawn, Sources
from brgm_med.training.state import TrainState, mean_w, update_average

Features = Callable[[Tensor, Tensor], Tensor]
"""A perceptual distance: two batches [N, C, H, W] -> [N]."""

Stacks = Sequence[Any]
"""Item h is a head: slices [Y, C, H, W] (Tensor or array, float16 or float32), air -1, from the back to the front. Or
`sources.Sources`, whose slices were each seen through an acquisition model."""

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """The losses' weights and the course of training.

    Up to `reconstruction_only` images only encoder and generator are trained, to reconstruct; then the
    adversarial game joins in, on samples G(mapping(z)) and on reconstructions alike.

    Attributes:
        batch: images of one update, over all processes together.
        rate: Adam's step size, of every network.
        steady: images after which that size falls, as the inverse square root of the images (Karras et al. 2023, arXiv
            2312.02696): the averaged weights settle without an end of the run having to be known.
        momentum: Adam's beta_1 while there is no adversary (at most 0.5 after that: momentum harms a game).
        reconstruction_only: images to be shown before the adversary plays; 0: from the start.
        synthesis_from: images after which the synthesis network is trained; before, only what plays around it is:
            the mapping network (and the encoder), and the discriminator.
        reconstructed: fraction [0, 1] of a batch that is reconstructed once it plays, the rest being samples;
            0: plain adversarial training, in which the encoder is neither run nor trained.
        widened: probability [0, 1] of each operation of `Augmentation`, but for noise, on the training slices. What
            it does to them becomes part of the distribution that is learned.
        pixel: weight of the mean absolute difference of reconstructions.
        perceptual: weight of their perceptual distance.
        adversarial: weight of the generator's adversarial loss.
        latent: weight of the mean square of the encoder's W+.
        w_noise: standard deviation of the noise added to the encoder's W+.
        information: weight of each nat that the noise maps tell of an image (see `losses.information`).
        r1_gamma: weight gamma of R1 (gamma / 2 times the squared gradient).
        r1_every: updates of the discriminator from one R1 to the next.
        path: weight of the path length regularisation relative to that of the adversarial loss; 0: none.
        path_every: updates of the generator from one path length regularisation to the next.
        mixing: probability [0, 1] that a sample mixes two styles.
        sign_target: value in (0, 1) at which the discriminator's augmentation holds the mean of sign(D(real)).
        ramp: images in which the probability of that augmentation can go from 0 to 1; 0: it stays as it is.
        half_life: half-life in images of the averaged weights.
        seed: of the networks' first weights and of all that is drawn.
        flip: whether mirror images are plausible, and so among the augmentations.
    """

    batch: int = 16
    rate: float = 0.002
    steady: int = 60_000
    momentum: float = 0.8
    reconstruction_only: int = 400_000
    synthesis_from: int = 0
    reconstructed: float = 0.5
    widened: float = 0.5
    pixel: float = 4.0
    perceptual: float = 1.0
    adversarial: float = 0.05
    latent: float = 0.002
    w_noise: float = 0.1
    information: float = 3e-5
    r1_gamma: float = 0.3
    r1_every: int = 16
    path: float = 2.0
    path_every: int = 8
    mixing: float = 0.9
    sign_target: float = 0.6
    ramp: float = 50_000.0
    half_life: float = 4_000.0
    seed: int = 0
    flip: bool = True


ADAPT_EVERY = 4
"""Updates from one change of the augmentation's probability to the next, and the window of its mean sign."""

PATH_DECAY = 0.99
"""Of the running mean of path lengths. Karras et al. 2020, Appendix B."""


def step_size(recipe: Recipe, images: int) -> float:
    """Adam's step size after `images` images, see `Recipe.steady`."""
    return recipe.rate * min(1.0, (recipe.steady / max(images, 1)) ** 0.5)


def iteration_seed(seed: int, iteration: int) -> int:
    """The seed from which all randomness of one iteration is drawn, so that resuming needs no generator state."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Slices:
    """Training slices y [N, C, H, W], which are the generator's images themselves, and positions [N] in [-1, 1]."""

    image: Tensor
    position: Tensor

    def to(self, device: torch.device) -> Slices:
        return Slices(self.image.to(device), self.position.to(device))

    def seen(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """Images x [n, C, H, W] as the source of the slices `rows` sees them: as they are."""
        return x


def draw(stacks: Stacks, count: int, recipe: Recipe) -> Slices | Drawn:
    """`count` random slices of random heads, augmented, float32 on the CPU.

    The only slice of a stack of one, such as a picture, is at -1.
    """
    if isinstance(stacks, Sources):
        return stacks.draw(count, recipe.widened, recipe.flip)
    heads, shares = torch.randint(len(stacks), (count,)).tolist(), torch.rand(count).tolist()
    images, positions = [], []
    for head, share in zip(heads, shares, strict=True):
        stack = stacks[head]
        index = int(share * len(stack))
        one = stack[index]
        # A memory-mapped array is copied, and a MetaTensor's bookkeeping left behind.
        images.append((one.as_subclass(Tensor) if isinstance(one, Tensor) else torch.tensor(one)).float())
        positions.append(index / max(len(stack) - 1, 1) * 2 - 1)
    image = Augmentation(flip=recipe.flip, noise=0.0)(torch.stack(images), recipe.widened)
    return Slices(image, torch.tensor(positions))


def train_iteration(
    state: TrainState,
    recipe: Recipe,
    stacks: Stacks,
    perceptual: Features | None = None,
    precision: torch.dtype = torch.float32,
) -> dict[str, float]:
    """One update of every network; returns its losses, means over all processes.

    All randomness comes from the iteration's number. The networks are run in `precision` (float32 or bfloat16);
    weights, losses and regularisers are float32.
    """
    torch.manual_seed(iteration_seed(recipe.seed, state.iteration))
    playing = state.images >= recipe.reconstruction_only
    for optimiser in state.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = step_size(recipe, state.images)
    count = distributed.share(recipe.batch, _group(state) if playing else 1)
    reached = distributed.share(round(recipe.batch * recipe.reconstructed)) if playing else count
    with distributed.shared_draws():
        drawn = draw(stacks, count, recipe).to(state.device)
        code = position_code(drawn.position, state.generator.c_dim)
        losses, seen = _update_players(state, recipe, drawn, code, reached, perceptual, precision)
        if playing:
            losses |= _update_critic(state, recipe, drawn.image, seen, code, precision)
    means = distributed.floats(losses)
    state.iteration += 1
    state.images += recipe.batch
    if playing:
        means["probability"] = state.probability
        state.sign += (means["sign"] - state.sign) / ADAPT_EVERY
        if recipe.ramp and state.iteration % ADAPT_EVERY == 0:
            shown = ADAPT_EVERY * recipe.batch
            state.probability = adapted(
                state.probability, state.sign, shown, target=recipe.sign_target, ramp=recipe.ramp
            )
    update_average(state.average, state.generator, state.images, recipe.batch, recipe.half_life)
    update_average(state.average_encoder, state.encoder, state.images, recipe.batch, recipe.half_life)
    return means


def _group(state: TrainState) -> int:
    """Number of images that share a minibatch deviation."""
    return getattr(state.discriminator, state.discriminator.epilogue).group


def _update_players(
    state: TrainState,
    recipe: Recipe,
    drawn: Slices | Drawn,
    code: Tensor,
    reached: int,
    perceptual: Features | None,
    precision: torch.dtype,
) -> tuple[Losses, Tensor]:
    """Update encoder and generator, on the first `reached` images as reconstructions and on samples for the rest.

    Returns the losses, and the generated images as the discriminator saw them: through the acquisition models of the
    slices that they stand beside, augmented, detached.
    """
    g, playing = state.generator, state.images >= recipe.reconstruction_only
    _set_grad(state, recipe, players=True)
    for name in ("generator", "encoder"):
        state.optimisers[name].zero_grad(set_to_none=True)
        for group in state.optimisers[name].param_groups:  # momentum helps a descent and harms a game
            group["betas"] = (min(recipe.momentum, 0.5) if playing else recipe.momentum, 0.99)
    losses: Losses = {}
    loss, fakes = torch.zeros((), device=code.device), []
    if reached:
        loss, reconstruction, losses = _reconstruct(state, recipe, drawn, reached, perceptual, precision)
        fakes.append(reconstruction)
    if reached < len(code):
        fakes.append(drawn.seen(_sample(g, recipe, code[reached:], precision), slice(reached, None)))
    seen = torch.cat(fakes)
    if playing:
        seen = Augmentation(flip=recipe.flip)(seen, state.probability)
        losses["generator"] = generator_loss(_judge(state, seen, code, precision))
        loss = loss + recipe.adversarial * losses["generator"]
    loss.backward()
    if playing and recipe.path and state.iteration % recipe.path_every == 0:
        losses["path"], penalty = _path(state, code[: len(code) // 2])
        (recipe.adversarial * recipe.path * recipe.path_every * penalty).backward()
    for name, network in (("generator", g), ("encoder", state.encoder)):
        distributed.average_gradients(network)
        state.optimisers[name].step()
    return losses, seen.detach()


def _reconstruct(
    state: TrainState,
    recipe: Recipe,
    drawn: Slices | Drawn,
    reached: int,
    perceptual: Features | None,
    precision: torch.dtype,
) -> tuple[Tensor, Tensor, Losses]:
    """The weighted sum of the reconstruction's losses, the reconstruction of the first `reached` slices as their
    sources see it [N, C, H, W], and the losses by name.

    Every image is given its W+ and, of its noise maps, the coarsest k, k drawn evenly from none to all; the finer ones
    are 0. So each further map only adds what the coarser inputs do not tell, and these tell all that they can.
    """
    target = drawn.image[:reached]
    latent, means = state.encoder(target.to(precision))
    latent = latent.float()
    ws = latent + recipe.w_noise * torch.randn(latent.shape).to(latent.device)
    levels = torch.randint(len(means) + 1, (len(target),)).to(target.device)
    maps, nats = {}, torch.zeros((), device=target.device)
    for level, (name, mean) in enumerate(means.items()):
        mean, log_deviation = mean.float(), state.encoder.log_deviation[level]
        used = (levels > level).float()[:, None, None, None]
        error = torch.randn(mean.shape).to(mean.device)
        maps[name] = used * (mean + log_deviation.exp() * error)
        nats = nats + (used[:, 0, 0, 0] * information(mean, log_deviation)).mean()
    image = drawn.seen(state.generator.synthesis(ws, noise=maps or "none", dtype=precision), slice(reached))
    losses = {"pixel": (image - target).abs().mean(), "latent": latent.square().mean(), "information": nats}
    loss = recipe.pixel * losses["pixel"] + recipe.latent * losses["latent"] + recipe.information * nats
    if perceptual is not None:
        losses["perceptual"] = perceptual(image, target).mean()
        loss = loss + recipe.perceptual * losses["perceptual"]
    return loss, image, losses


def _sample(g: Any, recipe: Recipe, code: Tensor, precision: torch.dtype) -> Tensor:
    """Samples [N, C, H, W] at positions of codes [N, c_dim], of two mixed styles with probability `recipe.mixing`."""
    n = len(code)
    z, other = (torch.randn(n, g.z_dim).to(code.device) for _ in range(2))
    w = g.mapping(z, code)
    mean_w(g, w.detach())
    distributed.average([g.mapping.w_avg])
    crossover = torch.randint(1, g.num_ws, (n,))
    crossover[torch.rand(n) >= recipe.mixing] = g.num_ws
    mixed = mix_styles(g.broadcast(w), g.broadcast(g.mapping(other, code)), crossover.to(code.device))
    return g.synthesis(mixed, noise="random", dtype=precision)


def _path(state: TrainState, code: Tensor) -> tuple[Tensor, Tensor]:
    """Mean path length, whose running mean is updated, and the penalty, for fresh samples in float32."""
    g = state.generator
    w = g.mapping(torch.randn(len(code), g.z_dim).to(code.device), code)
    lengths = path_lengths(g.synthesis(g.broadcast(w), noise="random"), w)
    mean = distributed.floats({"path": lengths.mean()})["path"]
    state.path_mean = PATH_DECAY * state.path_mean + (1 - PATH_DECAY) * mean if state.path_mean else mean
    return lengths.mean(), path_penalty(lengths, state.path_mean)


def _update_critic(
    state: TrainState, recipe: Recipe, real: Tensor, fake: Tensor, code: Tensor, precision: torch.dtype
) -> Losses:
    """Update the discriminator, with R1 (in float32) every `recipe.r1_every` iterations. `fake` is augmented."""
    _set_grad(state, recipe, players=False)
    penalise = state.iteration % recipe.r1_every == 0
    real = Augmentation(flip=recipe.flip)(real, state.probability).detach().requires_grad_(penalise)
    logits = _judge(state, real, code, torch.float32 if penalise else precision)
    loss = discriminator_loss(logits, _judge(state, fake, code, precision))
    losses = {"discriminator": loss, "sign": logits.detach().sign().mean()}
    if penalise:
        losses["r1"] = r1_penalty(logits, real)
        loss = loss + recipe.r1_gamma / 2 * recipe.r1_every * losses["r1"]
    state.optimisers["discriminator"].zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(state.discriminator)
    state.optimisers["discriminator"].step()
    return losses


def _set_grad(state: TrainState, recipe: Recipe, *, players: bool) -> None:
    state.generator.requires_grad_(players)
    state.generator.synthesis.requires_grad_(players and state.images >= recipe.synthesis_from)
    state.encoder.requires_grad_(players)
    state.discriminator.requires_grad_(not players)


def _judge(state: TrainState, image: Tensor, code: Tensor, precision: torch.dtype) -> Tensor:
    return state.discriminator(image.to(precision), code).float()


def identity(recipe: Recipe, stacks: Stacks) -> dict[str, Any]:
    """The identity of a run: the recipe's fields, and the data's number of heads and a digest of three of them."""
    chosen = sorted({0, len(stacks) // 2, len(stacks) - 1})
    digest = hashlib.sha256()
    for head in chosen:
        digest.update(np.ascontiguousarray(stacks[head], dtype=np.float32).tobytes())
    return dataclasses.asdict(recipe) | {"heads": len(stacks), "data": digest.hexdigest()[:16]}


def check_identity(state: TrainState, recipe: Recipe, stacks: Stacks, path: Path) -> None:
    """Mark a fresh state as one of this recipe and data. Raises PriorError where it is of others, naming them."""
    # Older states say neither that they flip nor that they train the synthesis network from the start.
    mine, before = identity(recipe, stacks), {"flip": True, "synthesis_from": 0, **state.identity}
    other = [
        f"{key} {before[key]}, not {mine[key]}" if key in before else f"no {key}, not {mine[key]}"
        for key in mine
        if before.get(key) != mine[key]
    ]
    if state.identity and other:
        raise PriorError(f"{path}: was trained with {'; '.join(other)}; use the same again or another folder")
    state.identity = mine


def train(
    state: TrainState,
    recipe: Recipe,
    stacks: Stacks,
    out: Path,
    *,
    images: int,
    perceptual: Features | None = None,
    precision: torch.dtype | None = None,
    measure: Callable[[TrainState], dict[str, float]] | None = None,
    shown: tuple[Tensor, Tensor] | None = None,
    save_every: float = 300.0,
    snapshot_every: float = 1800.0,
    report: Callable[[str], None] = print,
    report_every: float = 20.0,
) -> None:
    """Train until `images` slices have been shown, writing into the folder `out` (see `record.Record`).

    `state.pt` is written every `save_every` seconds, at snapshots, at the end, and when interrupted (Ctrl-C ends the
    run after the iteration that is under way), so that a resumed run equals an uninterrupted one to the last bit.
    Every `snapshot_every` seconds of training, and at the end, a snapshot is taken: pictures of the slices
    `shown` ([N, C, H, W] with positions [N]), and `measure(state)`, whose numbers must include "score", higher being
    better. They go into `state.record["snapshots"]`; the snapshot of the best score is `best.safetensors`.
    Started by torchrun, the processes train together, and only the first writes and reports.

    `precision` (see `train_iteration`) is by default `native_precision`, of processes that train together the more
    accurate of theirs.

    Raises:
        KeyboardInterrupt: after the state was written, when the run was interrupted.
        PriorError: for a state of another recipe or of other data.
    """
    check_identity(state, recipe, stacks, out / "state.pt")
    with distributed.process_group(), _interruption() as interrupted, ExitStack() as closing:
        if precision is None:
            exact = distributed.anyone(native_precision(state.device) == torch.float32, state.device)
            precision = torch.float32 if exact else torch.bfloat16
        record, stopped = None, False
        if distributed.rank() == 0:
            every = {"save_every": save_every, "snapshot_every": snapshot_every, "report_every": report_every}
            record = Record(state, out, images, precision, measure, shown, report, **every)
            closing.callback(record.close)
        while state.images < images and not stopped:
            begun = time.monotonic()
            losses = train_iteration(state, recipe, stacks, perceptual, precision)
            stopped = distributed.anyone(bool(interrupted), state.device)
            if record:
                record.add(losses, time.monotonic() - begun, interrupted=stopped)
        distributed.anyone(False, state.device)  # nobody leaves before the files are written
    if stopped:
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
