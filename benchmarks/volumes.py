"""Thick slices at an angle, from one scan or three, against cubic interpolation: the table of volumes in the README.

    python benchmarks/volumes.py --data ../shared/data/ixi-hh-2mm/t1 --which test --out report

Heads by sorted file name: the first 120 trained the shipped prior, the next 15 are the validation set, the last 15 the
test set. Scans are simulated on a grid of their own: 2 x 2 mm in plane, 6 mm Gaussian slices, turned by 5
to 15 degrees about a random axis (another one for each head and scan). Everything is compared on the truth's grid, to
which results are brought by cubic interpolation, inside the prior's box and in all three planes. One row per head, task
and method is added to OUT.csv as soon as it is known, so that a run can be resumed; means with 95 % bootstrap intervals
over heads are written to OUT.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.metrics import bootstrap_interval, lpips, psnr, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines import Scan, reconstruct_volume
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.table import Row
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.priors.bundle import DEFAULT, PriorBundle, load
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile
from brgm_med.transforms.prepare import Heads, heads_in
from brgm_med.transforms.register import resample_cubic, rigid_pose
from brgm_med.transforms.template import Template, load_template
from demo import Volume, baselines, perceptual_model, to_ras


@dataclass(frozen=True)
class Task:
    """Scans with slices along these world axes (0 = R, 1 = A, 2 = S); Gaussian `noise`, a part of the brain's mean."""

    axes: tuple[int, ...]
    noise: float = 0.0


GROUPS = {"validation": slice(120, 135), "test": slice(135, 150)}
TASKS = {
    "axial": Task((2,)),
    "sagittal": Task((0,)),
    "coronal": Task((1,)),
    "axial, noise 3 %": Task((2,), 0.03),
    "axial + sagittal + coronal": Task((2, 0, 1)),
}
MODEL = AcquisitionModel((2.0, 2.0, 6.0), "gaussian", 2, True)
PLANES = {"coronal": (1, 2, 0), "axial": (2, 1, 0), "sagittal": (0, 2, 1)}
SCORES = (
    "PSNR",
    *(f"{score} {plane}" for score in ("SSIM", "LPIPS") for plane in PLANES),
    "between slices",
    "in plane",
)


