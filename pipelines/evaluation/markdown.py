"""Tables for readers: every method at a level, and who won."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from brgm_med.pipelines.evaluation.comparison import BETTER, below, best_baseline, mean, paired
from brgm_med.pipelines.evaluation.measure import COSTS
from brgm_med.pipelines.evaluation.methods import ALONE, BLEND
from brgm_med.pipelines.evaluation.table import Row

DIGITS = {"PSNR": 2, "hole PSNR": 2, "SSIM": 3, "LPIPS": 4, "LPIPS vgg": 4, "RMSE": 2, "MAE": 2}
ARROW = {1: "↑", -1: "↓"}
CUBIC = "cubic+consistency"
NOTHING_ADDED = 1 + 1e-6
"""Factor that rounding may add to a squared error that a theorem says cannot rise."""


def levels_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by level, in the table's order."""
    levels: dict[str, list[Row]] = {}
    for row in rows:
        levels.setdefault(row["level"], []).append(row)
    return levels


def scores_of(rows: Sequence[Row]) -> list[str]:
    """The scores that were taken."""
    return [score for score in DIGITS if any(row[score] for row in rows)]


def methods_table(rows: Sequence[Row]) -> list[str]:
    """One line a method: means over subjects with 95 % bootstrap intervals, and mean costs."""
    scores = scores_of(rows)
    lines = [f"| method | {' | '.join(f'{s} {ARROW[BETTER[s]]}' for s in scores)} | residual | s / image | MB |"]
    lines.append("|---" * (len(scores) + 4) + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        cells = [method]
        for score in scores:
            average = mean(mine, method, score)
            cells.append("" if average is None else _interval(average, DIGITS[score]))
        for cost, form in zip(COSTS, (".1e", ".2f", ".0f"), strict=True):
            values = [float(row[cost]) for row in mine if row[cost]]
            cells.append(f"{np.mean(values):{form}}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdicts(rows: Sequence[Row], ours: Sequence[str] = (BLEND, ALONE)) -> list[str]:
    """A line a score: ours against the best of the others, paired over subjects, won or lost."""
    lines = [
        "| score | ours | best other method | difference (95 % interval) | subjects better | Wilcoxon p | |",
        "|---|---|---|---|---|---|---|",
    ]
    present = {row["method"] for row in rows}
    for score in scores_of(rows):
        other = best_baseline(rows, score)
        for mine in ours:
            if other is None or mine not in present:
                continue
            pair = paired(rows, mine, other, score)
            digits = DIGITS[score]
            difference = f"{pair.difference:+.{digits}f} ({pair.low:+.{digits}f} to {pair.high:+.{digits}f})"
            p = "" if math.isnan(pair.p) else f"{pair.p:.2g}"
            cells = [score, mine, other, difference, f"{pair.better} of {pair.subjects}", p, f"**{pair.verdict}**"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def honesty(rows: Sequence[Row]) -> list[str]:
    """Whether the orthogonal projection kept its word, and the images on which interpolation is nearer to the truth."""
    lines = []
    by_image = {(r["method"], r["subject"], r["image"]): r for r in rows}
    pairs = [
        (by_image["map+blend+orthogonal", subject, image], by_image["map+blend", subject, image])
        for method, subject, image in by_image
        if method == "map+blend+orthogonal" and ("map+blend", subject, image) in by_image
    ]
    if pairs:
        raised = sum(float(a["RMSE"]) ** 2 > float(b["RMSE"]) ** 2 * NOTHING_ADDED for a, b in pairs)
        lines += [
            f"Images on which the orthogonal projection raised the squared error of ours: {raised} of {len(pairs)}.",
            "",
        ]
    if any(row["method"] == CUBIC for row in rows):
        for score in ("PSNR", "LPIPS"):
            if score not in scores_of(rows):
                continue
            worse = below(rows, BLEND, CUBIC, score)
            images = sum(row["method"] == BLEND for row in rows)
            lines.append(f"Images on which ours is below {CUBIC} in {score}: {len(worse)} of {images}.")
            if worse:
                named = ", ".join(f"{s.split('.')[0]} [{i}] {d:+.{DIGITS[score]}f}" for s, i, d in worse)
                lines += ["", f"<details><summary>which</summary>{named}</details>"]
            lines.append("")
    return lines


def report(rows: Sequence[Row], titles: dict[str, str]) -> str:
    """Everything about one task's rows: level by level, `titles` by level."""
    lines = []
    for level, these in levels_of(rows).items():
        subjects = len({row["subject"] for row in these})
        images = len({(row["subject"], row["image"]) for row in these})
        lines += [f"### {titles.get(level, level)}", "", f"{images} images of {subjects} subjects.", ""]
        lines += [*methods_table(these), "", "Ours against the best other method of each score:", ""]
        lines += [*verdicts(these), "", *honesty(these)]
    return "\n".join(lines)


def _interval(average: tuple[float, float, float], digits: int) -> str:
    value, low, high = average
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
