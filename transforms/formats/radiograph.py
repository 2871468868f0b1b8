"""Single grey DICOM images, CR, DX and their like, as pictures. pydicom is imported when a file is read.

The one place where a DICOM file's rescale, inversion and window are dealt with (PS3.3 C.11 and C.7.6.3.1.2): stored
integers -> modality values -> window -> shown. What is kept are the modality values, in full depth: a window is lossy,
a reader's choice and often one of several, so it is only recorded. MONOCHROME1 shows the lowest value white; it is
turned here, within the range that Bits Stored declares, so that in every `Picture` bright is what is shown bright (in a
chest x-ray: bone), and nothing after this module needs to know.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from brgm_med.errors import refuse
from brgm_med.transforms.formats.dicom.classic import rescale
from brgm_med.transforms.formats.dicom.file import (
    MAGIC,
    PREAMBLE,
    check_integers,
    numbers,
    read_whole,
    stored_pixels,
    strict,
)
from brgm_med.transforms.formats.picture import Picture, Range
from brgm_med.transforms.formats.picture_codec import MAX_PIXELS, Dpi, start_of_picture

if TYPE_CHECKING:
    from pydicom import Dataset

KIND: Literal["picture"] = "picture"
ENDINGS = (".dcm",)
FEWEST_INSIDE = 0.5


def read(path: Path | str) -> Picture:
    """Read one DICOM image as it is shown: the rows and columns of the file, bright where it is shown bright.

    `stored` holds the file's integers moved to start at 0 (and turned, where shown inverted): uint8 for up to 8 bits
    stored, else uint16, so that PNG and TIFF hold them exactly. `array` holds modality values (Rescale Slope and
    Intercept; a Modality LUT's output takes the place of the stored integers). `range` is the window's where that holds
    at least half of the pixels, else what Bits Stored allow. `dpi` is made from Pixel Spacing, or Imager Pixel Spacing.

    Raises InputRefusedError for a file that is missing, not DICOM, truncated or damaged; for no pixels, several frames,
    colour, more than 16 bits, more than 89 million pixels; for a compression that cannot be undone here; and for
    enhanced objects, whose rescale lies elsewhere.
    """
    path = Path(path)
    if start_of_picture(path, PREAMBLE + len(MAGIC))[PREAMBLE:] != MAGIC:
        refuse(path, "is no DICOM file (PS3.10)", "export it again")
    with strict(path):
        return _read(path)


def _read(path: Path) -> Picture:
    from pydicom.pixels import apply_modality_lut

    header = read_whole(path)
    _check(path, header)
    pixels = stored_pixels(path, header).astype(np.int64)
    if header.get("ModalityLUTSequence"):
        pixels = apply_modality_lut(pixels, header).astype(np.int64)
    bits, low, slope, intercept, _ = layout(header)
    if slope == 0 or not np.isfinite([slope, intercept]).all() or not 1 <= bits <= 16:
        refuse(path, f"is rescaled by {slope:g} and {intercept:g} to {bits} bits", "correct its header")
    highest = (1 << bits) - 1
    level, intercept = pixels - low, intercept + slope * low
    if level.min() < 0 or level.max() > highest:
        refuse(path, f"has pixels beyond the {bits} bits that it declares", "correct its header")
    window = _window(header)
    if header.PhotometricInterpretation == "MONOCHROME1":
        total = 2 * intercept + slope * highest  # lowest plus highest modality value
        slope, intercept = -slope, total - intercept
        window = None if window is None else (total - window[1], total - window[0])
    if slope < 0:  # the same values, of integers that rise with them
        level, slope, intercept = highest - level, -slope, intercept + slope * highest
    stored = level[None].astype(np.uint8 if bits <= 8 else np.uint16)
    declared = (intercept, intercept + slope * highest)
    picture = Picture(path, stored, declared, slope, intercept, dpi=_dpi(header), window=window)
    if not np.array_equal(np.rint((picture.array.astype(np.float64) - intercept) / slope), stored):
        refuse(path, f"is rescaled by {slope:g} and {intercept:g}, beyond float32", "correct its header")
    if window is None or np.mean((picture.array >= window[0]) & (picture.array <= window[1])) < FEWEST_INSIDE:
        return picture
    return replace(picture, range=window)


class Layout(NamedTuple):
    """The storage of modality values: `bits` bits from `low` up; value = slope * integer + intercept.

    `turned`: the lowest integer is shown bright, or stands for the highest value, but not both.
    """

    bits: int
    low: int
    slope: float
    intercept: float
    turned: bool


def layout(header: Dataset) -> Layout:
    """The storage of the pixels by `header`; where it has a Modality LUT, that of its output."""
    bits, (slope, intercept) = int(header.BitsStored), rescale(header)
    low = -(1 << bits - 1) if header.PixelRepresentation else 0
    if header.get("ModalityLUTSequence"):
        bits, low, slope, intercept = int(header.ModalityLUTSequence[0].LUTDescriptor[2]), 0, 1.0, 0.0
    turned = (header.PhotometricInterpretation == "MONOCHROME1") != (slope < 0)
    return Layout(bits, low, slope, intercept, turned)


def _check(path: Path, header: Dataset) -> None:
    """Raise InputRefusedError unless `header` is of one grey image of integers (PS3.3 C.7.6.3)."""
    if "PixelData" not in header:
        kind = header.SOPClassUID.name if "SOPClassUID" in header else "an object of no class"
        refuse(path, f"holds no image's pixels ({kind})", "give an image, or copy it again if it is truncated")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        refuse(path, f"holds {frames} frames", "extract the one that is meant")
    if "SharedFunctionalGroupsSequence" in header:
        refuse(path, "is an enhanced object", "convert it to a classic single-frame one")
    rows, columns = int(header.Rows), int(header.Columns)
    if not 0 < rows * columns <= MAX_PIXELS:
        refuse(path, f"declares {columns} x {rows} pixels", "give an image of 1 to 89 million")
    check_integers(path, header, (8, 16))


def _window(header: Dataset) -> Range | None:
    """The modality values that the first window shows as black and white (PS3.3 C.11.2.1); None without one."""
    centres, widths = numbers(header.get("WindowCenter")), numbers(header.get("WindowWidth"))
    if len(centres) and len(widths):
        low, high = centres[0] - widths[0] / 2, centres[0] + widths[0] / 2
        if header.get("VOILUTFunction", "LINEAR") == "LINEAR":  # C.11.2.1.2.1: half a unit down, one unit narrower
            low, high = low, high - 1
    elif header.get("VOILUTSequence"):
        count, low, _bits = (int(n) for n in header.VOILUTSequence[0].LUTDescriptor)
        high = low + (count or 1 << 16) - 1  # C.11.1.1.1: 0 stands for 2^16
    else:
        return None
    return (float(low), float(high)) if low < high else None


def _dpi(header: Dataset) -> Dpi | None:
    """Pixels per inch, horizontal and vertical. Spacings are mm between rows, then between columns (PS3.3 10.7.1.3)."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = numbers(header.get(name))
        if len(spacing) == 2 and spacing.min() > 0:
            return 25.4 / float(spacing[1]), 25.4 / float(spacing[0])
    return None
