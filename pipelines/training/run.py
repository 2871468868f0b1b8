"""A run of training on heads, pictures or slices: a training set in, a growing state, and the prior out of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from brgm_med.errors import PriorError, UsageError
from brgm_med.networks.discriminator import DiscriminatorFeatures
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.console import announce
from brgm_med.training import distributed
from brgm_med.training.loop import Recipe
from brgm_med.training.loop import train as run_training
from brgm_med.training.measure import measure, score, spread
from brgm_med.training.state import Architecture, TrainState
from brgm_med.weights import HOW_TO, lpips_features, lpips_heads

Kind = Literal["heads", "pictures"]
FIELDS: dict[Kind, tuple[str, ...]] = {"heads": ("name", "sha256", "file"), "pictures": ("name", "sha256")}
"""Fields of an entry of `prepared.json`."""

LICENCE = "As the training data's.\n"
FEWEST_TO_HOLD_OUT = 4


@dataclass(frozen=True)
class TrainingSet:
    """`stacks`: item h is head h's slices [Y, C, H, W], or a picture [1, C, H, W]; `held_out`: those that snapshots are
    measured on; the `networks` and the `recipe` for them; `text` says what they are."""

    stacks: Sequence[Tensor]
    held_out: Sequence[Tensor]
    networks: Architecture
    recipe: Recipe
    text: str


class Material(Protocol):
    """A kind of training data: the modules `heads` and `pictures`."""

    def prepare(self, data: Path, out: Path, count: int | None, held_out: int | None) -> None:
        """Write what is trained on, and `prepared.json`, into the run folder `out`."""

    def training_set(self, run: Path, seed: int) -> TrainingSet:
        """Read the files that `prepare` wrote."""

    def finish(self, data: Path, run: Path) -> None:
        """Write the prior of the run into `run/prior`, with a card that says what is known of it."""


def prepared(run: Path, kind: Kind) -> dict[str, Any]:
    """A run's `prepared.json`: lists `kind` (trained on) and `held_out`. Raises PriorError where there is none, or a
    damaged one, or one of another kind."""
    path = run / "prepared.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        entries = [entry for part in (kind, "held_out") for entry in record[part]]
        if all(isinstance(entry[field], str) for entry in entries for field in FIELDS[kind]):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PriorError(
        f"{path}: missing or damaged, or not of {kind}; remove it and run brgm-med train again, or use another --out"
    )


def refuse_others(run: Path, kind: Kind, trained: list[str], held_out: list[str]) -> None:
    """Raise PriorError where `run` was trained on files of other SHA-256 than `trained` and `held_out`."""
    if not ((run / "state.pt").is_file() and (run / "prepared.json").is_file()):
        return
    before = [[entry["sha256"] for entry in prepared(run, kind)[part]] for part in (kind, "held_out")]
    if before != [trained, held_out]:
        raise PriorError(
            f"{run}: was trained on {len(before[0])} other {kind}, with {len(before[1])} held out; give the same "
            "--data, --heads and --held-out again, or another --out"
        )


def split(total: int, heads: int | None = None, held_out: int | None = None, kind: str = "heads") -> tuple[int, int]:
    """The numbers, of `total` heads (or pictures), of those trained on and of those held out after them.

    By default one tenth is held out, at least one, of four heads or more, and all others are trained on. Raises
    UsageError where there are not so many.
    """
    if held_out is None:
        held_out = max(1, total // 10) if total >= FEWEST_TO_HOLD_OUT else 0
        if heads is not None:
            held_out = max(0, min(held_out, total - heads))
    if heads is None:
        heads = total - held_out
    if heads < 1 or heads + held_out > total:
        raise UsageError(f"{heads} {kind} to train on and {held_out} to hold out: the folder holds {total} {kind}")
    return heads, held_out


SNAPSHOT = "snapshot.safetensors"
BEST = "best.safetensors"
PICTURED = 8
"""Slices in the pictures of a snapshot."""

FEWEST = 4
"""Held-out slices that can be measured on."""


def lpips_distance(weights: Path | None) -> LPIPS | None:
    """LPIPS on AlexNet as the reconstruction's perceptual term; None, and said so, where no weights are at hand."""
    try:
        return LPIPS("alex", lpips_features("alex", weights), lpips_heads("alex")).to(distributed.device())
    except PriorError as error:
        if weights is not None:
            raise
        announce(f"training without a perceptual term: {error if HOW_TO in str(error) else HOW_TO}")
        return None