def scanner(truth: Grid, axis: int, seed: int) -> Grid:
    """A grid of 2 x 2 x 6 mm over the truth's field of view, its slices along world `axis`, turned at random."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=3)
    angle = np.deg2rad(random.uniform(5, 15))
    turn = Rotation.from_rotvec(direction / np.linalg.norm(direction) * angle).as_matrix()
    axes = np.eye(3)[:, [*(a for a in range(3) if a != axis), axis]]
    corners = truth.corners()
    extent = np.abs(axes.T) @ (corners.max(0) - corners.min(0))
    shape = [int(e // s) for e, s in zip(extent, MODEL.thickness, strict=True)]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * np.asarray(MODEL.thickness)
    affine[:3, 3] = corners.mean(0) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def inside_box(grid: Grid, box: Grid, pose: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which voxels of `grid` have their centre in the prior's `box`; `pose` [4, 4] maps template to scan world."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    to_box = np.linalg.inv(box.affine) @ np.linalg.inv(pose) @ grid.affine
    place = index @ to_box[:3, :3].T + to_box[:3, 3]
    inside: NDArray[np.bool_] = ((place > -0.5) & (place < np.asarray(box.shape) - 0.5)).all(-1)
    return inside


def compare(
    images: dict[str, Volume], truth: Volume, inside: NDArray[np.bool_], model: LPIPS | None
) -> dict[str, dict[str, float]]:
    """Scores of each image against the truth, inside the prior's box; every second slice of each plane for LPIPS."""
    turned = to_ras(torch.from_numpy(inside), truth.grid)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in turned.nonzero(as_tuple=True))
    true, turned = to_ras(truth.image[0], truth.grid)[box], turned[box]
    low, high = torch.quantile(true[turned].double(), torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    scores = {}
    for name, volume in images.items():
        there = resample_cubic(volume.image.float(), volume.grid, truth.grid)
        image = torch.where(turned, to_ras(there[0], truth.grid)[box], true)
        found = {"PSNR": float(psnr(image[turned][None], true[turned][None], high - low))}
        for plane, order in PLANES.items():
            a, b = (v.permute(order)[:, None].contiguous() for v in (image, true))
            found[f"SSIM {plane}"] = float(ssim(a, b, high - low).mean())
            if model is not None:
                found[f"LPIPS {plane}"] = float(lpips(a[::2], b[::2], (low, high), model).mean())
        steps = [float((image - true).diff(dim=axis).square().mean().sqrt()) / (high - low) for axis in range(3)]
        found["between slices"], found["in plane"] = steps[1], (steps[0] + steps[2]) / 2
        scores[name] = found
    return scores


def measure(
    truth: Volume, name: str, number: int, bundle: PriorBundle, template: Template, model: LPIPS | None
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Scores of every method on one head, and facts: seconds, residual, noise."""
    task = TASKS[name]
    pose, _ = rigid_pose(truth.image, truth.grid, template)
    grids = [scanner(truth.grid, axis, 1000 * number + axis) for axis in task.axes]
    scans = [oblique_profile(MODEL, grid, truth.grid)(truth.image.double()).float() for grid in grids]
    brain = float(resample_cubic(truth.image, truth.grid, template.grid, pose)[template.mask > 0].mean())
    random = torch.Generator().manual_seed(number)
    scans = [y + task.noise * brain * torch.randn(y.shape, generator=random) for y in scans]
    begun = time.monotonic()
    stated = None if task.noise else 0.0
    result = reconstruct_volume([Scan(y, grid, MODEL, stated) for y, grid in zip(scans, grids, strict=True)], bundle)
    seconds = time.monotonic() - begun
    grid, first = result.grid, result.measurements[0]
    images = {
        "cubic": Volume(scans[0], grids[0]),
        "cubic + consistency": baselines(Volume(scans[0], grids[0]), grid, MODEL)["cubic + consistency, weighted"],
        "ours": Volume(result.image, grid),
    }
    residual = (first.values.double() - first.operator(result.image.double()))[:, first.inside]
    facts = {
        "seconds": seconds,
        "residual": float(residual.norm() / (first.values - first.values.mean())[:, first.inside].norm()),
        "noise": task.noise * brain,
        "noise_found": result.registration.first.noise.deviation,
        "residual_rms": float(residual.square().mean().sqrt()),
    }
    return compare(images, truth, inside_box(truth.grid, template.box, pose), model), facts


def summary(rows: list[dict[str, str]]) -> str:
    """Means over heads with 95 % bootstrap intervals, as Markdown."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        heads = len({row["head"] for row in mine})
        lines += [
            f"**{task}** ({heads} heads)",
            "",
            "| method | PSNR dB | SSIM cor / ax / sag | LPIPS cor / ax / sag |",
        ]
        lines += ["|---|---|---|---|"]
        for method in dict.fromkeys(row["method"] for row in mine):
            these = [row for row in mine if row["method"] == method]

            def mean(score: str, these: list[dict[str, str]] = these) -> float:
                return float(np.mean([float(row[score]) for row in these if row[score]] or [np.nan]))

            low, high = bootstrap_interval([float(row["PSNR"]) for row in these], seed=0)
            planes = (" / ".join(f"{mean(f'{s} {p}'):.3f}" for p in PLANES) for s in ("SSIM", "LPIPS"))
            lines.append(f"| {method} | {mean('PSNR'):.2f} ({low:.2f} to {high:.2f}) | {' | '.join(planes)} |")
        ours = [row for row in mine if row["method"] == "ours"]
        residual, seconds = (f(float(r[k]) for r in ours) for f, k in ((max, "residual"), (max, "seconds")))
        between, within = (np.mean([float(r[k]) for r in ours]) for k in ("between slices", "in plane"))
        lines += [
            "",
            f"Differences of neighbours off by {between:.4f} across coronal slices, {within:.4f} inside them. ",
        ]
        lines[-1] += f"Largest residual of the first scan {residual:.1e}; at most {seconds:.0f} s a head."
        noisy = [r for r in ours if float(r["noise"]) > 0]
        if noisy:
            found = [float(r["noise_found"]) / float(r["noise"]) for r in noisy]
            left = [float(r["residual_rms"]) / float(r["noise"]) for r in noisy]
            lines[-1] += f" Noise found: {min(found):.3f} to {max(found):.3f} of the truth; residual "
            lines[-1] += f"{min(left):.2f} to {max(left):.2f} of it."
        lines.append("")
    return "\n".join(lines)


@cache
def tools() -> tuple[PriorBundle, Template, LPIPS | None]:
    """What every job of one process shares."""
    set_up_torch(1)
    bundle = load(DEFAULT)
    return bundle, load_template(bundle), perceptual_model()


def job(path: Path, number: int, task: str) -> list[dict[str, str]]:
    """One head and one task: a row per method."""
    ((image, grid),) = Heads([path])
    scores, facts = measure(Volume(image, grid), task, number, *tools())
    made: list[dict[str, object]] = [
        {"head": path.name, "task": task, "method": method} | {s: found.get(s, "") for s in SCORES} | facts
        for method, found in scores.items()
    ]
    return [{key: str(value) for key, value in row.items()} for row in made]


def told(new: list[Row]) -> str:
    """A line about what one job found."""
    found = "  ".join(f"{r['method']} {float(r['PSNR']):.2f}" for r in new)
    return f"{new[0]['head']} {new[0]['task']}: {found}  {float(new[0]['seconds']):.0f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=tuple(GROUPS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--first", type=int, default=15, help="only the first so many heads")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    paths = heads_in(options.data)[GROUPS[options.which]][: options.first]
    file = options.out.with_suffix(".csv")
    known = {(row["head"], row["task"]) for row in table.read(file)}
    jobs = [(path, n, task) for task in options.tasks for n, path in enumerate(paths) if (path.name, task) not in known]
    rows = table.completed(
        file,
        jobs,
        job,
        lambda row: (list(TASKS).index(row["task"]), row["head"]),
        told,
        options.workers,
    )
    text = summary(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
