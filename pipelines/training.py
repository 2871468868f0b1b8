"""`brgm-med train`: a folder of heads in, a run folder with a growing prior out.

RUN/template.nii.gz, mask.nii.gz   the space of the prior; those that are there already are used
RUN/cache/                         every head, registered and normalised, a file each
RUN/prepared.json                  which heads those are, how they lie in the template, and which are held out
RUN/state.pt and others            see `brgm_med.training.record`
RUN/prior/                         the bundle
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch
from monai.data import CacheDataset
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import CannotWriteError, PriorError, UsageError
from brgm_med.pipelines.provenance import write_json
from brgm_med.pipelines.steps import set_up_torch
from brgm_med.priors.bundle import digest
from brgm_med.training import distributed
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Features, Recipe
from brgm_med.training.loop import train as run_training
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in, in_memory, prepare_heads
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid

SNAPSHOT = "snapshot.safetensors"
BEST = "best.safetensors"
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
FEWEST_TO_HOLD_OUT = 4
Part = Literal["heads", "held_out"]


def say(line: str) -> None:
    if distributed.rank() == 0:
        print(line, flush=True)


def split(total: int, heads: int | None = None, held_out: int | None = None) -> tuple[int, int]:
    """How many of `total` heads are trained on, and how many of those after them are held out.

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
        raise UsageError(f"{heads} heads to train on and {held_out} to hold out: the folder holds {total} heads")
    return heads, held_out


class Watched(Heads):
    """Heads that say, every 10 s, which of them is read."""

    _said = time.monotonic()

    def __getitem__(self, index: int) -> tuple[Tensor, Grid]:  # type: ignore[override]
        if time.monotonic() - self._said >= 10:
            self._said = time.monotonic()
            say(f"template: at head {index + 1} of {len(self)}")
        return super().__getitem__(index)


def find_template(paths: list[Path], out: Path) -> None:
    """Build the template of the heads at `paths` in `out`, unless it is there."""
    from brgm_med.transforms.average import build_template

    names = ("template.nii.gz", "mask.nii.gz")
    if all((out / name).is_file() for name in names):
        say(f"template: the one that {out} holds")
        return
    template, _ = build_template(Watched(paths), progress=say)
    try:
        with tempfile.TemporaryDirectory(prefix=".brgm-", dir=out) as folder:
            template.save(Path(folder))
            for name in names:
                os.replace(Path(folder) / name, out / name)
    except OSError as error:
        raise CannotWriteError(f"{out}: the template cannot be written ({error.strerror}); free space") from error


def prepare(data: Path, out: Path, heads: int | None, held_out: int | None, workers: int) -> None:
    """Register the heads of `data` that are used to their template; what `out` holds already is not made again.

    Raises PriorError where `out` was trained on other heads.
    """
    paths = heads_in(data, without=out)
    first, after = split(len(paths), heads, held_out)
    paths = paths[: first + after]
    hashes = [digest(path) for path in paths]
    if (out / "state.pt").is_file() and (out / "prepared.json").is_file():
        before = [[head["sha256"] for head in prepared(out)[part]] for part in ("heads", "held_out")]
        if before != [hashes[:first], hashes[first:]]:
            raise PriorError(
                f"{out}: was trained on {len(before[0])} other heads, with {len(before[1])} held out; give the same "
                "--data, --heads and --held-out again, or another --out"
            )
    find_template(paths[:first], out)
    box = centred_grid(BOX_SHAPE, SPACING, (0.0, 0.0, 0.0))
    made = prepare_heads(paths, out, box, workers=workers, report=say)
    entries = []
    for path, known, file, head in zip(paths, hashes, made.files, made, strict=True):
        entry = {"name": path.name, "sha256": known, "file": file.name}
        entries.append(entry | {"correlation": float(head["correlation"]), "pose": head["pose"].tolist()})
    grid = {"shape": list(box.shape), "affine": box.affine.tolist()}
    record = {"grid": grid, "heads": entries[:first], "held_out": entries[first:]}
    write_json(out / "prepared.json", record, force=True)


def prepared(run: Path) -> dict[str, Any]:
    """A run's `prepared.json`. Raises PriorError where there is none, or a damaged one."""
    try:
        record: dict[str, Any] = json.loads((run / "prepared.json").read_text())
        if all(isinstance(head["file"], str) for part in ("heads", "held_out") for head in record[part]):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PriorError(f"{run / 'prepared.json'}: missing or damaged; remove it and run brgm-med train again")


def slices_of(run: Path, part: Part = "heads") -> CacheDataset:
    """The slices of a run: item h is training (or held-out) head h's [Y, 1, Z, X], float16, in memory.

    Raises PriorError where a file is missing or damaged: `brgm-med train` makes it anew.
    """
    files = [run / "cache" / head["file"] for head in prepared(run)[part]]
    return in_memory(files)


