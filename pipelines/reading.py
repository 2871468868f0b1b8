"""A scan as it is read: values, grid, its acquisition and the origin of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.console import WITHHELD, say
from brgm_med.transforms.formats import for_reading, stem
from brgm_med.transforms.formats.beside import metadata_beside, sidecar_of
from brgm_med.transforms.formats.dicom.content import same_pixels
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices
from brgm_med.transforms.formats.dicom.passed import said
from brgm_med.transforms.formats.dicom.stack import one_patient
from brgm_med.transforms.formats.visible import identical
from brgm_med.transforms.formats.zipped import is_zip

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.examine import Examination
    from brgm_med.transforms.formats.dicom.series import Series
    from brgm_med.transforms.formats.header import Header
    from brgm_med.transforms.geometry import Grid

Profile = Literal["box", "gaussian", "trapezoid"]
Thickness = float | Literal["estimate"]


def acquisition_of(
    scan: Path,
    grid: Grid,
    thickness: float | None,
    gap: float | None,
    profile: Profile | None,
    series: Series | None = None,
    axis: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> tuple[AcquisitionModel, str]:
    """The acquisition model and where it comes from: flags, else the sidecar beside the scan, else the header.

    `axis`: the slice axis, R, A or S; None: the normal of DICOM's slices, what the sidecar says, or the coarsest axis.
    `metadata`: content of the sidecar; None: it is read. For the sidecar and DICOM see `stated_acquisition`.

    Raises InputRefusedError for a damaged sidecar and UsageError for flags that contradict the scan.
    """
    from brgm_med.transforms.acquire import AcquisitionModel, index_axis
    from brgm_med.transforms.sidecar import slice_axis

    along = None if axis is None else index_axis(grid, axis)
    content = metadata_beside(scan) if metadata is None else metadata
    if thickness is not None or gap is not None or profile is not None:
        if along is None:
            along = slice_axis(content, grid) if series is None else 2
        model = AcquisitionModel.from_flags(grid, thickness, gap, profile or "box", axis=along)
        return placed(model, series), "stated on the command line"
    stated = stated_acquisition(scan, grid, series, content, along)
    if stated is not None:
        return stated
    origin = "assumed from the header's spacing"
    if series is not None and series.thickness is not None:  # stated, and not positive
        origin += f"; its Slice Thickness is {series.thickness:g}"
    if along is not None:
        origin += "; slice axis stated on the command line"
        return placed(AcquisitionModel.from_flags(grid, axis=along), series), origin
    return placed(AcquisitionModel.from_header(grid), series), origin


def placed(model: AcquisitionModel, series: Series | None) -> AcquisitionModel:
    """The model with each slice of a DICOM series where it was measured; without them along another axis."""
    if series is None or not series.offsets or model.offsets or model.axis not in (None, 2):
        return model
    return dataclasses.replace(model, axis=2, offsets=series.offsets)


def stated_acquisition(
    scan: Path, grid: Grid, series: Series | None, metadata: Mapping[str, Any], axis: int | None = None
) -> tuple[AcquisitionModel, str] | None:
    """The acquisition as the content of a sidecar or a DICOM header states it, and which; None: neither does.

    The one rule of all commands: `BrgmMedAcquisition`, else DICOM's Slice Thickness across the slices (PS3.3
    C.7.6.2.1.1), else BIDS's `SliceThickness` (see `sidecar.stated_slices`), each of the latter as a box profile.
    `axis`: the slice axis, where a person states it. Raises InputRefusedError for a damaged sidecar.
    """
    from brgm_med.transforms.acquire import AcquisitionModel, replaced
    from brgm_med.transforms.sidecar import stated_slices

    name = str(sidecar_of(scan, stem(scan)))
    model = AcquisitionModel.from_sidecar(metadata, grid, name)
    if model is not None and axis in (None, model.axis):
        return model, "stated in the JSON file beside the scan"
    if series is not None and series.thickness is not None and series.thickness > 0:
        along = 2 if axis is None else axis
        thickness = replaced(grid.spacing, along, series.thickness)
        return placed(AcquisitionModel(thickness, "box", along, True), series), "stated in the DICOM header"
    model = stated_slices(metadata, grid, str(scan), axis)
    return None if model is None else (placed(model, series), "SliceThickness stated in the JSON file beside the scan")


def called(path: Path, choices: Choices) -> str:
    """The name of an input file, for logs and records; withheld where the output is de-identified."""
    return WITHHELD if choices.transform is not None else path.name


class Flags(NamedTuple):
    """The acquisition as a person states it: slice thickness and gap, mm, profile, slice axis (R, A or S); thickness
    "estimate": as the scan looks."""

    thickness: Thickness | None = None
    gap: float | None = None
    profile: Profile | None = None
    axis: str | None = None


NO_FLAGS = Flags()


@dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan as read from `path`, the header that it had there, where its acquisition comes from, in words, and what
    its slices say of it; None: it has none."""

    path: Path
    header: Header
    scan: Scan
    origin: str
    examination: Examination | None = None

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
    flags: Flags = NO_FLAGS,
    choices: Choices = NO_CHOICES,
    noise: float | None = None,
    allow_missing_files: bool = False,
    even_odd: Literal["correct"] | None = None,
) -> ScanFile:
    """Read a scan and say how it is taken to have been acquired, with warnings where its header is suspicious, or its
    slices do not fit it or each other.

    `flags`: where a person states it; `noise`: its standard deviation; None: to be estimated. `allow_missing_files`:
    see `dicom.series.the_series`. `even_odd` "correct": where every second slice is brighter, all are brought to one
    level. Raises as `formats` and `acquisition_of` do, and InputRefusedError where the thickness is to be estimated and
    the scan does not tell it.
    """
    source = for_reading(path, series=series, allow_missing_files=allow_missing_files).read(path, affine)

    import torch

    from brgm_med.pipelines.reconstruct.measurement import Scan
    from brgm_med.transforms.examine import examine, levelled
    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.sidecar import contradictions
    from brgm_med.transforms.suspicion import suspicions

    grid, values = Grid(source.header.shape, source.affine), torch.from_numpy(source.array)
    metadata = metadata_beside(path)
    thickness = None if flags.thickness == "estimate" else flags.thickness
    if flags.thickness == "estimate" and flags.gap is not None:
        raise UsageError("--gap: follows from the slice thickness, which is to be estimated; leave one of the two out")
    model, origin = acquisition_of(path, grid, thickness, *flags[1:3], source.header.series, flags.axis, metadata)
    examined = examine(values, grid, model)
    if flags.thickness == "estimate":
        model, origin = estimated(model, grid, examined, str(path)), "estimated from the scan"
    widths = " x ".join(f"{t:g}" for t in model.thickness)
    spacing = " x ".join(f"{s:g}" for s in grid.spacing)
    name = called(path, choices)
    say(f"{name}: {spacing} mm, {model.profile} profile {widths} mm ({origin})")
    say_tolerated(source.header, name)
    if even_odd and examined is not None and examined.stripes is not None and examined.stripes.significant:
        say(f"{name}: its odd and even slices, {examined.stripes.gain:+.1%} apart, are brought to one level")
        values = levelled(values, examined.axis, examined.stripes)
        examined = dataclasses.replace(examined, levelled=True)
    elif even_odd:
        say(f"{name}: its odd and even slices are not clearly apart; nothing is corrected")
    clauses = [] if examined is None else examined.clauses(model.stated)
    for clause in [*contradictions(metadata, grid, model), *suspicions(source.array, grid, model), *clauses]:
        say(f"warning: {name}: {clause}")
    named = str(path) if name != WITHHELD else WITHHELD
    stripped = metadata.get("SkullStripped") is True
    scan = Scan(values[None], grid, model, noise, named, stripped)
    return ScanFile(path, source.header, scan, origin, examined)


