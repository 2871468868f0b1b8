"""Ours against cubic interpolation with data consistency, on held-out heads: the table in the README.

    python benchmarks/heads.py --data ../shared/data/ixi-hh-2mm/t1 --which report --out benchmarks/report

Heads by sorted file name: the first 120 trained the shipped prior, the next 15 are for choosing, the last 15 for
reporting. Every head is degraded, reconstructed and compared inside the prior's box (placed by registering the
truth); one row per head and task is added to OUT.csv as soon as it is known, so that a run can be resumed, and the
means with 95 % bootstrap intervals over heads are written to OUT.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.consistency import certificate, project
from brgm_med.metrics import bootstrap_interval
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines import Scan, reconstruct_volume
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.priors.bundle import DEFAULT_PRIOR, PriorBundle, load
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel, coarse_in_plane, degrade, thick_slices
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads, heads_in
from brgm_med.transforms.register import rigid_pose
from brgm_med.transforms.template import Template, load_template
from demo import Comparison, Volume, baselines, cropped_to, inside_box, perceptual_model
from table import completed, scores

TASKS: dict[str, Callable[[Grid], tuple[Grid, AcquisitionModel]]] = {
    "6 mm slices along S": lambda grid: thick_slices(grid, "S", 6.0),
    "in-plane factor 4": lambda grid: coarse_in_plane(grid, 4),
}
GROUPS = {"choose": slice(120, 135), "report": slice(135, 150)}
SCORES = ("PSNR", "SSIM", "LPIPS")


def measure(
    truth: Volume, task: str, bundle: PriorBundle, template: Template, lpips: LPIPS | None, steps: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Scores of every method on one head, and facts: seconds, residual, and whether projections kept their word."""
    coarse_grid, acquisition = TASKS[task](truth.grid)
    scan = degrade(truth.image, truth.grid, coarse_grid, acquisition)
    begun = time.monotonic()
    result = reconstruct_volume(Scan(scan, coarse_grid, acquisition, 0.0), bundle, search=VOLUME.limited_to(steps))
    seconds = time.monotonic() - begun
    registration = result.registration
    grid, operator = result.grid, registration.operator
    true = cropped_to(truth, grid)
    images = baselines(Volume(scan, coarse_grid), grid, acquisition) | {"ours": Volume(result.image, grid)}
    orthogonal = project(result.unprojected, operator, scan)
    images["ours, orthogonal projection"] = Volume(orthogonal, grid)
    pose, _ = rigid_pose(truth.image, truth.grid, template)
    comparison = Comparison.of(images, true, inside_box(true.grid, template.box, pose))

    def squared(image: Tensor) -> float:
        return float((image.double() - true.image.double()).square().sum())

    before = squared(result.unprojected)
    proof = certificate(result.image, operator, scan, operator.inside(scan.shape[1:]))
    facts = {
        "seconds": seconds,
        "correlation": registration.correlation,
        "residual": proof["relative_residual"],
        "orthogonal_raised": float(squared(orthogonal) > before * (1 + 1e-6)),
        "weighted_raised": float(squared(result.image) > before * (1 + 1e-6)),
    }
    return {name: comparison.scores(name, lpips) for name in images}, facts


def summary(rows: list[dict[str, str]]) -> str:
    """Means over heads with 95 % bootstrap intervals, as Markdown."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        heads = sorted({row["head"] for row in mine})
        lines += [f"**{task}** ({len(heads)} heads)", "", "| method | PSNR dB | SSIM | LPIPS |", "|---|---|---|---|"]
        for method in dict.fromkeys(row["method"] for row in mine):
            cells = []
            for score in SCORES:
                values = [float(row[score]) for row in mine if row["method"] == method and row[score]]
                if not values:
                    cells.append("n/a")
                    continue
                low, high = bootstrap_interval(values, seed=0)
                digits = 2 if score == "PSNR" else 3
                cells.append(f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
            lines.append(f"| {method} | {' | '.join(cells)} |")
        ours = [row for row in mine if row["method"] == "ours"]
        raised = {key: int(sum(float(row[key]) for row in ours)) for key in ("orthogonal_raised", "weighted_raised")}
        lines += [
            "",
            f"Largest residual |Ax - y| / |y - mean(y)|: {max(float(row['residual']) for row in ours):.1e}. "
            "Heads on which a projection raised the squared error over the whole grid: "
            f"orthogonal {raised['orthogonal_raised']}, weighted {raised['weighted_raised']} of {len(heads)}. "
            f"{np.mean([float(row['seconds']) for row in ours]):.0f} s a head.",
            "",
        ]
    return "\n".join(lines)


@cache
def tools(prior: str) -> tuple[PriorBundle, Template, LPIPS | None]:
    """What every job of one process shares."""
    set_up_torch(1)
    bundle = load(prior)
    return bundle, load_template(bundle), perceptual_model()


def job(path: Path, task: str, prior: str, steps: int) -> list[dict[str, str]]:
    """One head and one task: a row per method."""
    ((image, grid),) = Heads([path])
    scores, facts = measure(Volume(image, grid), task, *tools(prior), steps)
    rows = []
    for method, found in scores.items():
        row = {"head": path.name, "task": task, "method": method} | {s: found.get(s, "") for s in SCORES} | facts
        rows.append({key: str(value) for key, value in row.items()})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=tuple(GROUPS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    parser.add_argument("--prior", default=DEFAULT_PRIOR)
    parser.add_argument("--first", type=int, default=15, help="only the first so many heads")
    parser.add_argument("--steps", type=int, default=VOLUME.iterations)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    paths = heads_in(options.data)[GROUPS[options.which]][: options.first]
    rows = completed(
        options.out.with_suffix(".csv"),
        {(path.name, task): (path, task, options.prior, options.steps) for path in paths for task in TASKS},
        "task",
        job,
        lambda row: (list(TASKS).index(row["task"]), row["head"]),
        lambda new: f"{new[0]['head']} {new[0]['task']}: {scores(new)}  {float(new[0]['seconds']):.0f} s",
        options.workers,
    )
    text = summary(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
