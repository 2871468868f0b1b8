"""Training on heads that were registered and sliced already, one file each (see `steps.preprocess.cut_slices`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import make_folder
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import NORMALISATION
from brgm_med.pipelines.training.run import TrainingSet, finished_state, run, split
from brgm_med.priors import DEFAULT
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.priors.writing import describe
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture

ENDING = "_slices.safetensors"
MACHINE = ("seconds", "runs")
"""Entries of a training record that are of the machine: left out, so that a run gives the same prior anywhere."""


def train_on_slices(
    slices: Sequence[Path],
    out: Path,
    *,
    kimg: float,
    template: str = DEFAULT,
    held_out: int | None = None,
    architecture: Mapping[str, Any] | None = None,
    threads: int | None = None,
    seed: int = 0,
    lpips_weights: Path | None = None,
) -> Path:
    """Train a prior on `slices` until `kimg` thousand have been shown; returns its bundle, `out/prior`.

    `template` is the prior to whose template the heads were registered: the new one has the same. The last `held_out`
    files (default: a tenth, of four heads or more) measure the snapshots. `architecture` changes fields of
    `training.state.Architecture`. An interrupted run goes on in `out`. Where nothing is held out, the bundle is the
    same to the last bit for the same slices, seed and threads; else the best snapshot is chosen, and these are taken by
    the clock. Raises InputRefusedError for slices that do not fit the template's box, UsageError for too few heads,
    PriorError for a damaged prior or run.
    """
    first, after = split(len(slices), None, held_out)
    if first < 2:
        raise UsageError(f"{first} head to train on: a prior takes two or more")
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (architecture or {}).items()}
        networks = replace(Architecture(), **fields)
    except TypeError as error:
        raise UsageError(f"architecture: {error}") from error
    bundle = load(template)
    stacks = [_stack(path, bundle) for path in slices]
    make_folder(out)
    set_up_torch(threads)
    text = f"{first} heads x {len(stacks[0])} slices, {after} held out"
    data = TrainingSet(stacks[:first], stacks[first:], networks, Recipe(seed=seed), text)
    run(out, data, kimg=kimg, lpips_weights=lpips_weights)
    state, metrics = finished_state(out, networks)
    state.record = {k: _timeless(v) for k, v in state.record.items() if k not in MACHINE}
    names = [path.name.removesuffix(ENDING) for path in slices]
    card = f"Trained by brgm-med {__version__} on {first} heads, in the space of {bundle.name}. Research only."
    metadata = describe(out.name, card) | {
        "grid": bundle.metadata["grid"],
        "normalisation": NORMALISATION,
        "heads": names[:first],
        "held_out": names[first:],
        "eval_metrics": metrics,
        "template_of": {"name": bundle.name, "sha256": bundle.sha256},
    }
    announce("writing the prior")
    licence = "As the training data's and the template's.\n"
    space = (bundle.folder / "template.nii.gz", bundle.folder / "mask.nii.gz")
    export_bundle(
        state, networks, data.stacks, out / "prior", metadata=metadata, card=card + "\n", licence=licence, space=space
    )
    return out / "prior"


def _stack(path: Path, bundle: PriorBundle) -> Tensor:
    """The slices [Y, 1, Z, X] of a head in the box of `bundle`. Raises InputRefusedError for another box."""
    x, y, z = bundle.grid_shape
    try:
        stack = load_file(path)["stack"]
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise InputRefusedError(f"{path}: holds no slices ({error}); cut them again") from error
    if stack.shape != (y, 1, z, x):
        shape = " x ".join(str(n) for n in stack.shape)
        raise InputRefusedError(f"{path}: {shape} voxels are not those of {bundle.name}'s box; register it to that")
    return stack


def _timeless(value: Any) -> Any:
    """The record without the seconds that it took."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "seconds"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
