"""Training on a folder of heads: their template, prepared heads and their record in RUN, and the prior of them."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import CannotWriteError, PriorError
from brgm_med.files import digest, write_json
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.training.run import finished_state, split
from brgm_med.pipelines.training.run import run as train_run
from brgm_med.priors.writing import describe
from brgm_med.training import distributed
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture
from brgm_med.transforms.cache import in_memory
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in, prepare_heads
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid

Part = Literal["heads", "held_out"]


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
    from brgm_med.transforms.average import build_template

    names = ("template.nii.gz", "mask.nii.gz")
    if all((out / name).is_file() for name in names):
        announce(f"template: the one that {out} holds")
        return
    template, _ = build_template(Watched(paths), progress=announce)
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
    made = prepare_heads(paths, out, box, workers=workers, report=announce)
    entries = []
    for index, (path, known, file) in enumerate(zip(paths, hashes, made.files, strict=True)):
        head = made[index]
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


def slices_of(run: Path, part: Part = "heads") -> Sequence[Tensor]:
    """The slices of a run: item h is training (or held-out) head h's [Y, 1, Z, X], float16, in memory.

    Raises PriorError where a file is missing or damaged: `brgm-med train` makes it anew.
    """
    files = [run / "cache" / head["file"] for head in prepared(run)[part]]
    return cast(Sequence[Tensor], in_memory(files))  # a MONAI data set: len() and [h]


def train_heads(
    data: Path,
    out: Path,
    *,
    kimg: float,
    count: int | None,
    held_out: int | None,
    seed: int,
    lpips_weights: Path | None,
) -> None:
    """`steps.train` for heads: on the first `count` of them, by name."""
    with distributed.process_group():
        if distributed.rank() == 0:
            prepare(data, out, count, held_out, torch.get_num_threads())
        distributed.anyone(False, distributed.device())  # the others wait
        stacks, measured = slices_of(out), slices_of(out, "held_out")
        held = f"{len(measured)} head{'s' * (len(measured) != 1)} held out"
        text = f"{len(stacks)} heads x {len(stacks[0])} slices, {held}, {torch.get_num_threads()} threads"
        recipe = Recipe(seed=seed)
        train_run(out, Architecture(), recipe, stacks, measured, kimg=kimg, lpips_weights=lpips_weights, text=text)
        if distributed.rank() == 0:
            finish(data, out)


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


def finish(data: Path, out: Path) -> None:
    """Write the prior of the run `out`, with a card that says what is known of it."""
    record = prepared(out)
    text = f"Trained by brgm-med {__version__} on {len(record['heads'])} heads of {data.name}. Research only."
    announce("writing the prior")
    export(out, out / "prior", name=out.name, description=text, licence="As the training data's.\n", card=text + "\n")
    announce(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
