"""The settings of a study."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Selection:
    """The scans of a study. `labels`: only these subjects of BIDS (empty: all). `series`: which DICOM series, where a
    folder of the plain layout holds several. `mask_pattern`: see `bids.masks_of` and `bids.find_plain`."""

    labels: Sequence[str] = ()
    layout: Literal["bids", "plain"] = "bids"
    series: str | None = None
    mask_pattern: str | None = None
