"""Coverage of the intervals of `sr` on simulated thick slices of heads: the tables of docs/uncertainty.md.

    python benchmarks/coverage.py --data ../shared/data --out OUT.csv [--which test] [--only TEXT] [--own]
    python benchmarks/coverage.py table OUT.csv

A row per case, as it is known; goes on where OUT.csv stands. `--own`: by the scan's own prior alone, which is faster.
The truth of a voxel of the result is the mean of the head over it, as a scanner of such voxels would have measured it.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brgm_med.pipelines.evaluation.volumes import Case, inside, turned_case
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan
from brgm_med.pipelines.reconstruct.uncertainty import expected_psnr
from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
from brgm_med.priors.bundle import load
from brgm_med.self_prior.error_model import TISSUE
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import resample
from brgm_med.transforms.oblique import acquire_turned
from brgm_med.transforms.prepare import heads_in
from brgm_med.transforms.register import rigid_pose
from brgm_med.transforms.template import Template, load_template
from self_prior_measure import noisy, straight_case

LEVELS = (0.5, 0.8, 0.9, 0.95)
SPLIT = {
    "validation": (slice(120, 128), slice(4, 6), slice(36, 40)),
    "test": (slice(135, 150), slice(6, 9), slice(40, 50)),
}


def cases(data: Path, which: str) -> Iterator[Case]:
    """Slices of 6 mm, turned, of three scanners; one with noise; of the test set other contrasts, slices of 5 mm."""
    ixi, other, brains = SPLIT[which]
    others = sorted((data / "heads-ds000011").glob("*_T1w.nii.gz"))[other]
    stripped = sorted((data / "brains-ds002748").glob("*_T1w.nii.gz"))[brains]
    heads = heads_in(data / "ixi-hh-2mm" / "t1")[ixi]
    if which == "test":
        for path in (data / "brain-4contrast" / f"patient07_{c}.nii.gz" for c in ("T2", "FLAIR")):
            for world in "SR":
                yield straight_case(f"{path.name.removesuffix('.nii.gz')} {world}", path, world)
    for number in range(max(map(len, (heads, others, stripped)))):
        if number < len(others):
            yield turned_case(f"ds000011 {others[number].name[:6]}", others[number], number)
        if number < len(stripped):
            world = "RA"[number % 2]
            yield turned_case(f"ds002748 {stripped[number].name[:6]} {world}", stripped[number], number, world=world)
        if number < len(heads):
            yield turned_case(f"ixi {heads[number].name[:6]}", heads[number], number)
    yield noisy(turned_case(f"noise {heads[0].name[:6]}", heads[0], 0), 0.03)


def whole(case: Case) -> bool:
    """True for heads with skull."""
    return case.name.startswith(("ixi", "ds000011", "noise"))


def brain_of(case: Case, template: Template) -> Tensor:
    """The brain [X, Y, Z]: what is not 0 in heads without skull, else the template's mask in the truth's pose."""
    if not whole(case):
        return case.truth[0] > 0
    pose, _ = rigid_pose(case.truth, case.grid, template)
    return resample(template.mask, template.grid, case.grid, np.linalg.inv(pose).astype(np.float64))[0] > 0.5


def measured(case: Case, result: Reconstruction, brain: Tensor) -> dict[str, float]:
    """Coverages (per cent) and widths, on the result's grid."""
    assert result.uncertainty is not None
    grid = result.grid
    truth = acquire_turned(case.truth, case.grid, grid, AcquisitionModel(grid.spacing, stated=True))
    there = inside(case)
    box, brain = (resample(m[None].float(), case.grid, grid)[0] > 0.5 for m in (there, there & brain))
    error, deviation = (result.image - truth)[0].abs(), result.uncertainty.deviation[0]
    row: dict[str, float] = {}
    for level in LEVELS:
        covered = error <= result.uncertainty.half_width(level)[0] + 1e-4 * float(truth.max())
        row[f"brain {100 * level:g}"] = part(covered[brain])
        if level == 0.9:
            row["head"] = part(covered[box])
            for names, values in ((("dark", "middle", "bright"), truth[0]), (("narrow", "medium", "wide"), deviation)):
                low, high = (quantile(values[brain], q) for q in (1 / 3, 2 / 3))
                thirds = (values <= low, (values > low) & (values <= high), values > high)
                row |= {name: part(covered[brain & third]) for name, third in zip(names, thirds, strict=True)}
            tissue = box & ~brain & (result.uncertainty.model.normalisation(truth[0]) > TISSUE)
            row["skull"] = part(covered[tissue]) if whole(case) else float("nan")
    for name, mask, coverage in (("brain", brain, row["brain 90"]), ("head", box, row["head"])):
        width = result.uncertainty.half_width(0.9)[0][mask].double().mean()
        row[f"width {name}"] = float(width) / quantile(error[mask], coverage / 100)
    row["factor"] = quantile(error[brain] / deviation[brain], 0.9) / result.uncertainty.model.quantile(0.9)
    tissue = box & (result.uncertainty.model.normalisation(result.image[0]) > TISSUE)
    low, high = (quantile(result.image[0][tissue], q) for q in (0.005, 0.995))
    row["PSNR"] = 20 * math.log10((high - low) / float(error[tissue].double().square().mean().sqrt()))
    row["expected"], row["at least"], row["at most"] = expected_psnr(result)
    return row


def part(mask: Tensor) -> float:
    """Per cent that are True."""
    return 100 * float(mask.double().mean())


def quantile(values: Tensor, q: float) -> float:
    return float(torch.quantile(values[:: max(1, len(values) // 500_000)].double(), min(q, 1.0)))


def measure(data: Path, which: str, out: Path, only: str, own: bool) -> None:
    prior = load()
    template = load_template(prior)
    done = {row["case"] for row in csv.DictReader(out.open())} if out.exists() else set()
    with out.open("a", newline="") as stream:
        for case in cases(data, which):
            if only not in case.name or case.name in done:
                continue
            began = time.process_time()
            scan = Scan(case.scan, case.coarse, case.model, case.noise, case.name)
            result = reconstruct_volume(scan, None if own else prior, uncertainty=True)
            seconds = time.process_time() - began
            row = {"case": case.name, **measured(case, result, brain_of(case, template)), "seconds": seconds}
            writer = csv.DictWriter(stream, row)
            if not done:
                writer.writeheader()
            done.add(case.name)
            writer.writerow({k: v if isinstance(v, str) else f"{v:.4g}" for k, v in row.items()})
            stream.flush()
            print(row, file=sys.stderr, flush=True)


def table(file: Path) -> None:
    rows = list(csv.DictReader(file.open()))
    names = [name for name in rows[0] if name not in ("case", "seconds")]
    groups = {row["case"].split()[0] for row in rows}
    print("| cases | n | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for group in sorted(groups):
        these = [row for row in rows if row["case"].split()[0] == group]
        values = np.array([[float(row[name]) for name in names] for row in these])
        print(f"| {group} | {len(these)} | " + " | ".join(f"{v:.3g}" for v in values.mean(0)) + " |")
    print("\n| case | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for row in sorted(rows, key=lambda row: row["case"]):
        print(f"| {row['case']} | " + " | ".join(f"{float(row[name]):.3g}" for name in names) + " |")


def main() -> None:
    if sys.argv[1:2] == ["table"]:
        table(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--which", choices=tuple(SPLIT), default="test")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--own", action="store_true", help="the scan's own prior alone")
    options = parser.parse_args()
    set_up_torch(1)
    measure(options.data, options.which, options.out, options.only, options.own)


if __name__ == "__main__":
    main()
