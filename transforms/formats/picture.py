"""Pictures: two-dimensional, grey or RGB, 8 or 16 bits; read strictly and written atomically. No torch in here.

A picture's values are `slope * stored + intercept`. For PNG, JPEG and TIFF they are the stored integers themselves; a
radiograph's have units (see `radiograph`). `float32` holds every integer of 16 bits exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import UsageError, refuse
from brgm_med.files import reading_back, replacing
from brgm_med.transforms.formats.picture_codec import CODECS, Codec, Dpi, Pixels, codec_of, decode
from brgm_med.transforms.formats.picture_encode import encode

KIND: Literal["picture"] = "picture"
ENDINGS = tuple(CODECS)
Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, the right way up, black lowest, with all that it takes to write another one like it.

    `stored` [C, H, W] (C is 1 or 3), uint8 or uint16: the integers of the file. `range`: the values that the prior's -1
    and 1 stand for. `dpi`: pixels per inch, horizontal and vertical. `window`: the values that a DICOM file asks to be
    shown as black and white.
    """

    path: Path
    stored: Pixels
    range: Range
    slope: float = 1.0
    intercept: float = 0.0
    icc: bytes | None = None
    dpi: Dpi | None = None
    window: Range | None = None

    @cached_property
    def array(self) -> NDArray[np.float32]:
        """The values, [C, H, W]: slope * stored + intercept."""
        return self.values_of(self.stored)

    def values_of(self, stored: Pixels) -> NDArray[np.float32]:
        """Integers like this picture's -> values. Any shape."""
        return (self.slope * stored.astype(np.float64) + self.intercept).astype(np.float32)

    def stored_of(self, values: NDArray[np.floating], highest: int) -> tuple[Pixels, int]:
        """Values [C, H', W'] -> integers from 0 to `highest`, rounded and clipped, and how many were clipped.

        Raises ValueError for values that are not finite or have other channels.
        """
        if values.ndim != 3 or len(values) != self.channels or 0 in values.shape or not np.isfinite(values).all():
            raise ValueError(f"finite values [{self.channels}, H, W] are needed, not an array of shape {values.shape}")
        levels = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        clipped = int(np.count_nonzero((levels < 0) | (levels > highest)))
        return levels.clip(0, highest).astype(self.stored.dtype), clipped

    @property
    def channels(self) -> int:
        return int(self.stored.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.stored.shape[1]), int(self.stored.shape[2])

    @property
    def bits(self) -> int:
        """8 or 16, per channel, as it is written."""
        return 8 * self.stored.dtype.itemsize


class Written(NamedTuple):
    """`array` [C, H, W]: the values that the file holds; `clipped`: how many were beyond what its integers hold."""

    array: NDArray[np.float32]
    clipped: int


def used_range(stored: Pixels) -> Range:
    """0 to the highest value of 8 bits; of 16, of as many of them as are in use (but at least 8).

    Cameras and detectors of 10, 12 or 14 bits are stored in 16 without saying so; by the range of the type they would
    be almost black to the prior. Powers of two do not follow the content of a single picture.
    """
    bits = 8 if stored.dtype == np.uint8 else max(8, int(stored.max()).bit_length())
    return 0.0, float(2**bits - 1)


def read(path: Path | str) -> Picture:
    """Read one PNG, JPEG or TIFF, refusing everything that could be misunderstood.

    EXIF orientation is applied. Palettes become RGB, 2 and 4 bits of grey 8, and 10 to 14 of a TIFF 16, at the same
    values; min-is-white is turned; an alpha channel that hides nothing is dropped. Of a JPEG with further pictures
    (MPO) the main one is taken. Raises InputRefusedError for a file that is missing, empty, over 2 GiB, truncated,
    damaged, of another format than its name says, or over 89 million pixels; for more than one page or frame; for
    transparent pixels, 1 bit, CMYK and other colour spaces; and for floating-point, signed and 32-bit pixels.
    """
    path = Path(path)
    codec = codec_of(path)
    if codec is None:
        refuse(path, "is no PNG, JPEG or TIFF picture", "convert it to one of these")
    if codec != CODECS.get(path.suffix.lower()):
        ending = next(ending for ending, named in CODECS.items() if named == codec)
        refuse(path, f"is a {codec} picture under another format's name", f"rename it to end in {ending}")
    stored, icc, dpi = decode(path, codec)
    return Picture(path, stored, used_range(stored), icc=icc, dpi=dpi)


def check_output_name(path: Path | str, like: Picture) -> Codec:
    """The format to write. Raises UsageError where `path` is no picture's name, or a JPEG's and `like` has 16 bits."""
    codec = CODECS.get(Path(path).suffix.lower())
    if codec is None:
        raise UsageError(f"{path}: the output's name must end in {' or '.join(CODECS)}")
    if codec == "JPEG" and like.bits > 8:
        raise UsageError(f"{path}: JPEG holds 8 bits and the picture has {like.bits}; let it end in .png or .tif")
    return codec


def default_output(path: Path | str, mark: str = "_brgm") -> Path:
    """The default path of a result: beside `path`; DICOM and TIFF for their like, else PNG, lossless."""
    path = Path(path)
    codec, dicom = CODECS.get(path.suffix.lower()), path.suffix.lower() == ".dcm"
    if codec is None and not dicom:  # DICOM known by its content: such files are often named by numbers with dots
        return path.with_name(f"{path.name}{mark}.dcm")
    suffix = path.suffix.lower() if dicom or codec == "TIFF" else ".png"
    return path.with_name(f"{path.stem}{mark}{suffix}")


def write(
    path: Path | str, values: NDArray[np.floating], like: Picture, description: str | None = None, force: bool = False
) -> Written:
    """Write `values` [C, H', W'], in the units of `like`, with its bits, colour profile and resolution.

    Each is rounded to the nearest integer and clipped to those that the bits hold; `like.array` gives back exactly
    `like.stored`. The picture's size in millimetres is kept: where H' or W' differ from those of `like`, so do the dots
    per inch. EXIF is not carried over: what it told of orientation is applied, and the rest may name people and places.
    `description` is kept in the file. A JPEG is written only for a `path` that says so, and is the only lossy one.

    The file is whole or not there: it is written beside `path`, read back, compared (a JPEG: its size), and renamed.
    Raises UsageError as `check_output_name` does; InputRefusedError where `path` exists and not `force`;
    CannotWriteError where it cannot be written; ValueError for values that are not finite or have other channels.
    """
    path = Path(path)
    codec = check_output_name(path, like)
    stored, clipped = like.stored_of(values, int(np.iinfo(like.stored.dtype).max))
    dpi = like.dpi
    if dpi is not None:
        (height, width), (old_height, old_width) = stored.shape[1:], like.shape
        dpi = dpi[0] * width / old_width, dpi[1] * height / old_height
    content = encode(stored, codec, like.icc, dpi, description)
    with replacing(path, force) as temporary:
        temporary.write_bytes(content)
        with reading_back(path) as check:
            written = decode(temporary, codec).stored
            check(written.dtype == stored.dtype and written.shape == stored.shape)
            check(codec == "JPEG" or np.array_equal(written, stored))
    return Written(like.values_of(written), clipped)