def every_second(stacks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Every second slice of all heads: [N, C, H, W] and positions [N], -1 (back) to 1 (front)."""
    heads = [stacks[h] for h in range(len(stacks))]
    positions = torch.cat([torch.linspace(-1, 1, len(stack))[::2] for stack in heads])
    return torch.cat([stack[::2] for stack in heads]), positions


def quality(slices: Tensor, positions: Tensor, lpips: LPIPS | None) -> Callable[[TrainState], dict[str, float]]:
    """A snapshot's numbers on held-out `slices` [N, C, H, W], in features of `lpips`, else of its discriminator."""

    def numbers(state: TrainState) -> dict[str, float]:
        announce(f"{state.images / 1000:.1f} kimg  measuring on held-out slices")
        features = DiscriminatorFeatures(state.discriminator) if lpips is None else lpips
        validation = slices.to(state.device), positions.to(state.device)
        quality = measure(state.average, state.average_encoder, *validation, features)
        return {**quality, "score": score(quality)}

    return numbers


def finished_state(run: Path, architecture: Architecture) -> tuple[TrainState, dict[str, float]]:
    """The state of a run to be exported and its measured quality.

    It is that of `best.safetensors`, the snapshot that measured best, where there is one, else the last state; its
    record says which. Raises PriorError where the run has no state yet, or a damaged one.
    """
    if not (run / "state.pt").is_file():
        raise PriorError(f"{run}: holds no training state (state.pt); run brgm-med train first")
    state = TrainState.new(architecture, seed=0, rate=0.0)
    state.load(run / "state.pt")
    trained, exported = state.images, "the last state"
    if (run / BEST).is_file():
        state.load_snapshot(run / BEST)
        exported = "the snapshot of the highest score"
    measured = [s for s in state.record.get("snapshots", []) if s["images"] == state.images]
    state.record |= {"exported": exported, "images_at_the_end": trained}
    return state, {key: value for s in measured for key, value in s.items() if key not in ("images", "seconds")}


def run(out: Path, data: TrainingSet, *, kimg: float, lpips_weights: Path | None) -> None:
    """Train on `data`, from the state that `out` holds, to `kimg` thousand images; snapshots are measured on the stacks
    held out where these have at least the `FEWEST` slices that it takes."""
    recipe = data.recipe
    state = TrainState.new(data.networks, seed=recipe.seed, rate=recipe.rate, device=distributed.device())
    if (out / "state.pt").is_file():
        state.load(out / "state.pt")
        announce(f"resumed at {state.images / 1000:.1f} kimg")
    elif (out / SNAPSHOT).is_file():
        state.load_snapshot(out / SNAPSHOT)
        announce(f"went on from {SNAPSHOT} at {state.images / 1000:.1f} kimg, with new optimisers")
    perceptual = lpips_distance(lpips_weights)
    announce(f"{data.text}, to {kimg:g} kimg")
    slices, positions = every_second(data.held_out if len(data.held_out) else data.stacks)
    few = spread(positions, PICTURED)
    enough = len(data.held_out) > 0 and len(slices) >= FEWEST
    if len(data.held_out) and not enough:
        announce(f"snapshots are not measured: that takes {FEWEST} held out")
    run_training(
        state,
        recipe,
        data.stacks,
        out,
        images=int(kimg * 1000),
        perceptual=perceptual,
        measure=quality(slices, positions, perceptual) if enough else None,
        shown=(slices[few], positions[few]),
        report=announce,
    )
