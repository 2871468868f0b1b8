"""A scan as it is read: values, grid, its acquisition and the origin of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med.files import read_json
from brgm_med.pipelines.console import WITHHELD, say
from brgm_med.transforms.formats import for_reading, stem
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.dicom.series import Series
    from brgm_med.transforms.formats.header import Header
    from brgm_med.transforms.geometry import Grid

Profile = Literal["box", "gaussian", "trapezoid"]


def acquisition_of(
    scan: Path,
    grid: Grid,
    thickness: float | None,
    gap: float | None,
    profile: Profile | None,
    series: Series | None = None,
) -> tuple[AcquisitionModel, str]:
    """The acquisition model and where it comes from: flags, else the sidecar beside the scan, else the header.

    Of DICOM, the header states the slices' thickness (`stated_by`).

    Raises InputRefusedError for a damaged sidecar and UsageError for flags that contradict the scan.
    """
    from brgm_med.transforms.acquire import AcquisitionModel

    if not (thickness is None and gap is None and profile is None):
        return AcquisitionModel.from_flags(grid, thickness, gap, profile or "box"), "stated on the command line"
    sidecar = sidecar_of(scan, stem(scan))
    if sidecar.is_file():
        model = AcquisitionModel.from_sidecar(read_json(sidecar), grid, str(sidecar))
        if model is not None:
            return model, "stated in the JSON file beside the scan"
    stated = stated_by(series, grid)
    if stated is not None:
        return stated, "stated in the DICOM header"
    origin = "assumed from the header's spacing"
    if series is not None and series.thickness is not None:  # stated, and not positive
        origin += f"; its Slice Thickness is {series.thickness:g}"
    return AcquisitionModel.from_header(grid), origin


def stated_by(series: Series | None, grid: Grid) -> AcquisitionModel | None:
    """A box profile as wide as DICOM's Slice Thickness (PS3.3 C.7.6.2.1.1), where it is stated, across the slices."""
    from brgm_med.transforms.acquire import AcquisitionModel

    if series is None or series.thickness is None or not series.thickness > 0:
        return None
    return AcquisitionModel((*grid.spacing[:2], series.thickness), "box", 2, True)


def sidecar_of(path: Path, stem: str) -> Path:
    """The JSON file beside a scan: same name, `.json`."""
    return path.with_name(f"{stem}.json")


def called(path: Path, choices: Choices) -> str:
    """The name of an input file, for logs and records; withheld where the output is de-identified."""
    return WITHHELD if choices.transform is not None else path.name


Flags = tuple[float | None, float | None, Profile | None]


@dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan as read from `path`, the header that it had there, and where its acquisition comes from, in words."""

    path: Path
    header: Header
    scan: Scan
    origin: str

    @property
    def acquisition(self) -> dict[str, Any]:
        """For the certificate."""
        return acquisition_record(self.scan.acquisition, self.scan.grid, self.origin)


def acquisition_record(model: AcquisitionModel, grid: Grid, origin: str) -> dict[str, Any]:
    """For the certificate: an acquisition model, and where it comes from, in words."""
    return {**model.to_sidecar(grid)["BrgmMedAcquisition"], "Origin": origin, "Stated": model.stated}


def read_scan(
    path: Path,
    series: str | None = None,
    affine: Literal["auto", "sform", "qform"] = "auto",
    flags: Flags = (None, None, None),
    choices: Choices = NO_CHOICES,
    noise: float | None = None,
) -> ScanFile:
    """Read a scan and say how it is taken to have been acquired, with warnings where its header is suspicious.

    `flags`: slice thickness, gap (mm) and profile, where a person states them; `noise`: its standard deviation; None:
    to be estimated. Raises as `formats` and `acquisition_of` do.
    """
    source = for_reading(path, series=series).read(path, affine)

    import torch

    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.suspicion import suspicions

    grid = Grid(source.header.shape, source.affine)
    model, origin = acquisition_of(path, grid, *flags, source.header.series)
    widths = " x ".join(f"{t:g}" for t in model.thickness)
    spacing = " x ".join(f"{s:g}" for s in grid.spacing)
    name = called(path, choices)
    say(f"{name}: {spacing} mm, {model.profile} profile {widths} mm ({origin})")
    say_tolerated(source.header, name)
    for clause in suspicions(source.array, grid, model):
        say(f"warning: {name}: {clause}")
    values = torch.from_numpy(source.array)[None]
    return ScanFile(
        path, source.header, Scan(values, grid, model, noise, str(path) if name != WITHHELD else WITHHELD), origin
    )


def say_tolerated(header: Header, name: str) -> None:
    """A warning a line of what was passed over in the headers of a DICOM series."""
    for clause in header.series.tolerated if header.series is not None else ():
        say(f"warning: {name}: {clause}")


def doubtful(scan: Scan, finest: float) -> str | None:
    """Why a prior of coronal slices of `finest` mm is not expected to beat interpolation on one scan; None: it is."""
    if max(scan.grid.spacing) <= finest:
        return f"it is as fine as the prior ({finest:g} mm) along every axis; nothing finer can be inferred"
    thickness = scan.acquisition.thickness
    axis = max(range(3), key=lambda a: thickness[a])
    if scan.grid.world_axis(axis) == 1 and thickness[axis] > 1.5 * min(thickness):
        return (
            "its slices are coronal, as the prior's are, and what is missing lies between them; "
            "do not expect more than from cubic interpolation with data consistency"
        )
    return None
