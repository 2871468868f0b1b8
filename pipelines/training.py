"""`brgm-med train`: a folder of heads in, a run folder with a growing prior out.

RUN/template.nii.gz, mask.nii.gz   the space of the prior; those that are there already are used
RUN/cache/                         every head, registered and normalised, a file each
RUN/prepared.json                  which heads those are, how they lie in the template, and which are held out
RUN/state.pt and others            see `brgm_med.training.record`
RUN/prior/                         the bundle
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import CannotWriteError, PriorError
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.picture_preparation import holds_pictures
from brgm_med.pipelines.preparation import prepare, prepared, slices_of
from brgm_med.pipelines.provenance import describe
from brgm_med.pipelines.setting import set_up_torch
from brgm_med.training import distributed
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Recipe
from brgm_med.training.loop import train as run_training
from brgm_med.training.measure import spread
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.prepare import heads_in

if TYPE_CHECKING:
    from brgm_med.perceptual import LPIPS

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


def export(run: Path, out: Path, *, name: str, description: str, licence: str, card: str) -> None:
    """Write the prior of a run folder as a bundle into `out` (replaced if it exists).

    It is that of `best.safetensors`, the snapshot that measured best, where there is one, else that of the last state;
    its metadata say which. `licence` is the text of the bundle's LICENSE, `card` of its docs/README.md. Raises
    PriorError where the run has no state yet, or what it holds is damaged.
    """
    state, metrics = finished_state(run, Architecture())
    record = prepared(run)
    metadata = describe(name, description) | {
        "grid": record["grid"],
        "normalisation": "air -1, mean of the template's brain mask 0",
        "heads": [head["name"] for head in record["heads"]],
        "held_out": [head["name"] for head in record["held_out"]],
        "eval_metrics": metrics,
    }
    export_bundle(
        state,
        Architecture(),
        slices_of(run),
        out,
        metadata=metadata,
        template=run / "template.nii.gz",
        mask=run / "mask.nii.gz",
        card=card,
        licence=licence,
    )


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


def train(
    data: Path,
    out: Path,
    *,
    kimg: float,
    heads: int | None = None,
    held_out: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    lpips_weights: Path | None = None,
) -> None:
    """Train on the first `heads` heads (or pictures) of `data`, by name, until `kimg` thousand slices have been shown.

    The `held_out` heads that follow are never trained on: snapshots are measured on them (see `split`). Resumes from
    `out/state.pt` where there is one, else goes on from `out/snapshot.safetensors` (such as the repository's
    `resume/`), without the optimisers' moments. At the end the prior is written to `out/prior`, a bundle that
    `brgm-med sr --prior` takes.
    """
    pictures = holds_pictures(data, out)
    if not pictures:
        heads_in(data, without=out)  # refuses before anything is made
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    set_up_torch(threads)
    if pictures:
        from brgm_med.pipelines.picture_training import train_pictures

        train_pictures(data, out, kimg=kimg, count=heads, held_out=held_out, seed=seed, lpips_weights=lpips_weights)
        return
    with distributed.process_group():
        if distributed.rank() == 0:
            prepare(data, out, heads, held_out, torch.get_num_threads())
        distributed.anyone(False, distributed.device())  # the others wait
        stacks, measured = slices_of(out), slices_of(out, "held_out")
        held = f"{len(measured)} head{'s' * (len(measured) != 1)} held out"
        text = f"{len(stacks)} heads x {len(stacks[0])} slices, {held}, {torch.get_num_threads()} threads"
        recipe = Recipe(seed=seed)
        run(out, Architecture(), recipe, stacks, measured, kimg=kimg, lpips_weights=lpips_weights, text=text)
        if distributed.rank() == 0:
            finish(data, out)


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


def finish(data: Path, out: Path) -> None:
    """Write the prior of the run `out`, with a card that says what is known of it."""
    record = prepared(out)
    text = f"Trained by brgm-med {__version__} on {len(record['heads'])} heads of {data.name}. Research only."
    announce("writing the prior")
    export(out, out / "prior", name=out.name, description=text, licence="As the training data's.\n", card=text + "\n")
    announce(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
