"""One DICOM file: whether it is one, its header, its stored pixels. pydicom is imported when a file is read."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.extras import MissingPackageError, require

if TYPE_CHECKING:
    from pydicom import Dataset

Header = TypeVar("Header", bound="Dataset")

PREAMBLE, MAGIC = 128, b"DICM"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage, the SOP class of a DICOMDIR (PS3.3 annex F)."""

VOLUMES = {
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in (
        *("2", "2.1", "2.2"),  # CT, Enhanced CT, Legacy Converted Enhanced CT
        *("4", "4.1", "4.4"),  # MR, Enhanced MR, Legacy Converted Enhanced MR
        *("128", "130", "128.1"),  # PET, Enhanced PET, Legacy Converted Enhanced PET
    )
}
"""SOP classes of slices (PS3.4 B.5). An image of another class is a slice where it has a position of its own."""

PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Double Float, Float and (all other) Pixel Data."""

UNDEFINED_LENGTH = 0xFFFFFFFF
KINDS = (
    *({"US", "SS", "UL", "SL", "UV", "SV"}, {"FL", "FD"}, {"SQ"}, {"AT"}),
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"},
)
"""Value representations (PS3.5, 6.2) that hold integers, floats, sequences, tags, text."""

STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")
"""SOI of JPEG and JPEG-LS, SOC and SIZ of JPEG 2000."""
END = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000; nowhere else in the data of any of them."""


def is_dicom(path: Path) -> bool:
    """True where `path` is a file with the preamble of PS3.10, section 7.1, whatever its name. Never raises."""
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except OSError:
        return False


@contextmanager
def strict(path: Path) -> Iterator[None]:
    """Turn all errors of pydicom and its codecs for the file at `path` into InputRefusedError; silence warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd headers: the parts that matter are looked at
            yield
    except (InputRefusedError, MissingPackageError):
        raise
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror or error})", "check the disk and the permissions")
    except Exception as error:  # there are many for damaged files
        # Not the error's text, which quotes values of elements: they may speak of the patient.
        refuse(path, f"is truncated or damaged ({type(error).__name__})", "copy or export it again")


def check_not_deflated(path: Path) -> None:
    """Raise InputRefusedError for a file that is deflated as a whole: pydicom would unpack any amount of it; and for
    one without a transfer syntax."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if not syntax or not isinstance(syntax, str):
        refuse(path, "does not state its transfer syntax (0002,0010)", "export it again")
    if syntax == DeflatedExplicitVRLittleEndian:
        refuse(path, "is deflated as a whole", "convert it to Explicit VR Little Endian (dcmconv)")


def read_whole(path: Path) -> Dataset:
    """The data set of the file at `path`, pixels included, as `sound`. Raises as `check_not_deflated`, and what pydicom
    raises."""
    from pydicom import dcmread

    check_not_deflated(path)
    return sound(dcmread(path))


def sound(header: Header) -> Header:
    """`header` without elements whose value representation is of another kind than DICOM's dictionary says, such as a
    number for a text or a sequence for a UID: nothing here could use them."""
    from pydicom.datadict import dictionary_VR

    for tag in list(header.keys()):
        stated = header.get_item(tag).VR
        if stated is None or stated == "UN" or tag.is_private:
            continue
        try:
            known = dictionary_VR(tag).split(" or ")
        except KeyError:
            continue
        if _kind(stated) not in {_kind(one) for one in known}:
            del header[tag]
    return header


def _kind(representation: str) -> int:
    """The kind of a value representation: its place in `KINDS`, or none of them (bytes)."""
    return next((n for n, kind in enumerate(KINDS) if representation in kind), -1)


