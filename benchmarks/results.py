"""docs/RESULTS.md and its pictures, by one command: the paper's tables beside ours.

    BRGM_MED_LPIPS_WEIGHTS=alexnet.pth python benchmarks/results.py --shared ../shared/data --out ~/results

Heads by sorted file name: the first 120 trained the shipped prior and train the baselines, the last 15 are reported.
Trained baselines are kept in OUT/baselines, rows in OUT/brains and so on; what is there is not made again. Rows of
x-rays and faces are added where priors of them are named: docs/pictures.md says how they are trained.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from brgm_med.pipelines.evaluation.comparison import BETTER, paired
from brgm_med.pipelines.evaluation.evaluate import Evaluation, evaluate, images_folder
from brgm_med.pipelines.evaluation.figures import PANELS, pyplot, save
from brgm_med.pipelines.evaluation.markdown import scores_of
from brgm_med.pipelines.evaluation.methods import BLEND
from brgm_med.pipelines.evaluation.supervised import IMAGES
from brgm_med.pipelines.evaluation.table import Row, grouped
from brgm_med.weights import ENVIRONMENT
from results_text import document

DOCS = Path(__file__).parent.parent / "docs"
TRAIN, REPORT = (0, 120), (135, 150)
PLAIN = ("cubic", "cubic+consistency", "lanczos", "lanczos+consistency", "tv")
PICTURES = {"sr": (BLEND, "map+blend", "map+blend+orthogonal", *PLAIN), "inpaint": (BLEND, "biharmonic", "telea")}
SHOWN = ("sr-4", "sr-8", "slices-6", "inpaint-half", "inpaint-strokes")
"""Levels whose pictures go into the document."""


def asked(options: argparse.Namespace) -> dict[str, Evaluation]:
    """Every evaluation of the document, by name."""
    evaluations = {}
    for task in ("sr", "slices", "inpaint", "shift"):
        evaluations[f"brains {task}"] = Evaluation(
            options.shared / "ixi-hh-2mm" / "t1",
            options.out / "brains",
            task,
            subjects=(REPORT[0], min(REPORT[1], REPORT[0] + options.first)),
            train=TRAIN,
            every=options.every * (2 if task == "shift" else 1),
            images=options.images,
            baselines=options.out / "baselines",
            workers=options.workers,
            lpips_weights=options.lpips_weights,
        )
    # The last 24 x-rays were held out of their prior's training; no face of the London set is in a training set.
    places = (
        ("x-rays", "xray-hannover", options.x_rays, 219, (0, 219)),
        ("faces", "faces-london", options.faces, 0, None),
    )
    for name, folder, prior, first, train in places:
        if prior is None:
            continue
        for task, methods in PICTURES.items():
            evaluations[f"{name} {task}"] = Evaluation(
                options.shared / folder,
                options.out / name,
                task,
                str(prior),
                ("2", "4", "8") if task == "sr" else ("square", "centre", "half"),
                (*methods, *(("pca",) if train else ()), *(("pca+consistency",) if train and task == "sr" else ())),
                (first, first + options.first),
                train,
                workers=options.workers,
                lpips_weights=options.lpips_weights,
            )
    return evaluations


def against(rows: Sequence[Row], ours: str, others: Sequence[str], out: Path) -> None:
    """Ours minus each of the others at every level, paired over subjects, with 95 % intervals: right is better."""
    plt = pyplot()
    scores = [score for score in ("PSNR", "LPIPS") if score in scores_of(rows)]
    levels = grouped(rows, "level")
    size = (4.6 * len(scores), 0.36 * len(levels) + 1.2)
    figure, axes = plt.subplots(1, len(scores), figsize=size, **PANELS)
    for axis, score in zip(axes[0], scores, strict=True):
        for number, other in enumerate(others):
            comparisons = [paired(these, ours, other, score) for these in levels.values()]
            rows_at = np.arange(len(comparisons)) + 0.18 * (number - (len(others) - 1) / 2)
            gain = np.array([(f.difference, f.low, f.high) for f in comparisons]) * BETTER[score]
            band = np.abs(gain[:, 1:].T - gain[:, 0])[:: BETTER[score]]
            axis.errorbar(gain[:, 0], rows_at, xerr=band, fmt="o", markersize=4, capsize=2, label=f"against {other}")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(levels)), list(levels) if axis is axes[0][0] else [""] * len(levels))
        axis.invert_yaxis()
        axis.set_xlabel(f"gain in {score} of {ours} (right of 0: ours is better)")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    save(figure, out, 110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="the folder with ixi-hh-2mm and others")
    parser.add_argument("--out", type=Path, required=True, help="tables, baselines and all pictures")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where RESULTS.md and its pictures go")
    parser.add_argument("--x-rays", type=Path, metavar="PRIOR")
    parser.add_argument("--faces", type=Path, metavar="PRIOR")
    parser.add_argument("--first", type=int, default=15, help="only the first so many subjects of each kind")
    parser.add_argument("--every", type=int, default=10, help="every Nth slice of a head (of shifts, every 2 Nth)")
    parser.add_argument("--images", type=int, default=IMAGES, help="that each network baseline is shown")
    text = "if it holds AlexNet's alone, LPIPS is taken with AlexNet alone"
    parser.add_argument("--lpips-weights", type=Path, default=os.environ.get(ENVIRONMENT), help=text)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    evaluations = asked(options)
    rows: dict[str, list[Row]] = {}
    for name, evaluation in evaluations.items():
        rows[name] = evaluate(evaluation)
        print(f"{name}: {(time.monotonic() - begun) / 60:.1f} min", flush=True)
    pictures = options.docs / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    for level in SHOWN:
        task, _, name = level.partition("-")
        picture = images_folder(options.out / "brains", task, name).with_suffix(".png")
        if picture.is_file():
            Image.open(picture).convert("L").save(pictures / f"{level}.png", optimize=True)
    for task in ("sr", "slices"):
        shutil.copyfile(options.out / "brains" / f"{task}.png", pictures / f"{task}.png")
    others = ("supervised", "supervised+consistency", "pca+consistency", "cubic+consistency")
    against(rows["brains shift"], BLEND, others, pictures / "shift.png")
    volumes = (options.docs / "volumes.md").read_text()
    (options.docs / "RESULTS.md").write_text(document(rows, evaluations, volumes))
    print(f"wrote {options.docs / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
