"""The certificate: JSON beside every result, which says by what it was made and how exactly it keeps what was measured.

A new entry is a field of `Certificate`. It reaches DICOM only if `PUBLIC` names it, and a de-identified file only if
`DEIDENTIFIED` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from brgm_med._version import __version__
from brgm_med.pipelines.console import WITHHELD
from brgm_med.transforms.formats.dicom.derived import MASKING, RESAMPLING, Derivation

Task = Literal["sr", "inpaint"]
Entry = dict[str, Any]

STATEMENT = "Derived image: part measured, part inferred by a statistical model. For research, not for diagnosis."
SIMULATED = "Derived image: simulated from a finer scan. For research, not for diagnosis."
DERIVED = {
    "sr": ("super-resolved, finer detail inferred by a statistical model.", RESAMPLING),
    "inpaint": ("a masked part filled, inferred by a statistical model.", MASKING),
}
"""Description of each task in DICOM, and its code."""


PUBLIC = (
    *("software", "prior", "population_prior", "acquisition", "parameters", "registration", "noise", "coverage"),
    *("slices", "explained_by_the_scans", "uncertainty", "hole"),
)
"""Entries that the images themselves may carry: nothing of files or of persons."""

DEIDENTIFIED = (
    *("statement", *PUBLIC, "source", "further_scans", "mask", "region", "result", "measured_map", "maps"),
    *("consistency", "coronal_slices_searched", "outside_the_hole"),
)
"""Entries of a certificate beside a de-identified result."""

INPUTS = ("source", "further_scans", "mask", "region")
"""Of these, name and hash are withheld there: both lead back to the patient."""

NAMES = {
    "prior": "name sha256 finest_detail_mm finest_detail_pixels weight reason iterations extra_blur "
    "slice_spacing_in_pixels true_pixels_mm",
    "population_prior": "name sha256 finest_detail_mm weight reason",
    "acquisition": "Thickness Spacing SliceAxis Profile Offsets Origin Stated",
    "parameters": "factor steps noise seed perceptual weights covariance_mm spacing_mm device threads precision",
    "registration": "correlation scale template_to_scan refined not_identified",
    "noise": "deviation kind",
    "coverage": "voxels_with_prior slice_axis interpolated_slices",
    "slices": "axis spacing_mm thickness_mm estimated_mm interval_95_mm profile even_odd_gain even_odd_deviation "
    "even_odd_corrected not_identified other_brightness moved ghosts",
    "explained_by_the_scans": "mean standard_error_of_a_voxel",
    "hole": "voxels inferred_by_the_prior interpolated_from_its_rim clipped_to_the_voxel_type pixels "
    "values_clipped_to_the_bits weight_of_the_prior why texture_of_the_scan_finer_than_mm",
    "uncertainty": "level expected_coverage least_coverage_of_exchangeable_heads rests_on pixels_compared "
    "factor_of_heads mean_half_width expected_psnr_db psnr_interval_db samples",
    **dict.fromkeys(INPUTS, "affine dicom_files acquisition known resampled level volume_ml mean mean_interval"),
    **dict.fromkeys(("result", "measured_map", "maps"), "file sha256 dicom_files"),
    "consistency": "relative_residual max_abs_residual samples samples_inside bound within_bound residual_rms "
    "noise_deviation residual_autocorrelation clipped_to_the_bits further_scans",
    "outside_the_hole": "voxels values changed lossy_format",
}
"""Names inside an entry that go where the entry goes; all of an entry that is not listed here."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Entries of a certificate, in the order of its JSON; None: not there. The first ones describe the computation,
    those from `source` on files and their content as read back.

    `prior`: name, SHA-256 and finest detail; of a volume also its weight, and the reason for it. `population_prior`:
    likewise of the one that stands beside the scan's own ("self"). `acquisition`: as in a scan's JSON file, with
    `Origin` and `Stated`.
    `parameters`: of the search, seed and device included. `noise`: standard deviation and kind, for each scan.
    `slices`: for each scan whose slices were examined, what they say (see `transforms.examine`).
    `explained_by_the_scans`: the measured fraction of the prior's variance. `hole`: counts of its voxels or pixels,
    of a volume also the prior's weight, the reason for it, and the scale of the texture that was added.
    `uncertainty`: the level (per cent) of the intervals in the maps `lower` and `upper`, the coverage that is expected
    (per cent), on what that rests, and the PSNR (dB) of this very result as it is to be expected. `region`: a mask, the
    volume (ml) and the mean intensity in it with its interval. `source`, `further_scans`, `mask`, `result`,
    `measured_map`, `maps` (the further ones): records of files (see `records`). `consistency`:
    the result's residual at the scans. `outside_the_hole`: counts of values and of those that changed.
    """

    statement: str = STATEMENT
    software: str = f"brgm-med {__version__}"
    prior: Entry
    population_prior: Entry | None = None
    acquisition: Entry | None = None
    parameters: Entry
    registration: Entry | None = None
    noise: list[Entry] | None = None
    coverage: Entry | None = None
    slices: list[Entry] | None = None
    explained_by_the_scans: Entry | None = None
    uncertainty: Entry | None = None
    hole: Entry | None = None
    source: Entry | None = None
    further_scans: list[Entry] | None = None
    mask: Entry | None = None
    region: Entry | None = None
    result: Entry | None = None
    measured_map: Entry | None = None
    maps: list[Entry] | None = None
    consistency: Entry | None = None
    coronal_slices_searched: list[int] | None = None
    outside_the_hole: Entry | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Certificate:
        """The certificate of which `content` is the JSON; unknown entries are left out."""
        return cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content})

    def to_json(self) -> Entry:
        """All entries that are there."""
        entries = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: entry for name, entry in entries if entry is not None}

    def public(self) -> Entry:
        """The entries that DICOM's Image Comments may carry."""
        return self._only(PUBLIC)

    def deidentified(self) -> Entry:
        """The entries that may stand beside a de-identified result."""
        return self._only(DEIDENTIFIED)

    def _only(self, entries: Sequence[str]) -> Entry:
        return {key: _part(key, entry) for key, entry in self.to_json().items() if key in entries}

    @property
    def account(self) -> str:
        """`public` as lines of ASCII, one an entry, nested ones as JSON without quotation marks."""
        return "\n".join(f"{key.replace('_', ' ')}: {_plain(value)}" for key, value in self.public().items())

    @property
    def label(self) -> str:
        """Description of the result, for the 79 bytes of a NIfTI header."""
        return f"brgm-med {__version__} {self.prior['name']}: DERIVED, research only, not for diagnosis"[:79]

    def derivation(self, task: Task) -> Derivation:
        """Description of the result, for DICOM."""
        text, code = DERIVED[task]
        priors = [p for p in (self.prior, self.population_prior) if p is not None and p.get("weight", 1)]
        tool = " ".join(f"Prior {p['name']}, SHA-256 {p['sha256']}." for p in priors)
        return Derivation(f"brgm-med {task}", f"brgm-med {__version__}: {text}", code, STATEMENT, tool, self.account)


def degraded() -> Derivation:
    """Description of a simulated acquisition, for DICOM."""
    text = f"brgm-med {__version__}: simulated acquisition of larger voxels."
    return Derivation("brgm-med degrade", text, RESAMPLING, SIMULATED)


def _part(key: str, entry: Any) -> Any:
    """The part of an entry, or of each in a list, that `NAMES` lists."""
    if key not in NAMES:
        return entry
    if isinstance(entry, list):
        return [_part(key, one) for one in entry]
    part = {name: value for name, value in entry.items() if name in NAMES[key].split()}
    return dict.fromkeys(("file", "sha256"), WITHHELD) | part if key in INPUTS else part


def _plain(value: Any) -> str:
    text = json.dumps(value)
    return text[1:-1] if isinstance(value, str) else text.replace('"', "")
