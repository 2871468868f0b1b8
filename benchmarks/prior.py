"""What a prior is worth on held-out heads, against cubic interpolation and linear-Gaussian priors (PCA).

    python benchmarks/prior.py --data ../shared/data/ixi-hh-2mm/t1 --which report --out benchmarks/prior-report

Heads by sorted file name: the first 120 are those that the priors were trained on, the next 15 are for choosing, the
last 15 for reporting. All of it happens in the prior's box: heads are registered to its template, every second coronal
slice (4 mm) is degraded, noise-free, reconstructed and compared. One row per head, task, method and place is added to
OUT.csv as soon as it is known, so that a run can be resumed; means with 95 % bootstrap intervals over heads are written
to OUT.md. Registered heads and what PCA makes of them are kept beside OUT, in prior-cache/.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.consistency import SeparableCovariance, project, stationary_covariance
from brgm_med.corruptions import SliceProfile, profile_matrix
from brgm_med.energies import Gaussian, Pixel
from brgm_med.gaussian import LinearGaussian, unfolded
from brgm_med.metrics import bootstrap_interval, lpips, psnr, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.steps import set_up_torch
from brgm_med.posterior import Posterior
from brgm_med.priors.bundle import PriorBundle, digest, load
from brgm_med.solvers import fit_map
from brgm_med.training.measure import all_latents, invert, spread
from brgm_med.transforms.acquire import interpolate
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import heads_in, in_memory, prepare_heads
from brgm_med.transforms.template import load_template
from demo import perceptual_model

Row = dict[str, str]
FIELDS = ("prior", "head", "task", "method", "where", "PSNR", "PSNR on [-1, 1]", "SSIM", "LPIPS", "seconds")
SCORES = {"PSNR": 2, "SSIM": 3, "LPIPS": 3}

TRAINED = slice(0, 120)
GROUPS = {"choose": slice(120, 135), "report": slice(135, 150)}
TASKS = {"in-plane factor 4": (4, 4), "in-plane factor 8": (8, 8), "6 mm slices along S": (3, 1)}
"""So many rows and columns are averaged (a box) into one sample; rows that are left over at both ends go unmeasured."""

EVERY = 2
PLACES = {"-40 mm": -20, "middle": 0, "+40 mm": 20}
"""Slices, of 2 mm, from the middle of the box; back to front."""

RANK = 1500
REACH = 3
NOISES = (0.01, 0.02, 0.03, 0.05, 0.1)
POOLED, BY_POSITION = "PCA-MAP, pooled", "PCA-MAP, per position"
NOISE = {
    POOLED: dict(zip(TASKS, (0.03, 0.01, 0.03), strict=True)),
    BY_POSITION: dict(zip(TASKS, (0.1, 0.1, 0.1), strict=True)),
}
"""To be those of NOISES with the highest PSNR on the choosing heads (`--which choose` prints all of them). Measured so
far: pooled, factor 4 (15 heads) and factor 8 (the first 4). Pooled at 6 mm and all per position are provisional."""

CUBIC, SMOOTH, ORTHOGONAL, OURS = "cubic", "cubic + consistency", "cubic + consistency, orthogonal", "ours"
CHOOSING = "every eighth slice"
INVERSION = "inversion"
INVERTED, STEPS = 24, (100, 300)


def ours(bundle: PriorBundle, index: Sequence[int], corruption: SliceProfile, measured: Tensor) -> Tensor:
    """Our reconstruction of the slices at positions `index` of the prior's box: [N, 1, H, W]."""
    whitened = bundle.whitened()
    whitened = dataclasses.replace(whitened, mean=whitened.mean[list(index)])
    normal = Gaussian(torch.zeros(whitened.w_dim), torch.tensor(1.0), 0.5)
    posterior = Posterior(whitened, corruption, measured, (Pixel(0.5 / 0.04**2),), (normal,), noise="none")
    image = fit_map(posterior, torch.zeros(len(index), 1, whitened.w_dim), steps=50, rate=0.1).image
    return project(image, corruption, measured, error_covariance(image))


