"""The settings of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from brgm_med.priors import DEFAULT

Task = Literal["sr", "inpaint", "train"]
Level = Literal["participant", "group"]


@dataclass(frozen=True)
class Settings:
    """The work on every scan. Equal settings give equal derivatives, whichever engine runs them."""

    task: Task = "sr"
    prior: str = DEFAULT
    steps: int | None = None
    seed: int = 0
    threads: int = 1
    kimg: float = 100.0
