"""A run's heads: a folder of scans in; a template, prepared heads and their record in RUN."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from brgm_med.errors import CannotWriteError, PriorError, UsageError
from brgm_med.files import digest, write_json
from brgm_med.pipelines.console import announce
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in, in_memory, prepare_heads
from brgm_med.transforms.template import BOX_SHAPE, SPACING, centred_grid

FEWEST_TO_HOLD_OUT = 4
Part = Literal["heads", "held_out"]


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
