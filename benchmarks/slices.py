"""The prior itself, on single slices of held-out heads in the template's box: the first table of the model card.

    python benchmarks/slices.py --data ../shared/data/ixi-hh-2mm/t1 --which report --out report

Heads by sorted file name: the first 120 trained the shipped prior, the next 15 are for choosing, the last 15 for
reporting. All are registered to the prior's template (kept in OUT, so a second run goes on). Slices every 4 mm along
the whole range are degraded without noise and reconstructed, each on its own. OUT/slices.csv has a row per head,
task and method; OUT/slices.md the means with 95 % bootstrap intervals over heads, and of differences to the linear-
Gaussian MAP (principal components of the same training slices), which is the bar.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.gaussian import LinearGaussian
from brgm_med.metrics import bootstrap_interval, lpips, psnr, ssim
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import prepare, slices_of
from brgm_med.priors.bundle import DEFAULT_PRIOR, PriorBundle, load
from brgm_med.reconstruction import blended, consistent, map_images
from brgm_med.search import SLICES
from demo import perceptual_model
from table import completed, scores

EVERY = 2  # positions: 4 mm
SIDE = 10  # positions: the slices 40 mm in front of and behind the middle are 10 of these steps away
NOISE = {"factor 4": 0.04, "factor 8": 0.01, "6 mm": 0.08}  # of the linear-Gaussian MAP, chosen on the choosing heads
BAR = "linear-Gaussian MAP + consistency"
OURS = "ours"


class BoxMean(nn.Module):
    """Means over blocks of rows x columns; rows that are left over are left out at both ends alike."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.block = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        rest = x.shape[2] % self.block[0]
        return F.avg_pool2d(x[:, :, rest // 2 : x.shape[2] - (rest - rest // 2)], self.block)


TASKS = {"factor 4": BoxMean(4, 4), "factor 8": BoxMean(8, 8), "6 mm": BoxMean(3, 1)}


def cubic(measured: Tensor, corruption: BoxMean, shape: Sequence[int]) -> Tensor:
    """Cubic interpolation to slices of `shape` (rows, columns); rows beyond the samples repeat the last one."""
    rows, columns = (n * b for n, b in zip(measured.shape[2:], corruption.block, strict=True))
    fine = F.interpolate(measured, (rows, columns), mode="bicubic", align_corners=False)
    rest = shape[0] - rows
    return F.pad(fine, (0, 0, rest // 2, rest - rest // 2), mode="replicate")


@cache
def tools(prior: str, out: Path) -> tuple[PriorBundle, LinearGaussian, object]:
    """What every job of one process shares. The linear-Gaussian prior has 1500 components in full precision."""
    set_up_torch(1)
    file = out / "linear.pt"
    if file.is_file():
        linear = LinearGaussian(**torch.load(file))
    else:
        linear = LinearGaussian.fit(slices_of(out), 1500)
        torch.save(vars(linear), file)
    return load(prior), linear, perceptual_model()


def job(head: int, task: str, prior: str, out: Path) -> list[dict[str, str]]:
    """One head and one task: a row per method."""
    bundle, linear, model = tools(prior, out)
    index = range(0, bundle.grid_shape[1], EVERY)
    truth = slices_of(out, "held_out")[head][::EVERY].float()
    low, high = torch.quantile(truth.flatten().double(), torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    corruption = TASKS[task]
    y = corruption(truth)
    plain = cubic(y, corruption, truth.shape[2:])
    images = {"cubic": plain, "cubic + consistency": consistent(plain, corruption, y)}
    gaussian = linear.at(list(index)).estimate(corruption, y, NOISE[task])
    images |= {"linear-Gaussian MAP": gaussian, BAR: consistent(gaussian, corruption, y)}
    alone = map_images(bundle, index, corruption, y, search=SLICES)
    images["ours, the generator alone"] = consistent(alone, corruption, y)
    blend = blended(bundle, index, alone, corruption, y, search=SLICES)  # `reconstruct_slices`, in two steps
    images[OURS] = consistent(blend, corruption, y)
    rows = []
    middle = len(index) // 2
    for method, image in images.items():
        each = psnr(image, truth, high - low)
        row = {"head": str(head), "task": task, "method": method}
        row |= {"PSNR": str(float(psnr(image[None].flatten(1), truth[None].flatten(1), high - low)))}
        row |= {"SSIM": str(float(ssim(image, truth, high - low).mean()))}
        row |= {"LPIPS": str(float(lpips(image, truth, (low, high), model).mean())) if model else ""}
        row |= {f"at {k}": str(float(each[middle + d])) for k, d in (("-40 mm", -SIDE), ("0", 0), ("+40 mm", SIDE))}
        rows.append(row)
    return rows


def summary(rows: list[dict[str, str]]) -> str:
    """Means over heads with 95 % bootstrap intervals, and paired differences to the bar, as Markdown."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        found = {(r["method"], r["head"]): r for r in rows if r["task"] == task}
        heads = sorted({head for _, head in found}, key=int)
        methods = list(dict.fromkeys(method for method, _ in found))
        lines += [f"**{task}** ({len(heads)} heads)", "", "| method | PSNR dB | SSIM | LPIPS |", "|---|---|---|---|"]

        def cell(values: list[float], digits: int) -> str:
            low, high = bootstrap_interval(values, seed=0)
            return f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

        scores = {"PSNR": 2, "SSIM": 3, "LPIPS": 3}
        scores = {k: d for k, d in scores.items() if all(row[k] for row in found.values())}
        for method in methods:
            cells = [cell([float(found[method, h][k]) for h in heads], d) for k, d in scores.items()]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        for method in methods[-2:]:
            gains = [
                cell([float(found[method, h][k]) - float(found[BAR, h][k]) for h in heads], d)
                for k, d in scores.items()
            ]
            lines.append(f"| {method}, minus the linear-Gaussian MAP + consistency | {' | '.join(gains)} |")
        places = [k for k in rows[0] if k.startswith("at ")]
        gain = {
            k: np.mean([float(found[OURS, h][k]) - float(found["cubic + consistency", h][k]) for h in heads])
            for k in places
        }
        text = ", ".join(f"{v:.2f} dB {k}" for k, v in gain.items())
        lines += ["", f"Gain in PSNR of ours over cubic + consistency: {text}.", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("choose", "report"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default=DEFAULT_PRIOR)
    parser.add_argument("--first", type=int, default=15, help="only the first so many heads")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    folder = load(options.prior).folder
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copyfile(folder / name, out / name)
    prepare(options.data, out, 120, 30, options.workers)
    first = 0 if options.which == "choose" else 15
    heads = range(first, first + options.first)
    tools(options.prior, out)
    rows = completed(
        out / "slices.csv",
        {(str(h), task): (h, task, options.prior, out) for h in heads for task in TASKS},
        "task",
        job,
        lambda row: (list(TASKS).index(row["task"]), int(row["head"])),
        lambda new: f"head {new[0]['head']} {new[0]['task']}: {scores(new)}",
        options.workers,
    )
    text = summary(rows)
    (out / "slices.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