def lpips_distance(weights: Path | None) -> Features | None:
    """LPIPS on AlexNet as the reconstruction's perceptual term; None, and said so, where no weights are at hand."""
    from brgm_med.perceptual import LPIPS
    from brgm_med.weights import HOW_TO, lpips_features, lpips_heads

    try:
        return LPIPS("alex", lpips_features("alex", weights), lpips_heads("alex")).to(distributed.device())
    except PriorError as error:
        if weights is not None:
            raise
        say(f"training without a perceptual term: {error if HOW_TO in str(error) else HOW_TO}")
        return None


def export(run: Path, out: Path, *, name: str, description: str, licence: str, card: str) -> None:
    """Write the prior of a run folder as a bundle into `out` (replaced if it exists).

    It is that of `best.safetensors`, the snapshot that measured best, where there is one, else that of the last state;
    its metadata say which. `licence` is the text of the bundle's LICENSE, `card` of its docs/README.md. Raises
    PriorError where the run has no state yet, or what it holds is damaged.
    """
    if not (run / "state.pt").is_file():
        raise PriorError(f"{run}: holds no training state (state.pt); run brgm-med train first")
    architecture = Architecture()
    state = TrainState.new(architecture, seed=0, rate=0.0)
    state.load(run / "state.pt")
    trained, exported = state.images, "the last state"
    if (run / BEST).is_file():
        state.load_snapshot(run / BEST)
        exported = "the snapshot of the highest score"
    measured = [s for s in state.record.get("snapshots", []) if s["images"] == state.images]
    state.record |= {"exported": exported, "images_at_the_end": trained}
    record = prepared(run)
    metadata = describe(name, description) | {
        "grid": record["grid"],
        "normalisation": "air -1, mean of the template's brain mask 0",
        "heads": [head["name"] for head in record["heads"]],
        "held_out": [head["name"] for head in record["held_out"]],
        "eval_metrics": {key: value for s in measured for key, value in s.items() if key not in ("images", "seconds")},
    }
    export_bundle(
        state,
        architecture,
        slices_of(run),
        out,
        metadata=metadata,
        template=run / "template.nii.gz",
        mask=run / "mask.nii.gz",
        card=card,
        licence=licence,
    )


def describe(name: str, description: str) -> dict[str, Any]:
    """What MONAI's schema of a bundle's metadata asks for, but for `network_data_format`."""
    version = importlib.metadata.version
    return {
        "schema": SCHEMA,
        "name": name,
        "version": __version__,
        "changelog": {__version__: description},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "brgm-med": __version__,
            "nibabel": version("nibabel"),
            "safetensors": version("safetensors"),
        },
        "supported_apps": {},
        "task": "Prior of coronal slices of heads, for their Bayesian reconstruction",
        "description": description,
        "authors": f"trained by brgm-med {__version__}",
        "copyright": "see LICENSE",
        "data_type": "nibabel",
        "image_classes": "coronal slices of registered heads; air -1, mean of the brain 0",
        "intended_use": "research only, not for diagnosis",
        "references": [
            "Marinescu, Moyer, Golland. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567",
            "Karras et al. Analyzing and Improving the Image Quality of StyleGAN. arXiv:1912.04958",
        ],
    }


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
    """Train on the first `heads` heads of `data`, by name, until `kimg` thousand slices have been shown.

    The `held_out` heads that follow are never trained on: snapshots are measured on them (see `split`). Resumes from
    `out/state.pt` where there is one, else goes on from `out/snapshot.safetensors` (such as the repository's
    `resume/`), without the optimisers' moments. At the end the prior is written to `out/prior`, a bundle that
    `brgm-med sr --prior` takes.
    """
    heads_in(data, without=out)  # refuses before anything is made
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    set_up_torch(threads)
    with distributed.process_group():
        if distributed.rank() == 0:
            prepare(data, out, heads, held_out, torch.get_num_threads())
        distributed.anyone(False, distributed.device())  # the others wait
        stacks, measured = slices_of(out), slices_of(out, "held_out")
        recipe, device = Recipe(seed=seed), distributed.device()
        state = TrainState.new(Architecture(), seed=seed, rate=recipe.rate, device=device)
        if (out / "state.pt").is_file():
            state.load(out / "state.pt")
            say(f"resumed at {state.images / 1000:.1f} kimg")
        elif (out / SNAPSHOT).is_file():
            state.load_snapshot(out / SNAPSHOT)
            say(f"went on from {SNAPSHOT} at {state.images / 1000:.1f} kimg, with new optimisers")
        perceptual = lpips_distance(lpips_weights)
        held = f"{len(measured)} head{'s' * (len(measured) != 1)} held out"
        threads = torch.get_num_threads()
        say(f"{len(stacks)} heads x {len(stacks[0])} slices, {held}, {threads} threads, to {kimg:g} kimg")
        run_training(state, recipe, stacks, out, images=int(kimg * 1000), perceptual=perceptual, report=say)
        if distributed.rank() == 0:
            finish(data, out)


def finish(data: Path, out: Path) -> None:
    """Write the prior of the run `out`, with a card that says what is known of it."""
    record = prepared(out)
    text = f"Trained by brgm-med {__version__} on {len(record['heads'])} heads of {data.name}. Research only."
    say("writing the prior")
    export(out, out / "prior", name=out.name, description=text, licence="As the training data's.\n", card=text + "\n")
    say(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