def error_covariance(image: Tensor) -> SeparableCovariance:
    """C of the weighted projection: errors fall off as a Gaussian of half a voxel within a slice [N, 1, H, W]."""
    return stationary_covariance(image.shape[1:], (0.0, 0.5, 0.5))


def acquisition(task: str, rows: int, columns: int) -> SliceProfile:
    """The task as a corruption of slices [N, 1, H, W]."""
    matrices: list[Tensor | None] = []
    for size, factor in zip((rows, columns), TASKS[task], strict=True):
        count, margin = size // factor, size % factor // 2
        if size % factor % 2:
            raise ValueError(f"{task}: {size} voxels cannot be cut alike at both ends")
        box = profile_matrix(count * factor, 1.0, count, float(factor), float(factor))
        matrices.append(None if factor == 1 else torch.nn.functional.pad(box, (margin, margin)))
    return SliceProfile((None, *matrices))


def cubic(task: str, measured: Tensor, rows: int, columns: int) -> Tensor:
    """Cubic B-splines through the samples [N, 1, h, w]; mirrored at the edges: [N, 1, H, W]."""
    fr, fc = TASKS[task]
    n, _, h, w = measured.shape
    coarse = Grid((n, h, w), np.diag([1.0, fr, fc, 1.0]))
    fine = Grid((n, h * fr, w * fc), np.eye(4))
    image = interpolate(measured[:, 0][None], coarse, fine)
    down, right = (rows - h * fr) // 2, (columns - w * fc) // 2
    return torch.nn.functional.pad(image, (right, right, down, down), mode="replicate")[0][:, None]


@dataclasses.dataclass(frozen=True)
class Head:
    """A registered head, air -1 and brain 0: `stack` [Y, 1, Z, X] float32, posterior first."""

    name: str
    stack: Tensor

    @property
    def index(self) -> list[int]:
        return list(range(0, len(self.stack), EVERY))

    @property
    def slices(self) -> Tensor:
        return self.stack[self.index]

    @property
    def window(self) -> tuple[float, float]:
        """The 0.5th and 99.5th percentile of the head in the box: the grey values from black to white."""
        low, high = np.quantile(self.stack.numpy(), (0.005, 0.995))
        return float(low), float(high)


def row(head: str, task: str, method: str, where: str, **scores: float) -> Row:
    named = {"head": head, "task": task, "method": method, "where": where}
    return {**dict.fromkeys(FIELDS, ""), **named, **{key: f"{value:.6g}" for key, value in scores.items()}}


def decibel(image: Tensor, truth: Tensor, width: float) -> float:
    """PSNR over all voxels together."""
    return float(psnr(image.flatten()[None], truth.flatten()[None], width))


def scored(head: Head, task: str, method: str, image: Tensor, seconds: float, model: LPIPS | None) -> list[Row]:
    """A row for all slices together, and one for each of PLACES."""
    truth, (low, high) = head.slices, head.window
    width = high - low
    found = {
        "PSNR": decibel(image, truth, width),
        "PSNR on [-1, 1]": decibel(image, truth, 2.0),
        "SSIM": float(ssim(image, truth, width).mean()),
        "seconds": seconds,
    }
    if model is not None:
        found["LPIPS"] = float(lpips(image, truth, (low, high), model).mean())
    rows = [row(head.name, task, method, "all", **found)]
    middle = len(head.stack) // 2
    for where, offset in PLACES.items():
        i = head.index.index(middle + offset)
        rows.append(row(head.name, task, method, where, PSNR=decibel(image[i], truth[i], width)))
    return rows


@cache
def tools(prior: str) -> tuple[PriorBundle, LPIPS | None]:
    """What every job of one process shares."""
    set_up_torch(1)
    return load(prior), perceptual_model()


