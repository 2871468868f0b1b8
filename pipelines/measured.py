"""A scan as it was read: values, grid, how it was acquired and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med.pipelines.console import say
from brgm_med.pipelines.deidentification import called
from brgm_med.pipelines.setting import Profile, acquisition_of
from brgm_med.pipelines.sources import series_of
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.dicom_derived import Choices

if TYPE_CHECKING:
    from torch import Tensor

    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.nifti_header import NiftiHeader
    from brgm_med.transforms.geometry import Grid

Flags = tuple[float | None, float | None, Profile | None]


@dataclass(frozen=True, eq=False)
class Measured:
    """`values` [1, X, Y, Z] on `grid`, its acquisition `model`, and where that comes from, in words."""

    path: Path
    header: NiftiHeader
    values: Tensor
    grid: Grid
    model: AcquisitionModel
    origin: str

    @property
    def acquisition(self) -> dict[str, Any]:
        """For the certificate."""
        entry = self.model.to_sidecar(self.grid)["BrgmMedAcquisition"]
        return {**entry, "Origin": self.origin, "Stated": self.model.stated}


def read_measured(
    path: Path, series: str | None, affine: Literal["auto", "sform", "qform"], flags: Flags, choices: Choices
) -> Measured:
    """Read a scan and say how it is taken to have been acquired, with warnings where its header is suspicious.

    `flags`: slice thickness, gap (mm) and profile, where a person states them. Raises as `formats` and
    `acquisition_of` do.
    """
    source = for_reading(path, series=series).read(path, affine)

    import torch

    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.suspicion import suspicions

    grid = Grid(source.header.shape, source.affine)
    model, origin = acquisition_of(path, grid, *flags, series_of(source.header))
    widths = " x ".join(f"{t:g}" for t in model.thickness)
    spacing = " x ".join(f"{s:g}" for s in grid.spacing)
    name = called(path, choices)
    say(f"{name}: {spacing} mm, {model.profile} profile {widths} mm ({origin})")
    for clause in suspicions(source.array, grid, model):
        say(f"warning: {name}: {clause}")
    return Measured(path, source.header, torch.from_numpy(source.array)[None], grid, model, origin)


def doubtful(scan: Measured, finest: float) -> str | None:
    """Why a prior of coronal slices of `finest` mm is not expected to beat interpolation on one scan; None: it is."""
    if max(scan.grid.spacing) <= finest:
        return f"it is as fine as the prior ({finest:g} mm) along every axis; nothing finer can be inferred"
    axis = max(range(3), key=lambda a: scan.model.thickness[a])
    if scan.grid.world_axis(axis) == 1 and scan.model.thickness[axis] > 1.5 * min(scan.model.thickness):
        return (
            "its slices are coronal, as the prior's are, and what is missing lies between them; "
            "do not expect more than from cubic interpolation with data consistency"
        )
    return None
