"""The key of a study, and what its raters saved: JSON, read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brgm_med.errors import refuse

LETTERS = "ABCDEF"
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Key:
    """Answers that the page lacks. `orders[q]`: for question q, the index in `methods` of each letter, A first."""

    study: str
    question: str
    methods: tuple[str, ...]
    images: tuple[str, ...]
    orders: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Ballot:
    """One rater's file. `choices[q]`: the index of the letter that was chosen for question q; None, none was."""

    path: Path
    rater: str
    choices: tuple[int | None, ...]


def key_of(page: Path) -> Path:
    """Path of the key of a study's page: forced_choice.html -> forced_choice_key.json."""
    return page.with_name(f"{page.stem}_key.json")


def read_key(path: Path) -> Key:
    """Read a key. Raises InputRefusedError for a file that is missing, damaged or no key."""
    content = _json(path, "name the study's key, which was written beside its page, with --key")
    try:
        methods = tuple(content["methods"])
        images = tuple(content["images"])
        orders = tuple(tuple(methods.index(name) for name in image["methods"]) for image in images)
        names = tuple(image["image"] for image in images)
        key = Key(content["study"], content["question"], methods, names, orders)
        if not (
            all(isinstance(text, str) for text in (key.study, key.question, *methods, *names))
            and 2 <= len(set(methods)) == len(methods) <= len(LETTERS)
            and all(sorted(order) == list(range(len(methods))) for order in orders)
            and len(images) > 0
        ):
            raise ValueError
    except (LookupError, TypeError, ValueError):
        refuse(path, "is no key of a study, or is damaged", "give the one that was written beside the study's page")
    return key


def read_ballots(paths: list[Path], key: Key) -> list[Ballot]:
    """Read the raters' files. Raises InputRefusedError for a damaged one, one of another study, or a rater twice."""
    ballots: dict[str, Ballot] = {}
    for path in paths:
        ballot = _ballot(path, key)
        other = ballots.setdefault(" ".join(ballot.rater.split()).casefold(), ballot)
        if other is not ballot:
            refuse(path, f"is of the rater {ballot.rater!r}, as {other.path} is", "leave one of the two out")
    return list(ballots.values())


def _ballot(path: Path, key: Key) -> Ballot:
    content = _json(path, "check the name")
    study, rater, answers = (content.get(name) for name in ("study", "rater", "answers"))
    if not (isinstance(study, str) and isinstance(rater, str) and rater.strip() and isinstance(answers, list)):
        refuse(path, "is no results file of a study, or is damaged", "ask the rater to save it again")
    if study != key.study:
        refuse(path, f"is of the study {study[:32]!r}, and the key is of {key.study}", "name its own key with --key")
    letters = LETTERS[: len(key.methods)]
    try:
        choices = tuple(None if a["choice"] is None else tuple(letters).index(a["choice"]) for a in answers)
        if [answer["question"] for answer in answers] != list(range(1, len(key.images) + 1)):
            raise ValueError
    except (LookupError, TypeError, ValueError):
        problem = f"does not hold the answers A to {letters[-1]} of the study's {len(key.images)} images, so is damaged"
        refuse(path, problem, "ask the rater to save it again")
    return Ballot(path, rater, choices)


def _json(path: Path, advice: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            refuse(path, "is far too large", advice)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        refuse(path, "no such file", advice)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", advice)
    except (ValueError, RecursionError):
        refuse(path, "is no JSON, or is damaged", "ask for it again")
    if not isinstance(content, dict):
        refuse(path, "is JSON of something else", advice)
    return content
