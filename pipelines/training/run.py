"""One run of training, of heads, pictures or slices: from where its folder is, to a state to be exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brgm_med.errors import PriorError, UsageError
from brgm_med.pipelines.console import announce
from brgm_med.training import distributed
from brgm_med.training.loop import Recipe
from brgm_med.training.loop import train as run_training
from brgm_med.training.measure import spread
from brgm_med.training.state import Architecture, TrainState

if TYPE_CHECKING:
    from brgm_med.perceptual import LPIPS

FEWEST_TO_HOLD_OUT = 4


def split(total: int, heads: int | None = None, held_out: int | None = None, what: str = "heads") -> tuple[int, int]:
    """How many of `total` heads (or `what` else there is) are trained on, and how many after them are held out.

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
        raise UsageError(f"{heads} {what} to train on and {held_out} to hold out: the folder holds {total} {what}")
    return heads, held_out


SNAPSHOT = "snapshot.safetensors"
BEST = "best.safetensors"
PICTURED = 8
"""Slices in the pictures of a snapshot."""

FEWEST = 4
"""Held-out slices that can be measured on."""


def lpips_distance(weights: Path | None) -> LPIPS | None:
    """LPIPS on AlexNet as the reconstruction's perceptual term; None, and said so, where no weights are at hand."""
    from brgm_med.perceptual import LPIPS
    from brgm_med.weights import HOW_TO, lpips_features, lpips_heads

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
    places = torch.cat([torch.linspace(-1, 1, len(stack))[::2] for stack in heads])
    return torch.cat([stack[::2] for stack in heads]), places


def quality(slices: Tensor, positions: Tensor, lpips: LPIPS | None) -> Callable[[TrainState], dict[str, float]]:
    """What a snapshot is worth on held-out `slices` [N, C, H, W], in features of `lpips`, else of its discriminator."""
    from brgm_med.networks.discriminator import DiscriminatorFeatures
    from brgm_med.training.measure import measure, score

    def numbers(state: TrainState) -> dict[str, float]:
        announce(f"{state.images / 1000:.1f} kimg  measuring on held-out slices")
        features = DiscriminatorFeatures(state.discriminator) if lpips is None else lpips
        seen, places = slices.to(state.device), positions.to(state.device)
        found = measure(state.average, state.average_encoder, seen, places, features)
        return {**found, "score": score(found)}

    return numbers


def finished_state(run: Path, architecture: Architecture) -> tuple[TrainState, dict[str, float]]:
    """The state of a run to be exported, see `export`, and what was measured of it."""
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


def run(
    out: Path,
    architecture: Architecture,
    recipe: Recipe,
    stacks: Sequence[Tensor],
    measured: Sequence[Tensor],
    *,
    kimg: float,
    lpips_weights: Path | None,
    text: str,
) -> None:
    """Train on `stacks`, from where `out` is, to `kimg` thousand images; snapshots are measured on the stacks
    `measured` where these have at least the `FEWEST` slices that it takes. `text` says what is trained on."""
    state = TrainState.new(architecture, seed=recipe.seed, rate=recipe.rate, device=distributed.device())
    if (out / "state.pt").is_file():
        state.load(out / "state.pt")
        announce(f"resumed at {state.images / 1000:.1f} kimg")
    elif (out / SNAPSHOT).is_file():
        state.load_snapshot(out / SNAPSHOT)
        announce(f"went on from {SNAPSHOT} at {state.images / 1000:.1f} kimg, with new optimisers")
    perceptual = lpips_distance(lpips_weights)
    announce(f"{text}, to {kimg:g} kimg")
    shown = every_second(measured if len(measured) else stacks)
    few = spread(shown[1], PICTURED)
    enough = len(measured) > 0 and len(shown[0]) >= FEWEST
    if len(measured) and not enough:
        announce(f"snapshots are not measured: that takes {FEWEST} held out")
    run_training(
        state,
        recipe,
        stacks,
        out,
        images=int(kimg * 1000),
        perceptual=perceptual,
        measure=quality(*shown, perceptual) if enough else None,
        shown=(shown[0][few], shown[1][few]),
        report=announce,
    )
