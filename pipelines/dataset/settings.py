"""The settings of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from brgm_med.priors import AUTO, SELF, population

Task = Literal["sr", "inpaint", "train"]
Level = Literal["participant", "group"]


@dataclass(frozen=True)
class Settings:
    """The work on every scan. Equal settings give equal derivatives, whichever engine runs them. `allow_missing_files`:
    of DICOM, see `dicom.series.the_series`."""

    task: Task = "sr"
    prior: str = AUTO
    steps: int | None = None
    seed: int = 0
    threads: int = 1
    kimg: float = 100.0
    allow_missing_files: bool = False

    @property
    def own(self) -> bool:
        """True if every scan is reconstructed by the prior that its own planes teach."""
        return self.task == "sr" and self.prior in (AUTO, SELF)

    @property
    def population(self) -> str | None:
        """Name or folder of the population prior, if there is one."""
        return population(self.prior)


@dataclass(frozen=True)
class Selection:
    """The scans of a study. `labels`: only these subjects of BIDS (empty: all). `series`: which DICOM series, where a
    folder of the plain layout holds several. `mask_pattern`: see `bids.masks_of` and `plain.find_plain`. `suffixes`: of
    BIDS, such as T2w (empty: those that the prior knows)."""

    labels: Sequence[str] = ()
    layout: Literal["bids", "plain"] = "bids"
    series: str | None = None
    mask_pattern: str | None = None
    suffixes: Sequence[str] = ()
