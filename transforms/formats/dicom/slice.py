"""One slice of DICOM and where it is: a classic image, or a frame of an enhanced one. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats.dicom.classic import SHARED, functional_group
from brgm_med.transforms.formats.dicom.file import numbers

if TYPE_CHECKING:
    from pydicom import Dataset

MARKS: dict[str, tuple[str, str, str]] = {
    "echo time": ("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
    "echo": ("EchoNumbers", "MREchoSequence", "EchoNumbers"),
    "image type": ("ImageType", "MRImageFrameTypeSequence", "FrameType"),
    "b-value": ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue"),
    "time": ("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex"),
    "trigger time": ("TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "stack": ("StackID", "FrameContentSequence", "StackID"),
    "acquisition": ("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber"),
}
"""The differences between volumes of one series: the element of a classic image; group and element of a frame."""


GRIDS = {(0x0019, 0x100A): "SIEMENS MR HEADER", (0x0065, 0x1050): ""}
"""Private elements: the number of slices in one image, Siemens' mosaic or UIH's grid; their creators ("": any)."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A classic image, or one frame of an enhanced one (PS3.3 C.7.6.16), and where it is; None where it is not said.

    `position` [3]: the centre of its first pixel, LPS mm. `directions` [2, 3]: of its rows (along which columns count)
    and its columns. `spacing` [2]: mm between rows, between columns. `marks`: the values of `MARKS`.
    """

    file: Path
    header: Dataset
    frame: int
    position: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing: NDArray[np.float64] | None
    thickness: float | None
    marks: dict[str, str]

    @property
    def name(self) -> str:
        """Name for messages: the file's, and which frame of it, counted from 1."""
        return Path(self.where).name

    @property
    def where(self) -> str:
        """The name with the file's path."""
        enhanced = SHARED in self.header
        return f"{self.file}, frame {self.frame + 1}" if enhanced else str(self.file)

    @property
    def grid(self) -> str | None:
        """The name of an image of many slices, whose places are not in DICOM's elements; None for one slice."""
        if "MOSAIC" in self.marks.get("image type", ""):
            return "a Siemens mosaic"
        for (group, element), creator in GRIDS.items():
            owner = _text(self.header, group, 0x0010)
            count = _text(self.header, group, element)
            if (not creator or owner == creator) and count.isdecimal() and int(count) > 1:
                return "a Siemens mosaic" if creator else "a UIH grid"
        return None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Rows' direction x columns' direction: with increasing place along it, slices make a right-handed grid."""
        assert self.directions is not None
        return np.cross(*self.directions)


def _text(header: Dataset, group: int, element: int) -> str:
    """A private element as text; "" without it. Of unknown representation it is bytes, a number of 16 bits perhaps."""
    value = header[group, element].value if (group, element) in header else None
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little") if len(value) == 2 and value[1] == 0 else value.decode("latin-1")
    return str("" if value is None else value).strip(" \0")


def slices_of(file: Path, header: Dataset) -> list[Slice]:
    """The slices of one file. Raises InputRefusedError where its functional groups are not one for every frame."""
    if not header.get(SHARED):
        return [_slice(file, header, 0)]
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    if not frames or len(frames) != int(header.get("NumberOfFrames") or 0):
        problem = f"says that it has {header.get('NumberOfFrames')} frames and describes {len(frames)}"
        refuse(file, problem, "export it again")
    return [_slice(file, header, i) for i in range(len(frames))]


def _slice(file: Path, header: Dataset, frame: int) -> Slice:
    def value(classic: str, group: str, keyword: str) -> Any:
        if not header.get(SHARED):
            return header.get(classic)
        return functional_group(header, group, frame).get(keyword)

    def array(keyword: str, group: str, count: int) -> NDArray[np.float64] | None:
        values = numbers(value(keyword, group, keyword))
        return values if len(values) == count and np.isfinite(values).all() else None

    directions = array("ImageOrientationPatient", "PlaneOrientationSequence", 6)
    thickness = array("SliceThickness", "PixelMeasuresSequence", 1)
    return Slice(
        file,
        header,
        frame,
        array("ImagePositionPatient", "PlanePositionSequence", 3),
        None if directions is None else directions.reshape(2, 3),
        array("PixelSpacing", "PixelMeasuresSequence", 2),
        None if thickness is None or thickness[0] <= 0 else float(thickness[0]),
        {name: str(mark) for name, source in MARKS.items() if (mark := value(*source)) not in (None, "")},
    )