def compare(head: Head, task: str, prior: str, linear: dict[str, tuple[Tensor, float]]) -> list[Row]:
    """One head and one task, all methods. `linear`: what the PCA priors made of it [N, 1, H, W], and seconds."""
    bundle, model = tools(prior)
    size = (head.stack.shape[2], head.stack.shape[3])
    corruption = acquisition(task, *size)
    measured = corruption(head.slices)
    weights = error_covariance(head.slices)
    spline = cubic(task, measured, *size)
    methods: dict[str, Callable[[], Tensor]] = {
        CUBIC: lambda: spline,
        SMOOTH: lambda: project(spline, corruption, measured, weights),
        ORTHOGONAL: lambda: project(spline, corruption, measured),
        **{name: lambda image=image: image for name, (image, _) in linear.items()},  # type: ignore[misc]
        OURS: lambda: ours(bundle, head.index, corruption, measured),
    }
    rows = []
    for name, method in methods.items():
        begun = time.monotonic()
        image = method()
        seconds = linear[name][1] if name in linear else time.monotonic() - begun
        rows += scored(head, task, name, image, seconds, model)
    return rows


def clean_slices(heads: Sequence[Head], positions: Tensor) -> list[tuple[Head, int]]:
    """`INVERTED` of the slices of all heads, spread over positions and heads."""
    every = [(head, i) for head in heads for i in head.index]
    return [every[k] for k in spread(positions[[i for _, i in every]], INVERTED).tolist()]


def reach(chosen: Sequence[tuple[Head, int]], prior: str, every: bool) -> list[Row]:
    """How near the generator comes to clean slices (f = identity, no prior), from the mean w at their position.

    By W+ alone, or (`every`) by all latent inputs; one row per slice and number of steps.
    """
    bundle, model = tools(prior)
    whitened, generator = bundle.whitened(), bundle.generator
    truth = torch.stack([head.stack[i] for head, i in chosen])
    ws = whitened.mean[[i for _, i in chosen]].unflatten(1, (generator.num_ws, -1))
    begun = time.monotonic()
    if every:
        maps = {name: torch.zeros(len(ws), 1, *shape) for name, shape in whitened.shapes.items()}
        network, start = all_latents(generator, ws, maps)
        found = invert(network, truth, start=start, steps=max(STEPS))
    else:
        found = invert(generator, truth, start=ws, steps=max(STEPS))
    seconds = (time.monotonic() - begun) / len(chosen)
    rows = []
    for step in STEPS:
        for k, (head, i) in enumerate(chosen):
            low, high = head.window
            error = float(found.history[step - 1, k]) / truth[k].numel()  # the energy is the squared error
            scores = {"PSNR": 10 * np.log10((high - low) ** 2 / error), "PSNR on [-1, 1]": 10 * np.log10(4 / error)}
            if step == max(STEPS) and model is not None:
                scores["LPIPS"] = float(lpips(found.image[k][None], truth[k][None], (low, high), model))
            method = f"{latents(every)}, {step} steps"
            rows.append(row(head.name, INVERSION, method, f"slice {i}", **scores, seconds=seconds * step / max(STEPS)))
    return rows


def latents(every: bool) -> str:
    return "all latent inputs" if every else "W+"


