"""Training on a folder of heads: their template, prepared heads and their record in RUN, and the prior of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import CannotWriteError
from brgm_med.files import digest, write_json
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.training.run import LICENCE, TrainingSet, finished_state, prepared, refuse_others, split
from brgm_med.priors.writing import describe
from brgm_med.staging import together
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture
from brgm_med.transforms.average import build_template
from brgm_med.transforms.cache import cached_stack
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in, prepare_heads
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid

Part = Literal["heads", "held_out"]
NORMALISATION = "air -1, mean of the template's brain mask 0"


class Watched(Heads):
    """Heads that say, every 10 s, which of them is read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self._said = time.monotonic()

    def __getitem__(self, index: int) -> tuple[Tensor, Grid]:  # type: ignore[override]
        if time.monotonic() - self._said >= 10:
            self._said = time.monotonic()
            announce(f"template: at head {index + 1} of {len(self)}")
        return super().__getitem__(index)


def find_template(paths: list[Path], out: Path) -> None:
    """Build the template of the heads at `paths` in `out`, unless it is there."""
    names = ("template.nii.gz", "mask.nii.gz")
    if all((out / name).is_file() for name in names):
        announce(f"template: the one that {out} holds")
        return
    template, _ = build_template(Watched(paths), progress=announce)
    try:
        with together([out / name for name in names], force=True) as (image, _):
            template.save(image.parent)
    except OSError as error:
        raise CannotWriteError(f"{out}: the template cannot be written ({error.strerror}); free space") from error


def prepare(data: Path, out: Path, count: int | None, held_out: int | None) -> None:
    """Register the first `count` heads of `data`, by name, and the `held_out` ones after them to their template.

    Those that `out` holds already are not registered again. Raises PriorError where `out` was trained on other heads.
    """
    paths = heads_in(data, without=out)
    first, after = split(len(paths), count, held_out)
    paths = paths[: first + after]
    say_identical(paths, paths[:first])
    hashes = [digest(path) for path in paths]
    refuse_others(out, "heads", hashes[:first], hashes[first:])
    find_template(paths[:first], out)
    box = centred_grid(BOX_SHAPE, SPACING, (0.0, 0.0, 0.0))
    registered = prepare_heads(paths, out, box, workers=torch.get_num_threads(), report=announce)
    entries = []
    for index, (path, sha256, file) in enumerate(zip(paths, hashes, registered.files, strict=True)):
        head = registered[index]
        entry = {"name": path.name, "sha256": sha256, "file": file.name}
        entries.append(entry | {"correlation": float(head["correlation"]), "pose": head["pose"].tolist()})
    grid = {"shape": list(box.shape), "affine": box.affine.tolist()}
    record = {"grid": grid, "heads": entries[:first], "held_out": entries[first:]}
    write_json(out / "prepared.json", record, force=True)


def slices_of(run: Path, part: Part = "heads") -> Sequence[Tensor]:
    """The slices of a run: item h is training (or held-out) head h's [Y, 1, Z, X], float16, in memory.

    Raises PriorError where a file is missing or damaged: `brgm-med train` makes it anew.
    """
    files = [run / "cache" / head["file"] for head in prepared(run, "heads")[part]]
    return [cached_stack(file) for file in files]


def training_set(run: Path, seed: int) -> TrainingSet:
    """The heads of a run."""
    stacks, held_out = slices_of(run), slices_of(run, "held_out")
    heads = f"{len(held_out)} head{'s' * (len(held_out) != 1)} held out"
    text = f"{len(stacks)} heads x {len(stacks[0])} slices, {heads}, {torch.get_num_threads()} threads"
    return TrainingSet(stacks, held_out, Architecture(), Recipe(seed=seed), text)


def export(run: Path, out: Path, *, name: str, description: str, licence: str, card: str) -> None:
    """Write the prior of a run of heads as a bundle into `out` (replaced if it exists).

    It is that of `finished_state`. `licence` is the text of the bundle's LICENSE, `card` of its docs/README.md.
    Raises PriorError where the run has no state yet, or a file of it is damaged.
    """
    state, metrics = finished_state(run, Architecture())
    record = prepared(run, "heads")
    metadata = describe(name, description) | {
        "grid": record["grid"],
        "normalisation": NORMALISATION,
        "heads": [head["name"] for head in record["heads"]],
        "held_out": [head["name"] for head in record["held_out"]],
        "eval_metrics": metrics,
    }
    space = (run / "template.nii.gz", run / "mask.nii.gz")
    export_bundle(
        state, Architecture(), slices_of(run), out, metadata=metadata, card=card, licence=licence, space=space
    )


def finish(data: Path, run: Path) -> None:
    """Write the prior of the run into `run/prior`, with a card that says what is known of it."""
    heads = len(prepared(run, "heads")["heads"])
    text = f"Trained by brgm-med {__version__} on {heads} heads of {data.name}. Research only."
    export(run, run / "prior", name=run.name, description=text, licence=LICENCE, card=text + "\n")