def estimated(model: AcquisitionModel, grid: Grid, examined: Examination | None, name: str) -> AcquisitionModel:
    """`model` with slices as thick as the scan looks. Raises InputRefusedError, with its `name`, if that is unclear."""
    from brgm_med.transforms.acquire import replaced

    if examined is None or examined.identified is None:
        looks = "" if examined is None or examined.width is None else f" (it looks like {examined.looks})"
        raise InputRefusedError(f"{name}: does not tell its slice thickness{looks}; state it with --slice-thickness")
    thickness = replaced(model.thickness, examined.axis, examined.identified.width)
    return dataclasses.replace(model, thickness=thickness, axis=examined.axis)


def check_together(files: Sequence[ScanFile], like: Series | None = None, same_world: bool = False) -> None:
    """Raise InputRefusedError, which names the scan, for DICOM of several patients, or of several frames of reference
    unless they are one world: their positions then have nothing to do with each other. `like`: whose the result is."""
    known = [(file.scan.name, file.header.series) for file in files] + [("the series of --like", like)]
    stated = [(name, series) for name, series in known if series is not None]
    for name, series in stated[1:]:
        first, of_first = stated[0]
        if not one_patient(series.headers[0], of_first.headers[0]):
            raise InputRefusedError(f"{name}: is of another patient than {first}; reconstruct each alone")
        frames = {str(s.headers[0].get("FrameOfReferenceUID") or "") for s in (series, of_first)}
        if len(frames - {""}) > 1 and not same_world:
            raise InputRefusedError(
                f"{name}: has another frame of reference than {first}, so nothing says how they lie to each other; "
                "if they share a world all the same (one was registered to the other), add --same-world"
            )


def say_tolerated(header: Header, name: str) -> None:
    """A warning a line of what was passed over in the headers of a DICOM series, and of files beside its own."""
    if header.series is None:
        return
    for clause in header.series.tolerated:
        say(f"warning: {name}: {clause}")
    if header.series.others:
        say(f"warning: {name}: {said(header.series.others, withheld=name == WITHHELD)}")


def say_identical(paths: Sequence[Path], trained: Sequence[Path] = ()) -> None:
    """A warning where files of `paths`, or series by their pixel data, hold the same, which then counts twice; where it
    is `trained` on and held out, that is said."""
    series = [path for path in paths if path.is_dir() or is_zip(path)]
    files = identical(path for path in paths if path not in series)
    groups = files + (same_pixels(series) if len(series) > 1 else [])
    if groups:
        count, names = sum(len(group) - 1 for group in groups), " and ".join(path.name for path in groups[0][:2])
        content = "the same" if files else "the same pixels"
        more = "" if count == 1 else f", and {count - 1} more"
        say(f"warning: {names} hold {content}, byte for byte{more}: each counts as a subject of its own")
    part = set(trained)
    leaks = [group for group in groups if part and any(p in part for p in group) and any(p not in part for p in group)]
    if leaks:
        say(f"warning: {leaks[0][0].name} is trained on and, under another name, held out: its measure says nothing")


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