class Pca:
    """The linear-Gaussian priors of the training heads' `stacks`, and what they make of held-out heads.

    Both the pooled prior and all reconstructions are kept in `folder`, under the hash of what they come from.
    """

    def __init__(self, stacks: Sequence[Tensor], folder: Path, identity: str) -> None:
        self.stacks, self.folder, self.identity = stacks, folder, identity

    def kept(self, *what: object) -> Path:
        name = hashlib.sha256(repr((self.identity, *what)).encode()).hexdigest()[:32]
        return self.folder / f"pca-{name}.pt"

    def pooled(self) -> LinearGaussian:
        """Deviations from each position's mean, of all positions together: `RANK` components."""
        file = self.kept(POOLED, RANK)
        if not file.is_file():
            print(f"{POOLED}: fitting {RANK} components (minutes)", flush=True)
            fitted = LinearGaussian.fit(self.stacks, RANK)
            half, parity = fitted.half()
            save(
                file,
                {
                    "mean": fitted.mean,
                    "half": half,
                    "parity": parity,
                    "deviation": fitted.deviation,
                    "nugget": torch.tensor(fitted.nugget, dtype=torch.float64),
                },
            )
        held = torch.load(file, weights_only=True)
        basis = unfolded(held["half"], held["parity"])
        return LinearGaussian(held["mean"], basis, held["deviation"], float(held["nugget"]))

    def around(self, position: int) -> LinearGaussian:
        """Of the slices within `REACH` positions of one, all components."""
        first, last = max(0, position - REACH), min(len(self.stacks[0]), position + REACH + 1)
        near = [stack[first:last] for stack in self.stacks]
        return LinearGaussian.fit(near, 2 * len(near) * (last - first)).at([position - first])

    def priors(self, method: str, index: Sequence[int]) -> Iterator[tuple[Sequence[int], LinearGaussian]]:
        """Which of the slices `index` a prior is for (as places in `index`), and that prior."""
        if method == POOLED:
            yield range(len(index)), self.pooled().at(index)
        else:
            for k, position in enumerate(index):
                yield [k], self.around(position)

    def reconstruct(
        self, method: str, heads: Sequence[Head], index: Sequence[int], wanted: Sequence[tuple[str, float]]
    ) -> dict[tuple[str, float], tuple[Tensor, float]]:
        """By (task, noise) of `wanted`: slices `index` of all heads [heads, N, 1, H, W], and seconds a head."""
        names = [head.name for head in heads]
        files = {one: self.kept(method, RANK, REACH, names, list(index), *one) for one in wanted}
        missing = [one for one in wanted if not files[one].is_file()]
        truth = torch.stack([head.stack[list(index)] for head in heads])
        made = {one: torch.empty_like(truth) for one in missing}
        seconds = dict.fromkeys(missing, 0.0)
        if missing:
            for places, prior in self.priors(method, index):
                for task, noise in missing:
                    begun = time.monotonic()
                    corruption = acquisition(task, *truth.shape[3:])
                    part = truth[:, list(places)]
                    every = prior.at(list(range(len(places))) * len(heads))
                    found = every.estimate(corruption, corruption(part.flatten(0, 1)), noise)
                    made[task, noise][:, list(places)] = found.reshape(part.shape)
                    seconds[task, noise] += time.monotonic() - begun
                print(f"{method}: slice {index[places[0]]} to {index[places[-1]]}", flush=True)
            for one in missing:
                save(files[one], {"images": made[one], "seconds": torch.tensor(seconds[one] / len(heads))})
        held = {one: torch.load(file, weights_only=True) for one, file in files.items()}
        return {one: (h["images"], float(h["seconds"])) for one, h in held.items()}

    def noises(self, method: str, heads: Sequence[Head]) -> list[Row]:
        """Every one of NOISES, on every fourth of the slices, as it is and made consistent: PSNR."""
        index = heads[0].index[::4]
        tried = self.reconstruct(method, heads, index, [(task, noise) for task in TASKS for noise in NOISES])
        rows = []
        for (task, noise), (images, _) in tried.items():
            for head, image in zip(heads, images, strict=True):
                truth, (low, high) = head.stack[index], head.window
                corruption = acquisition(task, *truth.shape[2:])
                made = project(image, corruption, corruption(truth), error_covariance(image))
                for name, one in ((f"{method}, noise {noise:g}", image), (f"{method}, noise {noise:g} +", made)):
                    rows.append(row(head.name, task, name, CHOOSING, PSNR=decibel(one, truth, high - low)))
        return rows


def save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".part")
    torch.save(tensors, partial)
    partial.replace(file)


