"""The settings of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from brgm_med.priors import AUTO, SELF, population

Task = Literal["sr", "inpaint", "train"]
Level = Literal["participant", "group"]


@dataclass(frozen=True)
class Model:
    """The acquisition of every scan, its noise, and the spacing of every result, as a person states them: inputs of
    `Reconstruct` by their names. None: as the scan, or its JSON file, says."""

    thickness: float | None = None
    profile: str | None = None
    gap: float | None = None
    slice_axis: str | None = None
    noise: float | None = None
    spacing: float | None = None

    @property
    def stated(self) -> dict[str, Any]:
        """What is stated, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """The work on every scan. Equal settings give equal derivatives, whichever engine runs them. `allow_missing_files`:
    of DICOM, see `dicom.series.the_series`. `device`: where torch computes, "cpu" or "cuda"."""

    task: Task = "sr"
    prior: str = AUTO
    steps: int | None = None
    seed: int = 0
    threads: int = 1
    kimg: float = 100.0
    allow_missing_files: bool = False
    device: str = "cpu"
    model: Model = Model()

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
    folder of the plain layout holds several. `mask_pattern`: see `bids.masks_of` and `plain.find_plain`. The others are
    of BIDS. `suffixes`: such as T2w (empty: those that the prior knows). `sessions`: only these (empty: all).
    `filter_file`: see `filters.read_filters`. `join`: values of one entity, such as acq-axial, see `join.joined`."""

    labels: Sequence[str] = ()
    layout: Literal["bids", "plain"] = "bids"
    series: str | None = None
    mask_pattern: str | None = None
    suffixes: Sequence[str] = ()
    sessions: Sequence[str] = ()
    filter_file: Path | None = None
    join: Sequence[str] = ()
