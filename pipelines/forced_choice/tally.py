"""`brgm-med study tally`: what the raters chose, how sure that is, and how far they agree."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.files import check_apart, replacing
from brgm_med.pipelines.forced_choice.key import LETTERS, Ballot, Key, read_ballots, read_key
from brgm_med.pipelines.forced_choice.votes import Share, against_equal_choice, fleiss_kappa, shares

FEW = 5
"""Below so many raters, or so many images for each method, what is said of them is called rough."""

STATEMENT = "Votes on derived images. For research, not for diagnosis."


def tally(results: list[Path], *, key: Path | None = None, out: Path | None = None, force: bool = False) -> None:
    """Print the tally of the raters' files as Markdown, and write its table to `out` as CSV.

    `key`: of the study, by default forced_choice_key.json beside the first of `results`. Raises InputRefusedError as
    `read_key` and `read_ballots` do, and where nobody chose anything; and as `replacing` does.
    """
    key = key or results[0].with_name("forced_choice_key.json")
    if out is not None:
        check_apart([out], [*results, key])
    study = read_key(key)
    ballots = read_ballots(results, study)
    votes = counted(ballots, study)
    if not votes.any():
        refuse(results[0], "holds no answer, nor does any other file", "ask the raters to choose")
    table = shares(votes, study.methods)
    if out is not None:
        with replacing(out, force) as temporary:
            temporary.write_text(_csv(table, votes), encoding="utf-8")
    print(_markdown(table, votes, ballots, study))


def counted(ballots: list[Ballot], key: Key) -> NDArray[np.int64]:
    """1 where a rater chose a method for an image: [raters, images, methods]."""
    votes = np.zeros((len(ballots), len(key.images), len(key.methods)), np.int64)
    for r, ballot in enumerate(ballots):
        for q, choice in enumerate(ballot.choices):
            if choice is not None:
                votes[r, q, key.orders[q][choice]] = 1
    return votes


def _markdown(table: list[Share], votes: NDArray[np.int64], ballots: list[Ballot], key: Key) -> str:
    raters, images, methods = votes.shape
    answered = int(votes.sum())
    lines = [
        f"# Forced choice: {_many(raters, 'rater')}, {_many(images, 'image')}, {answered} votes",
        "",
        f"{STATEMENT} Study {key.study}.",
        "",
        f"> {' '.join(key.question.split())}",
        "",
        "| method | votes | share (95 %) | minus the most chosen other (95 %) |",
        "|---|---|---|---|",
    ]
    for row in table:
        name = row.method.replace("\\", "\\\\").replace("|", "\\|")
        lines.append(
            f"| {name} | {row.votes} | {_with(row.share, row.interval)} | {_with(row.ahead, row.ahead_interval)} |"
        )
    over = "images and raters" if raters > 1 else "images (one rater: nothing is said of others)"
    if 1 < raters < FEW:
        over += " (rough, with so few raters)"
    lines += ["", f"- Intervals: bootstrap over {over}; images are taken as independent, as of different subjects."]
    statistic, freedom, p = against_equal_choice(votes)
    few = int((votes.sum((0, 2)) > 0).sum()) / methods < FEW
    lines.append(
        f"- Equal choice ({1 / methods:.2f} each): chi-square {statistic:.2f} with {freedom} degrees of freedom over "
        f"images, p = {p:.3g}{' (rough, with so few images)' if few else ''}."
    )
    lines.append(f"- Agreement: {_agreement(votes)}.")
    missing = [(b.rater, b.choices.count(None)) for b in ballots]
    of = ", ".join(f"{_plain(rater)}: {count}" for rater, count in missing if count)
    lines.append(f"- Unanswered: {raters * images - answered} of {raters * images}{f' ({of})' if of else ''}.")
    letters = Counter(choice for ballot in ballots for choice in ballot.choices)
    by = ", ".join(f"{letter} {letters[i]}" for i, letter in enumerate(LETTERS[:methods]))
    lines.append(f"- By letter, which were shuffled: {by}.")
    return "\n".join(lines)


def _agreement(votes: NDArray[np.int64]) -> str:
    raters = len(votes)
    counts = votes.sum(0)
    whole = counts[counts.sum(1) == raters]
    if raters < 2:
        return "needs more than one rater"
    if not len(whole):
        return "unknown, no image was answered by all raters"
    kappa = fleiss_kappa(whole)
    said = "undefined, all votes are for one method" if np.isnan(kappa) else f"{kappa:.3f}"
    return f"Fleiss' kappa {said} (over the {_many(len(whole), 'image')} that all raters answered)"


def _csv(table: list[Share], votes: NDArray[np.int64]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["method", "votes", "share", "share_low", "share_high", "minus_other", "minus_other_low", "minus_other_high"]
    writer.writerow([*head, "raters", "images", "unanswered", "p_equal_choice"])
    raters, images, _ = votes.shape
    common = [raters, images, raters * images - int(votes.sum()), repr(against_equal_choice(votes)[2])]
    for row in table:
        numbers = (row.share, *row.interval, row.ahead, *row.ahead_interval)
        name = f"'{row.method}" if row.method.startswith(("=", "+", "-", "@")) else row.method
        writer.writerow([name, row.votes, *(repr(float(n)) for n in numbers), *common])
    return file.getvalue()


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _plain(text: str) -> str:
    """A rater's own words, with nothing in them that moves the cursor or ends a line."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())
