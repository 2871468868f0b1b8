"""What raters chose: votes for each method, their intervals, and how far raters agree."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from brgm_med.errors import InputRefusedError
from brgm_med.metrics import bootstrap_interval
from brgm_med.transforms.formats import replacing


@dataclass(frozen=True)
class Tally:
    """`votes` [pictures, methods] over all raters; `unanswered`: how many were not given."""

    methods: tuple[str, ...]
    votes: NDArray[np.int64]
    raters: int
    unanswered: int

    def shares(self) -> list[tuple[float, float, float]]:
        """Of each method: its share of the votes, with a 95 % bootstrap interval over pictures, each of which is drawn
        with all its votes; pictures without votes are left out."""
        cast = self.votes[self.votes.sum(1) > 0]
        parts = cast / cast.sum(1, keepdims=True)
        return [(float(p.mean()), *bootstrap_interval(p.tolist(), seed=0)) for p in parts.T]

    def equal_choice(self) -> float:
        """p of the chi-square test that all methods are chosen alike, as if votes were independent of each other."""
        return float(chisquare(self.votes.sum(0)).pvalue)

    def agreement(self) -> float | None:
        """Fleiss' kappa over the pictures that all raters answered; None for one rater, or where all chose alike."""
        full = self.votes[self.votes.sum(1) == self.raters]
        if self.raters < 2 or len(full) == 0:
            return None
        observed = ((full * (full - 1)).sum(1) / (self.raters * (self.raters - 1))).mean()
        expected = np.square(full.sum(0) / full.sum()).sum()
        return None if expected == 1 else float((observed - expected) / (1 - expected))

    def markdown(self) -> str:
        """The paper's Table 2, and how sure it is."""
        pictures, _ = self.votes.shape
        lines = ["| method | votes | share (95 % interval over pictures) |", "|---|---|---|"]
        for method, votes, (share, low, high) in zip(self.methods, self.votes.sum(0), self.shares(), strict=True):
            lines.append(f"| {method} | {votes} | {share:.3f} ({low:.3f} to {high:.3f}) |")
        kappa = self.agreement()
        said = "" if kappa is None else f" Agreement between raters (Fleiss' kappa): {kappa:.2f}."
        lines += ["", f"{self.raters} raters, {pictures} pictures, {self.unanswered} answers missing.{said} "]
        lines[-1] += f"Chi-square test of equal choice, as if votes were independent: p = {self.equal_choice():.2g}."
        return "\n".join(lines)


def tally(key: Path, results: Sequence[Path], out: Path | None = None, force: bool = False) -> Tally:
    """Count the votes in raters' `results` by the study's `key`; print the table, and write it to `out` as CSV.

    Raises InputRefusedError, naming the file, for one that is damaged, of another study, or of a rater who was counted
    already, and where there is no vote at all.
    """
    known = _read(key)
    try:
        methods, orders = tuple(known["methods"]), known["orders"]
        places = [[order.index(method) for method in methods] for order in orders]
        study = known["study"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputRefusedError(f"{key}: is no key that study make wrote") from error
    votes = np.zeros((len(orders), len(methods)), np.int64)
    seen: dict[str, Path] = {}
    for path in results:
        found = _read(path)
        rater, answers = found.get("rater"), found.get("answers")
        if found.get("study") != study:
            raise InputRefusedError(f"{path}: is of another study than {key}")
        if not isinstance(rater, str) or not _answers(answers, len(orders), len(methods)):
            raise InputRefusedError(f"{path}: is damaged; ask the rater to save the results again")
        if rater in seen:
            raise InputRefusedError(f"{path}: is of the same rater as {seen[rater]}; give one of the two")
        seen[rater] = path
        for picture, answer in enumerate(answers):
            if answer is not None:
                votes[picture, places[picture].index(answer)] += 1
    made = Tally(methods, votes, len(seen), int(len(seen) * len(orders) - votes.sum()))
    if not votes.sum():
        raise InputRefusedError(f"{results[0]}: holds no answer, nor do the others")
    if out is not None:
        with replacing(out, force) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("method", "votes", "share", "low", "high"))
            for method, count, share in zip(methods, votes.sum(0), made.shares(), strict=True):
                writer.writerow((method, count, *share))
    print(made.markdown())
    return made


def _answers(answers: Any, pictures: int, methods: int) -> bool:
    if not isinstance(answers, list) or len(answers) != pictures:
        return False
    return all(a is None or (type(a) is int and 0 <= a < methods) for a in answers)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputRefusedError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputRefusedError(f"{path}: is not JSON; give files that the page saved") from error
    if not isinstance(found, dict):
        raise InputRefusedError(f"{path}: is not what the page saved")
    return found
