"""Inpainting of held-out heads with seven masks, against biharmonic, Telea's and Navier-Stokes inpainting.

    python benchmarks/holes.py --data ../shared/data/ixi-hh-2mm/t1 --which report --out OUT

Heads by sorted file name: the first 120 trained the shipped prior, the next 15 are for choosing, the last 15 for
reporting. Every head is registered to the template; each mask is cut out of five neighbouring coronal slices (10 mm)
in the middle of the prior's box, or of those at --slice. Ours is what `brgm-med inpaint` does from there on: the MAP of
the slices around the hole, blended into the rest in the gradient domain. The others see each slice on its own, Telea
and Navier-Stokes in 8 bits, as OpenCV takes them. PSNR is that of the hole's pixels, LPIPS that of the whole slices, in
which all else is the truth. OUT holds a row per head, mask and method (holes.csv), from which an interrupted run goes
on, the table (holes.md) and the first head's picture (holes.png).
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
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.corruptions import Mask
from brgm_med.metrics import bootstrap_interval, lpips, psnr
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.problems import holes
from brgm_med.pipelines.evaluation.untrained import filled
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.hole import infer_hole
from brgm_med.pipelines.training.heads import prepare, slices_of
from brgm_med.priors.bundle import DEFAULT_PRIOR, PriorBundle, load
from brgm_med.seams import blend_seamless
from demo import perceptual_model
from table import completed, scores

THICK = 2
"""So many slices on either side of the middle one are cut out with it."""
OURS, OTHERS = "ours", ("biharmonic", "telea", "navier-stokes")


def reconstructions(stack: Tensor, middle: int, hole: Tensor, bundle: PriorBundle) -> dict[str, Tensor]:
    """The slices through a hole in a head's stack [Y, 1, H, W], by every method: [2 THICK + 1, 1, H, W]."""
    cut = slice(middle - THICK, middle + THICK + 1)
    hidden = torch.zeros(stack.shape, dtype=torch.bool)
    hidden[cut] = hole
    whole, _ = infer_hole(stack.where(~hidden, torch.nan), ~hidden, hidden, nn.Identity(), bundle)
    ours = blend_seamless(stack[:, 0], whole[:, 0], hidden[:, 0])[:, None]
    return {OURS: ours[cut]} | {method: filled(stack[cut], Mask(~hole), method) for method in OTHERS}


@cache
def tools(prior: str, out: Path) -> tuple[PriorBundle, LPIPS | None, Sequence[Tensor]]:
    """What every job of one process shares."""
    set_up_torch(1)
    return load(prior), perceptual_model(), slices_of(out, "held_out")


def job(head: int, name: str, middle: int, prior: str, out: Path) -> list[dict[str, str]]:
    """One head and one mask: a row per method."""
    bundle, model, stacks = tools(prior, out)
    stack = stacks[head].float()
    hole = holes(*stack.shape[2:])[name]
    low, high = np.percentile(stack.numpy(), (0.5, 99.5)).tolist()
    truth, inside = stack[middle - THICK : middle + THICK + 1], hole
    rows = []
    for method, image in reconstructions(stack, middle, hole, bundle).items():
        row = {"head": str(head), "mask": name, "pixels": str(int(hole.sum())), "method": method}
        pixels = (v[:, 0][:, inside].reshape(1, -1) for v in (image, truth))
        row["PSNR"] = f"{float(psnr(*pixels, high - low)):.5f}"
        row["LPIPS"] = "" if model is None else f"{float(lpips(image, truth, (low, high), model).mean()):.6f}"
        rows.append(row)
    return rows


def summary(rows: list[dict[str, str]]) -> str:
    """Means over heads by mask, and over all with 95 % bootstrap intervals over heads, as Markdown."""
    heads = sorted({row["head"] for row in rows})
    methods = [OURS, *OTHERS]

    def values(score: str, method: str, mask: str | None = None) -> list[float]:
        """One value a head, the mean over its masks."""
        mine = [r for r in rows if r["method"] == method and mask in (None, r["mask"]) and r[score]]
        return [float(np.mean([float(r[score]) for r in mine if r["head"] == h])) for h in heads if mine]

    lines = [f"PSNR dB inside the hole / LPIPS of its slices, means over {len(heads)} heads.", ""]
    lines += [f"| mask (pixels) | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    for mask, pixels in dict.fromkeys((row["mask"], row["pixels"]) for row in rows):
        cells = [f"{np.mean(values('PSNR', m, mask)):.2f} / {np.mean(values('LPIPS', m, mask)):.4f}" for m in methods]
        lines.append(f"| {mask} ({pixels}) | {' | '.join(cells)} |")
    for label, score, digits in (("PSNR", "PSNR", 2), ("LPIPS", "LPIPS", 4)):
        cells = []
        for method in methods:
            low, high = bootstrap_interval(values(score, method), seed=0)
            cells.append(f"{np.mean(values(score, method)):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        lines.append(f"| all, {label} | {' | '.join(cells)} |")
    table = {(r["head"], r["mask"], r["method"]): r for r in rows}
    wins = []
    for other in OTHERS:
        pairs = [(table[h, m, OURS], table[h, m, other]) for h, m, method in table if method == OURS]
        psnrs = sum(float(a["PSNR"]) > float(b["PSNR"]) for a, b in pairs)
        distances = sum(float(a["LPIPS"] or 0) < float(b["LPIPS"] or 0) for a, b in pairs)
        wins.append(f"{other} in PSNR on {psnrs} and in LPIPS on {distances} of {len(pairs)}")
    return "\n".join([*lines, "", f"Ours is ahead of {'; of '.join(wins)} head-mask pairs.", ""])


def draw(stack: Tensor, middle: int, bundle: PriorBundle, path: Path) -> None:
    """A row a mask: the slice with its hole, every method, the truth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shapes = holes(*stack.shape[2:])
    names = ["hole", *OTHERS, OURS, "truth"]
    figure, axes = pyplot.subplots(len(shapes), len(names), figsize=(11, 10.8), layout="constrained", facecolor="black")
    for number, hole in enumerate(shapes.values()):
        truth = stack[middle, 0]
        shown = {k: v[THICK, 0] for k, v in reconstructions(stack, middle, hole, bundle).items()}
        shown |= {"hole": truth.where(~hole, torch.nan), "truth": truth}
        for axis, name in zip(axes[number], names, strict=True):
            axis.set_facecolor("#803030")
            axis.imshow(shown[name], cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            if number == 0:
                axis.set_title(name, color="white", fontsize=10)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("choose", "report"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default=DEFAULT_PRIOR)
    parser.add_argument("--first", type=int, default=15, help="only the first so many heads")
    parser.add_argument("--slice", type=int, default=30, help="the middle one of the slices that are cut out")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    bundle = load(options.prior)
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copyfile(bundle.folder / name, out / name)
    prepare(options.data, out, 120, 30, options.workers)
    first = 0 if options.which == "choose" else 15
    stacks = slices_of(out, "held_out")
    order = list(holes(*stacks[0].shape[2:]))
    heads = range(first, first + options.first)
    rows = completed(
        out / "holes.csv",
        {(str(h), name): (h, name, options.slice, options.prior, out) for h in heads for name in order},
        "mask",
        job,
        lambda row: (order.index(row["mask"]), int(row["head"])),
        lambda new: f"head {new[0]['head']} {new[0]['mask']}: {scores(new, 4)}",
        options.workers,
    )
    text = summary(rows)
    (out / "holes.md").write_text(text)
    print(text)
    set_up_torch(1)
    draw(stacks[first].float(), options.slice, bundle, out / "holes.png")


if __name__ == "__main__":
    main()
