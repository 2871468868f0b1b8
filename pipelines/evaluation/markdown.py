"""Tables for readers: every method at a level, and who won."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from brgm_med.pipelines.evaluation.comparison import BETTER, below, best_baseline, mean, paired
from brgm_med.pipelines.evaluation.measure import COSTS
from brgm_med.pipelines.evaluation.methods import ALONE, BLEND
from brgm_med.pipelines.evaluation.table import Row, grouped

DIGITS = {"PSNR": 2, "hole PSNR": 2, "SSIM": 3, "LPIPS": 4, "LPIPS vgg": 4, "RMSE": 2, "MAE": 2}
ARROW = {1: "↑", -1: "↓"}
CUBIC = "cubic+consistency"
LEADS = (BLEND, ALONE, "brgm", "self", "population")
"""Our methods that are compared with the best of the others: of slices, and of volumes."""

NOTHING_ADDED = 1 + 1e-6
"""Factor that rounding may add to a squared error that a theorem says cannot rise."""


def scores_of(rows: Sequence[Row]) -> list[str]:
    """The scores that were taken."""
    return [score for score in DIGITS if any(row[score] for row in rows)]


def methods_table(rows: Sequence[Row]) -> list[str]:
    """One line a method: means over subjects with 95 % bootstrap intervals, and mean costs."""
    scores = scores_of(rows)
    lines = [f"| method | {' | '.join(f'{s} {ARROW[BETTER[s]]}' for s in scores)} | residual | s / image | MB |"]
    lines.append("|---" * (len(scores) + 4) + "|")
    for method, mine in grouped(rows, "method").items():
        cells = [method]
        for score in scores:
            average = mean(mine, method, score)
            cells.append("" if average is None else _interval(average, f".{DIGITS[score]}f"))
        for cost, form in zip(COSTS, (".1e", ".2f", ".0f"), strict=True):
            values = [float(row[cost]) for row in mine if row[cost]]
            cells.append(f"{np.mean(values):{form}}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line a score: ours against the best of the others, paired over subjects, won or lost."""
    lines = [
        "| score | ours | best other method | difference (95 % interval) | subjects better | Wilcoxon p | |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = [method for method in LEADS if any(row["method"] == method for row in rows)]
    for score in scores_of(rows):
        other = best_baseline(rows, score)
        if other is None:
            continue
        for mine in ours:
            pair = paired(rows, mine, other, score)
            difference = _interval((pair.difference, pair.low, pair.high), f"+.{DIGITS[score]}f")
            p = "" if math.isnan(pair.p) else f"{pair.p:.2g}"
            cells = [score, mine, other, difference, f"{pair.better} of {pair.subjects}", p, f"**{pair.verdict}**"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def honesty(rows: Sequence[Row]) -> list[str]:
    """Sentences: the projection kept its word or not, and the images on which interpolation is nearer to the truth."""
    lines = []
    before, after = (
        {(row["subject"], row["image"]): row for row in rows if row["method"] == method}
        for method in ("map+blend", "map+blend+orthogonal")
    )
    pairs = [(after[image], before[image]) for image in after if image in before]
    if pairs:
        raised = sum(float(a["RMSE"]) ** 2 > float(b["RMSE"]) ** 2 * NOTHING_ADDED for a, b in pairs)
        sentence = (
            f"Images on which the orthogonal projection raised the squared error of ours: {raised} of {len(pairs)}."
        )
        lines += [sentence, ""]
    methods = [row["method"] for row in rows]
    ours = "brgm" if "brgm" in methods else BLEND
    for score in ("PSNR", "LPIPS"):
        if CUBIC not in methods or score not in scores_of(rows):
            continue
        worse = below(rows, ours, CUBIC, score)
        lines.append(f"Images on which ours is below {CUBIC} in {score}: {len(worse)} of {methods.count(ours)}.")
        if worse:
            named = ", ".join(f"{s.split('.')[0]} [{i}] {d:+.{DIGITS[score]}f}" for s, i, d in worse)
            lines += ["", f"<details><summary>which</summary>{named}</details>"]
        lines.append("")
    return lines


def report(rows: Sequence[Row], titles: dict[str, str]) -> str:
    """Tables and sentences on one task's rows: level by level, `titles` by level."""
    lines = []
    for level, these in grouped(rows, "level").items():
        subjects = len(grouped(these, "subject"))
        images = len({(row["subject"], row["image"]) for row in these})
        lines += [f"### {titles.get(level, level)}", "", f"{images} images of {subjects} subjects.", ""]
        refused = [f"{row['method']} {row['subject']}" for row in these if not row["PSNR"]]
        if refused:
            lines += [f"Refused, and in no mean: {', '.join(refused)}.", ""]
        lines += [*methods_table(these), "", "Ours against the best other method of each score:", ""]
        lines += [*verdicts(these), "", *honesty(these)]
    return "\n".join(lines)


def _interval(average: tuple[float, float, float], form: str) -> str:
    value, low, high = average
    return f"{value:{form}} ({low:{form}} to {high:{form}})"