def interval(values: Sequence[float], digits: int, sign: str = "") -> str:
    low, high = bootstrap_interval(values, seed=0)
    return f"{np.mean(values):{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def summary(rows: Sequence[Row]) -> str:
    """Means over heads with 95 % bootstrap intervals, as Markdown."""

    def values(task: str, method: str, where: str, score: str) -> dict[str, float]:
        """By head."""
        same = {"task": task, "method": method, "where": where}
        return {r["head"]: float(r[score]) for r in rows if r[score] and all(r[k] == v for k, v in same.items())}

    def differences(task: str, method: str, where: str, score: str) -> list[float]:
        mine, theirs = values(task, OURS, where, score), values(task, method, where, score)
        return [mine[head] - theirs[head] for head in mine]

    lines = []
    for task in TASKS:
        compared = [r for r in rows if r["task"] == task and r["where"] == "all"]
        if not compared:
            continue
        heads = len({r["head"] for r in compared})
        lines += [f"**{task}** ({heads} heads)", ""]
        lines += ["| method | PSNR dB | SSIM | LPIPS | seconds a head |", "|---|---|---|---|---|"]
        for method in dict.fromkeys(r["method"] for r in compared):
            found = {s: list(values(task, method, "all", s).values()) for s in SCORES}
            cells = [interval(found[s], digits) if found[s] else "n/a" for s, digits in SCORES.items()]
            seconds = np.mean(list(values(task, method, "all", "seconds").values()))
            lines.append(f"| {method} | {' | '.join(cells)} | {seconds:.1f} |")
        for method in (POOLED, BY_POSITION, SMOOTH):
            paired = {s: differences(task, method, "all", s) for s in SCORES}
            cells = [interval(paired[s], digits, "+") if paired[s] else "n/a" for s, digits in SCORES.items()]
            lines.append(f"| ours - {method}, paired | {' | '.join(cells)} | |")
        lines += ["", f"PSNR gain of ours over {SMOOTH}, dB, by place:", ""]
        lines += [f"| {' | '.join(PLACES)} |", "|---" * len(PLACES) + "|"]
        gains = [interval(differences(task, SMOOTH, where, "PSNR"), 2, "+") for where in PLACES]
        lines += [f"| {' | '.join(gains)} |", ""]
    inverted = [r for r in rows if r["task"] == INVERSION]
    if inverted:
        first = [r for r in inverted if r["method"] == inverted[0]["method"]]
        lines += [f"**Inversion** (f = identity, no prior, from the mean w; {len(first)} clean slices)", ""]
        lines += ["| latent inputs | PSNR on [-1, 1], dB | PSNR, window | LPIPS | seconds a slice |"]
        lines += ["|---|---|---|---|---|"]
        for method in dict.fromkeys(r["method"] for r in inverted):
            mine = [r for r in inverted if r["method"] == method]
            scores = {"PSNR on [-1, 1]": 2, "PSNR": 2, "LPIPS": 3}
            cells = [
                interval([float(r[s]) for r in mine if r[s]], digits) if any(r[s] for r in mine) else "n/a"
                for s, digits in scores.items()
            ]
            lines.append(f"| {method} | {' | '.join(cells)} | {np.mean([float(r['seconds']) for r in mine]):.1f} |")
        lines += ["", "Intervals of the inversion are over slices.", ""]
    tried = [r for r in rows if r["where"] == CHOOSING]
    if tried:
        lines += [f"**Noise of the PCA priors** ({CHOOSING} of the box; PSNR dB, then made consistent)", ""]
        lines += ["| prior | task | " + " | ".join(f"{n:g}" for n in NOISES) + " |", "|---" * (2 + len(NOISES)) + "|"]
        for prior in dict.fromkeys(r["method"].rpartition(", noise")[0] for r in tried):
            for task in TASKS:
                cells = []
                for noise in NOISES:
                    name = f"{prior}, noise {noise:g}"
                    pair = (list(values(task, m, CHOOSING, "PSNR").values()) for m in (name, f"{name} +"))
                    cells.append(" / ".join(f"{np.mean(p):.2f}" for p in pair))
                lines.append(f"| {prior} | {task} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        "PSNR, SSIM and LPIPS (AlexNet) in the window from the 0.5th to the 99.5th percentile of the head in the box;"
    ]
    lines += ["PSNR over all slices together. Seconds of one core; PCA's do not hold the fitting of the prior."]
    return "\n".join(lines) + "\n"


class Results:
    """The rows of OUT.csv, all of one prior (the start of its SHA-256). Raises SystemExit for those of another."""

    def __init__(self, file: Path, prior: str) -> None:
        self.file, self.prior = file, prior
        self.rows: list[Row] = list(csv.DictReader(file.open(newline=""))) if file.is_file() else []
        if {r["prior"] for r in self.rows} - {prior}:
            raise SystemExit(f"{file}: holds results of another prior; give another --out")

    def where(self, **same: str) -> set[tuple[str, str]]:
        """Heads and places of the rows that agree with `same`."""
        return {(r["head"], r["where"]) for r in self.rows if all(r[k] == v for k, v in same.items())}

    def has(self, **same: str) -> bool:
        return bool(self.where(**same))

    def drop(self, task: str, method: str) -> None:
        """Forget the rows of a task whose method begins so."""
        self.rows = [r for r in self.rows if r["task"] != task or not r["method"].startswith(method)]

    def add(self, rows: Sequence[Row]) -> None:
        order = {task: i for i, task in enumerate((*TASKS, INVERSION))}
        new = [{**r, "prior": self.prior} for r in rows]
        self.rows = sorted([*self.rows, *new], key=lambda r: (r["where"] == CHOOSING, order[r["task"]], r["head"]))
        partial = self.file.with_suffix(".part")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.file)


