"""A folder of heads -> the normalised coronal stacks that a prior is trained on, registered by several processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brgm_med.errors import refuse
from brgm_med.processes import die_with_parent, share
from brgm_med.staging import settle
from brgm_med.transforms.cache import PreparedHeads
from brgm_med.transforms.formats import endings, for_reading
from brgm_med.transforms.formats.absent import refuse_absent
from brgm_med.transforms.formats.visible import visible_files
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import Template


def heads_in(folder: Path, without: Path | None = None) -> list[Path]:
    """The scans in `folder` and below, hidden ones aside, sorted by name, but for those in the folder `without`.

    Raises InputRefusedError where there are none, and for one whose content is not there.
    """
    if not folder.is_dir():
        refuse(folder, "is not a folder", "give a folder of NIfTI heads")
    heads = [p for p in visible_files(folder) if p.name.endswith(endings("volume")) and not p.is_dir()]
    if without is not None:
        heads = [p for p in heads if not p.resolve().is_relative_to(without.resolve())]
    if not heads:
        refuse(folder, f"holds no scan ({', '.join(endings('volume'))})", "give a folder of NIfTI heads")
    for path in heads:
        refuse_absent(path)
    return sorted(heads, key=lambda p: (p.name, p.as_posix()))


class Heads(Sequence[tuple[Tensor, Grid]]):
    """Scans as ([1, X, Y, Z] float32, grid), each read when asked for. Raises InputRefusedError as the reader does."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Grid]:  # type: ignore[override]
        path = self.paths[index]
        scan = for_reading(path).read(path)
        return torch.from_numpy(scan.array)[None], Grid.of(scan.array, scan.affine)


def prepare_heads(
    paths: Sequence[Path], run: Path, box: Grid, *, workers: int = 1, report: Callable[[str], None] = print
) -> PreparedHeads:
    """Register and normalise the heads at `paths` to the template in the folder `run`, into `run/cache`.

    What is there already is not made again, so that an interrupted preparation goes on where it stopped. 3 s a head
    on one core; `workers` processes. Raises as `PreparedHeads` does, and PriorError for an unreadable template.
    """
    cache = run / "cache"
    heads = PreparedHeads(paths, Template.load(run, box), cache, report)
    settle(cache)
    for stray in cache.glob(".brgm-*.part"):  # a file, of an older version
        if stray.is_file():
            stray.unlink()
    missing = heads.missing()
    if len(missing) < len(paths):
        report(f"{len(paths) - len(missing)} of {len(paths)} heads were registered before")
    first = said = 0.0
    done = 0

    def advance(_: object = None) -> None:
        nonlocal first, said, done
        done += 1
        now = time.monotonic()
        if done == 1:  # until here processes were started: no measure of the rest
            first = said = now
            report(f"registered 1 of {len(missing)} heads")
        elif done == len(missing) or now - said >= 10:
            said, left = now, (now - first) / (done - 1) * (len(missing) - done) / 60
            report(f"registered {done} of {len(missing)} heads, {left:.1f} min left")

    if min(workers, len(missing)) < 2:
        for index in missing:
            heads[index]
            advance()
    else:
        share(
            [(index,) for index in missing],
            _work,
            min(workers, len(missing)),
            advance,
            broken="a process that registers heads was ended from outside, perhaps for want of memory; run the same "
            "command again, with fewer --threads",
            begin=_begin,
            arguments=(paths, run, box),
        )
    return heads


_worker: dict[str, Any] = {}


def _begin(paths: Sequence[Path], run: Path, box: Grid) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the parent ends it), and never outliving the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    die_with_parent()
    _worker["heads"] = PreparedHeads(paths, Template.load(run, box), run / "cache")


def _work(index: int) -> None:
    _worker["heads"][index]
