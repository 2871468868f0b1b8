"""`brgm-med train`: a folder of heads in, a run folder with a growing prior out."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch

from brgm_med._version import __version__
from brgm_med.errors import CannotWriteError, PriorError
from brgm_med.pipelines.provenance import write_json
from brgm_med.pipelines.steps import set_up_torch
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Features, Recipe
from brgm_med.training.loop import train as run_training
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in, prepare_stacks

SNAPSHOT = "snapshot.safetensors"


def say(line: str) -> None:
    print(line, flush=True)


def prepare(data: Path, out: Path, heads: int | None) -> np.ndarray:
    """Register every head of `data` to their own mean, once; later calls find the result in `out`.

    Leaves `template.nii.gz`, `mask.nii.gz`, `slices.npy` ([heads, Y, 1, Z, X], float16) and `prepared.json`.
    """
    from brgm_med.transforms.average import build_template

    if not (out / "prepared.json").is_file():
        paths = heads_in(data)[:heads]
        members = Heads(paths)
        template, _ = build_template(members, progress=say)
        template.save(out)
        box = {"shape": list(template.box.shape), "affine": template.box.affine.tolist()}
        stacks, poses, correlations = prepare_stacks(members, template, say)
        np.save(out / "slices.npy", stacks)
        record = {"grid": box, "heads": [p.name for p in paths], "correlations": correlations}
        record["poses"] = [p.tolist() for p in poses]
        write_json(out / "prepared.json", record, force=True)
    return np.load(out / "slices.npy", mmap_mode="r")


def run_box(run: Path) -> Grid:
    """The grid of a run's slices, from its `prepared.json`."""
    grid = json.loads((run / "prepared.json").read_text())["grid"]
    x, y, z = grid["shape"]
    return Grid((x, y, z), np.asarray(grid["affine"], float))


def export(run: Path, out: Path, *, name: str, description: str, licence: str, card: str) -> None:
    """Write the prior of a run folder as a bundle into `out` (replaced if it exists).

    `licence` is the text of the bundle's LICENSE, `card` of its docs/README.md. Raises PriorError where the run has
    no state yet.
    """
    if not (run / "state.pt").is_file():
        raise PriorError(f"{run}: holds no training state (state.pt); run brgm-med train first")
    architecture = Architecture()
    state = TrainState.new(architecture, seed=0, rate=0.0)
    state.load(run / "state.pt")
    prepared = json.loads((run / "prepared.json").read_text())
    metadata = {
        "name": name,
        "version": __version__,
        "description": description,
        "brgm_med_version": __version__,
        "monai_version": importlib.metadata.version("monai"),
        "pytorch_version": importlib.metadata.version("torch"),
        "intended_use": "research only, not for diagnosis",
        "grid": prepared["grid"],
        "normalisation": "air -1, mean of the template's brain mask 0",
        "heads": prepared["heads"],
    }
    stacks = np.load(run / "slices.npy", mmap_mode="r")
    export_bundle(
        state,
        architecture,
        stacks,
        out,
        metadata=metadata,
        template=run / "template.nii.gz",
        mask=run / "mask.nii.gz",
        card=card,
        licence=licence,
    )


def lpips_distance(weights: Path | None) -> Features | None:
    """LPIPS on AlexNet as the reconstruction's perceptual term; None, and said so, where no weights are at hand."""
    from brgm_med.perceptual import LPIPS
    from brgm_med.weights import HOW_TO, lpips_features, lpips_heads

    try:
        return LPIPS("alex", lpips_features("alex", weights), lpips_heads("alex"))
    except PriorError as error:
        if weights is not None:
            raise
        say(f"training without a perceptual term: {error if HOW_TO in str(error) else HOW_TO}")
        return None


def train(
    data: Path,
    out: Path,
    *,
    kimg: float,
    heads: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    lpips_weights: Path | None = None,
) -> None:
    """Train until `kimg` thousand slices have been shown; resumes from `out/state.pt` where there is one, else from
    `out/snapshot.safetensors` (such as the repository's `resume/`), without the optimisers' moments.

    At the end the prior is written to `out/prior`, a bundle that `brgm-med sr --prior` takes.
    """
    if not (out / "prepared.json").is_file():
        heads_in(data)  # refuses before anything is made
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    set_up_torch(threads)
    stacks = prepare(data, out, heads)
    recipe, architecture = Recipe(seed=seed), Architecture()
    state = TrainState.new(architecture, seed=seed, rate=recipe.rate)
    if (out / "state.pt").is_file():
        state.load(out / "state.pt")
        say(f"resumed at {state.images / 1000:.1f} kimg")
    elif (out / SNAPSHOT).is_file():
        state.load_snapshot(out / SNAPSHOT)
        say(f"went on from {SNAPSHOT} at {state.images / 1000:.1f} kimg, with new optimisers")
    perceptual = lpips_distance(lpips_weights)
    say(f"{stacks.shape[0]} heads x {stacks.shape[1]} slices, {torch.get_num_threads()} threads, to {kimg:g} kimg")
    run_training(state, recipe, stacks, out, images=int(kimg * 1000), perceptual=perceptual, report=say)
    text = f"Trained by brgm-med {__version__} on {stacks.shape[0]} heads of {data.name}. Unmeasured. Research only."
    export(out, out / "prior", name=out.name, description=text, licence="As the training data's.\n", card=text + "\n")
    say(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