def jobs(pool: ProcessPoolExecutor, heads: Sequence[Head], pca: Pca, results: Results, prior: str) -> list[Future]:
    """What is not in the results yet, under way."""
    started = []
    linear = {method: pca.reconstruct(method, heads, heads[0].index, list(NOISE[method].items())) for method in NOISE}
    for task in TASKS:
        for h, head in enumerate(heads):
            if not results.has(head=head.name, task=task, method=OURS, where="all"):
                found = {method: linear[method][task, NOISE[method][task]] for method in NOISE}
                mine = {method: (images[h], seconds) for method, (images, seconds) in found.items()}
                started.append(pool.submit(compare, head, task, prior, mine))
    bundle = load(prior)
    chosen = clean_slices(heads, bundle.positions())
    for every in (False, True) if bundle.whitened().shapes else (False,):
        method = f"{latents(every)}, {max(STEPS)} steps"
        wanted = {(head.name, f"slice {i}") for head, i in chosen}
        if results.where(task=INVERSION, method=method) != wanted:
            results.drop(INVERSION, latents(every))
            started.append(pool.submit(reach, chosen, prior, every))
    return started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", default="brain-t1-coronal", help="a shipped prior's name, or a bundle's folder")
    parser.add_argument("--which", choices=tuple(GROUPS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    parser.add_argument("--heads", type=int, default=15, help="only the first so many of the group")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    set_up_torch(options.workers)
    bundle = load(options.prior)
    results = Results(options.out.with_suffix(".csv"), bundle.sha256[:12])
    template = load_template(bundle)

    paths = heads_in(options.data)
    trained, held = paths[TRAINED], paths[GROUPS[options.which]][: options.heads]
    folder = options.out.parent / "prior-cache" / digest(bundle.folder / "template.nii.gz")[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copyfile(bundle.folder / name, folder / name)
    files = prepare_heads([*trained, *held], folder, template.box, workers=options.workers).files
    stacks = in_memory(files)
    heads = [Head(path.name, stacks[len(trained) + h].float()) for h, path in enumerate(held)]
    pca = Pca([stacks[h] for h in range(len(trained))], folder, " ".join(f.stem for f in files[: len(trained)]))

    if options.which == "choose":
        for method in NOISE:
            tried = f"{method}, noise {NOISES[0]:g}"
            if new := [h for h in heads if not results.has(head=h.name, where=CHOOSING, method=tried)]:
                results.add(pca.noises(method, new))
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        started = jobs(pool, heads, pca, results, options.prior)
        for number, done in enumerate(as_completed(started), 1):
            rows = done.result()
            results.add(rows)
            print(f"{number} of {len(started)}  {line(rows)}", flush=True)
    text = summary(results.rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


def line(rows: Sequence[Row]) -> str:
    """What a job found, in a line: PSNR and LPIPS."""
    if rows[0]["task"] == INVERSION:
        found = [
            f"{np.mean([float(r['PSNR on [-1, 1]']) for r in rows if r['method'] == m]):.2f} dB ({m})"
            for m in dict.fromkeys(r["method"] for r in rows)
        ]
        return f"{INVERSION}: {', '.join(found)}"
    whole = [r for r in rows if r["where"] == "all"]
    found = [f"{r['method']} {float(r['PSNR']):.2f}/{float(r['LPIPS'] or 'nan'):.3f}" for r in whole]
    return f"{rows[0]['head']} {rows[0]['task']}: {'  '.join(found)}"


if __name__ == "__main__":
    main()
