"""The record of a run: curves, pictures, measured snapshots, and its state."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brgm_med.files import overwriting
from brgm_med.networks.condition import position_code
from brgm_med.training import distributed
from brgm_med.training.state import TrainState

COLUMNS = (
    *("images", "seconds"),
    *("pixel", "perceptual", "latent", "information"),
    *("generator", "path", "discriminator", "r1", "sign", "probability"),
)


@dataclass
class Record:
    """The files of a run's folder `out`, but for the data; written by one process.

    - `losses.csv`: means over the iterations since the row before, at `images` shown after `seconds` of training
      (measuring and waiting are not counted). The mean that was under way when a run was cut is lost.
    - `quality.csv`: the numbers of `measure`, a row a snapshot; also in `state.record["snapshots"]`.
    - `pictures/000123.png`, at 123 thousand images: see `pictures`.
    - `tensorboard/`: all of these.
    - `best.safetensors`: the snapshot (`TrainState.save_snapshot`) of the highest "score" so far.
    - `state.pt`: the state. A resumed run drops what the files hold beyond it.

    `goal` is the number of images at which training ends; intervals are in seconds of training.
    """

    state: TrainState
    out: Path
    goal: int
    precision: torch.dtype
    measure: Callable[[TrainState], dict[str, float]] | None = None
    shown: tuple[Tensor, Tensor] | None = None
    report: Callable[[str], None] = print
    save_every: float = 300.0
    snapshot_every: float = 1800.0
    report_every: float = 20.0
    _losses: dict[str, list[float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        record = self.state.record
        record.setdefault("snapshots", [])
        self._seconds = record.setdefault("seconds", 0.0)
        self._first, self._begun = self.state.images, self._seconds
        self._saved = self._reported = self._seconds
        self._measured = record["snapshots"][-1]["seconds"] if record["snapshots"] else 0.0
        self._note_machine()
        _keep_rows(self.out / "losses.csv", self.state.images)
        _write(self.out / "quality.csv", record["snapshots"])
        self._board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.state.images + 1)

    def close(self) -> None:
        self._board.close()

    def add(self, losses: dict[str, float], seconds: float, *, interrupted: bool = False) -> None:
        """Add an iteration that took `seconds`: report, take a snapshot, save, each where it is due."""
        self._seconds += seconds
        self.state.record["seconds"] = self._seconds
        for key, value in losses.items():
            self._losses.setdefault(key, []).append(value)
        done = self.state.images >= self.goal
        if done or interrupted or self._seconds - self._reported >= self.report_every:
            self._curves()
        snapshot = (done and not interrupted) or self._seconds - self._measured >= self.snapshot_every
        if snapshot:
            self._snapshot()
        if done or interrupted or snapshot or self._seconds - self._saved >= self.save_every:
            self.state.save(self.out / "state.pt")
            self._saved = self._seconds

    def _note_machine(self) -> None:
        """Record the settings that may differ from one run of a state to the next and change its last bits."""
        runs = self.state.record.setdefault("runs", [])
        now = {
            "precision": str(self.precision).removeprefix("torch."),
            "device": self.state.device.type,
            "threads": torch.get_num_threads(),
            "processes": distributed.world(),
        }
        before = {key: runs[-1][key] for key in now} if runs else now
        changes = [f"{key} {before[key]}, now {now[key]}" for key in now if before[key] != now[key]]
        if changes:
            self.report(f"was trained with {'; '.join(changes)}: not to the last bit as without the change")
        if changes or not runs:
            runs.append({"images": self.state.images, **now})

    def _curves(self) -> None:
        means = {k: sum(v) / len(v) for k, v in self._losses.items()}
        images = self.state.images
        rate = (images - self._first) / max(self._seconds - self._begun, 1e-9)
        left = max(self.goal - images, 0) / rate / 60
        text = "  ".join(f"{k} {v:.4f}" for k, v in means.items())
        self.report(f"{images / 1000:.1f} kimg  {rate:.1f} images/s  {left:.0f} min left  {text}")
        row = {"images": images, "seconds": round(self._seconds, 1)} | {k: round(v, 6) for k, v in means.items()}
        _append(self.out / "losses.csv", row)
        for key, value in means.items():
            self._board.add_scalar(f"losses/{key}", value, images)
        self._board.add_scalar("images per second", rate, images)
        self._reported, self._losses = self._seconds, {}

    def _snapshot(self) -> None:
        from torchvision.utils import save_image

        images, past = self.state.images, self.state.record["snapshots"]
        self._measured = self._seconds
        if self.shown is not None:
            picture = pictures(self.state, *self.shown)
            (self.out / "pictures").mkdir(exist_ok=True)
            save_image(picture, self.out / "pictures" / f"{images // 1000:06d}.png")
            self._board.add_image("pictures", picture, images)
        if self.measure is not None:
            numbers = {key: float(value) for key, value in self.measure(self.state).items()}
            scores = [s["score"] for s in past if math.isfinite(s["score"])]
            if not scores or numbers["score"] > max(scores):
                self.state.save_snapshot(self.out / "best.safetensors")
            past.append({"images": images, "seconds": round(self._seconds, 1), **numbers})
            _write(self.out / "quality.csv", past)
            for key, value in numbers.items():
                self._board.add_scalar(f"quality/{key}", value, images)
            self.report(f"{images / 1000:.1f} kimg  " + "  ".join(f"{k} {v:.4f}" for k, v in numbers.items()))
        self._board.flush()


def pictures(state: TrainState, slices: Tensor, positions: Tensor, samples: int = 2) -> Tensor:
    """A grid [3, H', W'] in [0, 1]: a row of `slices` [N, C, H, W], a row of what the averaged encoder and generator
    make of them, a row without noise maps, and `samples` rows of samples at the same `positions` [N], always of the
    same z.
    """
    from torchvision.utils import make_grid

    g, device = state.average, state.device
    z = torch.randn(samples, len(slices), g.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    code = position_code(positions.float(), g.c_dim).to(device)
    slices = slices.float().to(device)
    with torch.no_grad():
        ws, maps = state.average_encoder(slices)
        rows = [slices, g.synthesis(ws, maps or "none"), g.synthesis(ws, "none"), *(g(row, code) for row in z)]
    return make_grid((torch.cat(rows).cpu() + 1) / 2, nrow=len(slices)).clamp(0, 1)


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _keep_rows(path: Path, images: int) -> None:
    """Drop rows of a resumed `losses.csv` that lie beyond `images`, and one that was cut short."""
    if not path.exists():
        return
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    _write(path, [row for row in rows if int(row["images"]) <= images], COLUMNS)


def _write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> None:
    """Write the rows as a table, its columns in order of appearance after `columns`; no file where there are none."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    with overwriting(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