def is_slice(header: Dataset) -> bool:
    """True where an image is (to be) a slice of a volume, rather than a picture, a report or a plan."""
    classes = {header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")}  # the same, PS3.10, 7.1
    return bool(classes & VOLUMES) or "ImagePositionPatient" in header


def read_header(path: Path, tags: Sequence[str | tuple[int, int]] | None = None, with_pixels: bool = True) -> Dataset:
    """The header of the file at `path`, without pixels: all of it, or `tags` only, which are then decoded and sound.

    Raises InputRefusedError; `with_pixels`, also for a slice whose pixels are not there or not all there.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    ends: list[int] = []

    def at_pixels(tag: int, _vr: str | None, length: int) -> bool:
        if tag in PIXELS:
            ends.append(file.tell() + (0 if length == UNDEFINED_LENGTH else length))
        return tag in PIXELS

    with strict(path), path.open("rb") as file:
        check_not_deflated(path)
        header = read_partial(file, at_pixels, specific_tags=None if tags is None else [Tag(t) for t in tags])
        if with_pixels and is_slice(header):
            if not ends:
                refuse(path, "holds no pixels", "copy it again if it is truncated, or remove it")
            if ends[0] > path.stat().st_size:
                refuse(path, "is truncated: it ends before its pixels do", "copy or export it again")
        sound(header)
        if tags is not None:
            list(header.iterall())  # pydicom decodes an element, and warns or raises, when it is first looked at
        return header


def check_integers(path: Path, image: Dataset, widths: tuple[int, ...]) -> tuple[int, int]:
    """The lowest and the highest integer that the pixels of `image` may be (PS3.3 C.7.6.3).

    Raises InputRefusedError unless they are grey integers whose Bits Allocated are one of `widths`.
    """
    photometric = str(image.PhotometricInterpretation)
    if int(image.SamplesPerPixel) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        refuse(path, f"is not grey ({photometric})", "give images in MONOCHROME1 or MONOCHROME2")
    allocated, stored, high = int(image.BitsAllocated), int(image.BitsStored), int(image.HighBit)
    if allocated not in widths or not 1 < stored <= allocated or high != stored - 1:
        problem = f"has {stored} bits stored in {allocated}, the highest of them bit {high}"
        allowed = " or ".join(map(str, widths))
        refuse(path, problem, f"give images of 2 to {widths[-1]} bits, the lowest of {allowed}")
    low = -(1 << stored - 1) if image.PixelRepresentation else 0
    return low, low + (1 << stored) - 1


def stored_pixels(path: Path, image: Dataset) -> NDArray[Any]:
    """The integers of `image`, read from `path`: [rows, columns], or [frames, rows, columns] of several.

    Native, RLE, or by GDCM always: lossy codecs differ in their rounding, and what else is installed must not decide.
    Raises InputRefusedError for more or fewer of them than `image` declares, and for integers beyond its Bits Stored,
    MissingPackageError where GDCM is needed and not installed.
    """
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import JPEGExtended12Bit, RLELossless

    plugin, syntax = "", image.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        _check_length(path, image)
    elif syntax != RLELossless:
        require("dicom", "gdcm")
        plugin = "gdcm"
        try:
            known = plugin in get_decoder(syntax).available_plugins
        except NotImplementedError:
            known = False
        if not known or (syntax == JPEGExtended12Bit and int(image.BitsStored) != 8):
            refuse(path, f"is compressed in a way that is not known here ({syntax.name})", "decompress it (gdcmconv)")
        _check_codestreams(path, image)
    if syntax.is_compressed:
        _check_frames(path, image)
    options: dict[str, Any] = {"correct_unused_bits": False, "allow_excess_frames": False}
    return _within_bits(path, image, pixel_array(image, raw=True, decoding_plugin=plugin, **options))


def _check_length(path: Path, image: Dataset) -> None:
    """Refuse more uncompressed pixels than declared, but for zeros of at most a row. (pydicom refuses fewer.)"""
    row = int(image.Columns) * int(image.SamplesPerPixel) * int(image.BitsAllocated) // 8
    expected = row * int(image.Rows) * int(image.get("NumberOfFrames") or 1)
    excess = image.PixelData[expected:]
    if len(excess) > max(row, 2) or any(excess):
        stated = f"holds {len(image.PixelData)} bytes of pixels and declares {expected}"
        refuse(path, stated, "it is damaged: copy or export it again")


def _check_frames(path: Path, image: Dataset) -> None:
    """Refuse compressed pixels of another number of frames than declared; a frame may be in several fragments."""
    from pydicom.encaps import generate_fragments
    from pydicom.uid import RLELossless

    every = image.file_meta.TransferSyntaxUID == RLELossless  # one fragment a frame, PS3.5 A.4.2
    fragments = list(generate_fragments(image.PixelData, endianness="<"))[1:]
    count = sum(every or fragment.startswith(STARTS) or fragment[4:8] == b"jP  " for fragment in fragments)
    frames = int(image.get("NumberOfFrames") or 1)
    if count != frames:
        refuse(path, f"holds {count} frames and declares {frames}", "export it again")


def _within_bits(path: Path, image: Dataset, pixels: NDArray[Any]) -> NDArray[Any]:
    """`pixels`, within Bits Stored. The bits above may be the same in all (a sign without its extension, too), or of an
    overlay where one says so (retired, PS3.3-2004 C.9.2): they are not the image's."""
    stored, signed = int(image.BitsStored), bool(image.PixelRepresentation)
    low = -(1 << stored - 1) if signed else 0
    high = low + (1 << stored) - 1
    if pixels.size == 0 or (pixels.min() >= low and pixels.max() <= high):
        return pixels
    overlaid = any((group, 0x0102) in image and image[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
    above = pixels >> stored
    if overlaid or above.min() == above.max():
        shift = 8 * pixels.dtype.itemsize - stored
        return pixels << shift >> shift
    return refuse(path, f"has pixels beyond the {stored} bits that it declares", "correct its header")


def _check_codestreams(path: Path, image: Dataset) -> None:
    """Refuse compressed frames without an end, or of another size than the header says: before a codec unpacks them."""
    from pydicom.encaps import generate_frames

    declared = int(image.Rows), int(image.Columns)
    frames = int(image.get("NumberOfFrames") or 1)
    for frame in generate_frames(image.PixelData, number_of_frames=frames):
        size = codestream_size(frame)
        if size != declared:
            stated = "of unknown size" if size is None else f"of {size[1]} x {size[0]} pixels"
            refuse(path, f"holds a frame {stated} and declares {declared[1]} x {declared[0]}", "export it again")
        if END not in frame[-64:]:
            refuse(path, "is truncated or damaged (a compressed frame has no end)", "copy or export it again")


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream says it has; None where it does not say.

    SIZ of ISO/IEC 15444-1, A.5.1; SOF of ISO/IEC 10918-1, B.2.2, and of ISO/IEC 14495-1, C.2.2.
    """
    siz = frame.find(b"\xff\x4f\xff\x51")
    if siz >= 0 and (siz == 0 or frame[4:8] == b"jP  ") and len(frame) >= siz + 24:
        x1, y1, x0, y0 = struct.unpack_from(">4I", frame, siz + 8)
        return y1 - y0, x1 - x0
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 9 <= len(frame) and frame[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", frame, position + 1)
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", frame, position + 5)
            return rows, columns
        position += 1 if marker == 0xFF else 2 + length
    return None


def numbers(value: Any) -> NDArray[np.float64]:
    """A DICOM element of one number or several, or none."""
    return np.atleast_1d(np.array([] if value is None else value, np.float64))
