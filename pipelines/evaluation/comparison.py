"""Methods compared from a table of rows: means with intervals, and ours against the best of the others, paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from brgm_med.metrics import bootstrap_interval
from brgm_med.pipelines.evaluation.table import Row, grouped

HIGHER, LOWER = ("PSNR", "hole PSNR", "SSIM"), ("LPIPS", "LPIPS vgg", "RMSE", "MAE")
BETTER = dict.fromkeys(HIGHER, 1) | dict.fromkeys(LOWER, -1)
"""Sign of what is better: 1 where more of a score is, -1 where less."""

OWN_METHODS = ("map", "self", "population", "brgm")
"""The first part of the name of a method that rests on this package's priors: such a one is no baseline."""


def is_ours(method: str) -> bool:
    """True if a method rests on this package's priors."""
    return method.split("+")[0] in OWN_METHODS


def by_subject(rows: Sequence[Row], method: str, score: str) -> dict[str, float]:
    """A method's mean score of each subject, over its images; empty where the score was not taken."""
    scored = grouped([row for row in rows if row["method"] == method and row[score]], "subject")
    return {subject: float(np.mean([float(row[score]) for row in mine])) for subject, mine in sorted(scored.items())}


def mean(rows: Sequence[Row], method: str, score: str) -> tuple[float, float, float] | None:
    """Mean over subjects and its 95 % bootstrap interval; None where the score was not taken."""
    values = list(by_subject(rows, method, score).values())
    return (float(np.mean(values)), *bootstrap_interval(values, seed=0)) if values else None


@dataclass(frozen=True)
class Paired:
    """`ours` minus `other` in one score, over the subjects of both: mean, 95 % bootstrap interval, on how many subjects
    ours is better, and the p of Wilcoxon's signed-rank test (two-sided; nan for fewer than two subjects, or where all
    are equal). `verdict`: "won" or "lost" where the interval leaves out 0, else "undecided"."""

    ours: str
    other: str
    score: str
    difference: float
    low: float
    high: float
    better: int
    subjects: int
    p: float

    @property
    def verdict(self) -> str:
        sign = BETTER[self.score]
        if min(sign * self.low, sign * self.high) > 0:
            return "won"
        return "lost" if max(sign * self.low, sign * self.high) < 0 else "undecided"


def paired(rows: Sequence[Row], ours: str, other: str, score: str) -> Paired:
    """Raises ValueError where the two methods share no subject."""
    mine, theirs = by_subject(rows, ours, score), by_subject(rows, other, score)
    shared = sorted(mine.keys() & theirs.keys())
    gains = np.array([mine[subject] - theirs[subject] for subject in shared])
    low, high = bootstrap_interval(gains.tolist(), seed=0)
    p = float(wilcoxon(gains).pvalue) if len(gains) > 1 and np.any(gains) else float("nan")
    better = int((BETTER[score] * gains > 0).sum())
    return Paired(ours, other, score, float(gains.mean()), low, high, better, len(gains), p)


def best_baseline(rows: Sequence[Row], score: str) -> str | None:
    """The method with the best mean score that is not ours in any form; None where there is none."""
    means = {m: mean(these, m, score) for m, these in grouped(rows, "method").items() if not is_ours(m)}
    ranked = {m: value[0] * BETTER[score] for m, value in means.items() if value is not None}
    return max(ranked, key=lambda m: ranked[m], default=None)


def below(rows: Sequence[Row], ours: str, other: str, score: str = "PSNR") -> list[tuple[str, str, float]]:
    """The images on which `ours` is worse than `other`: subject, position, difference, the worst first."""
    theirs = {(r["subject"], r["image"]): float(r[score]) for r in rows if r["method"] == other and r[score]}
    mine = {(r["subject"], r["image"]): float(r[score]) for r in rows if r["method"] == ours and r[score]}
    gains = [(*key, value - theirs[key]) for key, value in mine.items() if key in theirs]
    return sorted((g for g in gains if BETTER[score] * g[2] < 0), key=lambda gain: BETTER[score] * gain[2])
