"""Pixels, resolution and colour profile of PNG, JPEG and TIFF files; whatever a codec cannot do is refused in here.

JPEG is Pillow's; PNG's pixels are libpng's (through imagecodecs) and TIFF's are tifffile's, because Pillow reads 16-bit
RGB as 8-bit. The heavy ones are imported when a file needs them.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.extras import MissingPackageError, require
from brgm_med.files import start_of

Codec = Literal["PNG", "JPEG", "TIFF"]
Pixels = NDArray[Any]
"""uint8 or uint16."""
Dpi = tuple[float, float]

CODECS: dict[str, Codec] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
MAGIC: dict[bytes, Codec] = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
MAGIC |= dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF")
MAX_PIXELS = (1 << 28) // 3
"""Pillow's own limit against decompression bombs: a quarter of a GiB of 8-bit RGB, 89 million pixels."""
MAX_BYTES = 2 << 30
ORIENTATION, ICC_PROFILE = 0x0112, 0x8773
"""Tags of EXIF and TIFF (TIFF 6.0, section 8; ICC.1:2010, B.4)."""

for _name in ("tifffile", "imagecodecs"):  # their words on a damaged file are in the refusal, which is one line
    logging.getLogger(_name).addHandler(logging.NullHandler())


class Decoded(NamedTuple):
    """The right way up: `stored` [C, H, W], C 1 or 3, as the file stores it; `dpi` horizontal, vertical."""

    stored: Pixels
    icc: bytes | None
    dpi: Dpi | None


def start_of_picture(path: Path, length: int) -> bytes:
    """The first `length` bytes. Raises InputRefusedError for what is no readable file of at most 2 GiB."""
    start, size = start_of(path, length, "give a picture's file")
    if size == 0:
        refuse(path, "is empty", "copy or export it again")
    if size > MAX_BYTES:
        refuse(path, f"has {size} bytes", "give a picture of at most 2 GiB")
    return start


def codec_of(path: Path) -> Codec | None:
    """The codec by the content; None for anything else. Raises InputRefusedError as `start_of_picture` does."""
    start = start_of_picture(path, 16)
    return next((codec for magic, codec in MAGIC.items() if start.startswith(magic)), None)


def decode(path: Path, codec: Codec) -> Decoded:
    """Read the picture at `path`. Raises InputRefusedError (see `picture.read`), and MissingPackageError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd tags: those that matter are looked at below
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels, orientation, icc, dpi = _tiff(path) if codec == "TIFF" else _png_or_jpeg(path, codec)
    except (InputRefusedError, MissingPackageError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        refuse(path, f"declares more than {MAX_PIXELS} pixels", "cut out the part that is meant")
    except Exception as error:  # every codec has exceptions of its own for damaged files
        problem = str(error).replace(repr(str(path)), "it").replace(str(path), "it")
        refuse(path, f"is truncated or damaged ({problem})", "copy or export it again")
    if pixels.shape[2] in (2, 4):
        if (pixels[..., -1] < np.iinfo(pixels.dtype).max).any():
            refuse(path, "has transparent pixels", "flatten it onto a background first")
        pixels = pixels[..., :-1]  # an alpha channel that hides nothing
    if dpi is not None and not 0 < min(dpi) <= max(dpi) < 1e7:
        dpi = None
    if dpi is not None and orientation >= 5:
        dpi = dpi[::-1]
    stored = np.moveaxis(upright(pixels, orientation), -1, 0)
    return Decoded(np.ascontiguousarray(stored, stored.dtype.newbyteorder("=")), icc or None, dpi)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """[H, W, C] as stored -> the right way up, for an EXIF `orientation` 1 to 8; any other value says nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < 1:
        refuse(path, f"declares {width} x {height} pixels", "it is damaged: export it again")
    if width * height > MAX_PIXELS:
        refuse(path, f"declares {width} x {height} pixels", "cut out a part of at most 89 million")


def _png_or_jpeg(path: Path, codec: Codec) -> tuple[Pixels, int, bytes | None, Dpi | None]:
    with Image.open(path, formats=(codec,)) as image:
        _check_size(path, *image.size)
        if codec == "PNG" and getattr(image, "is_animated", False):
            refuse(path, "is animated", "save the frame that is meant as a file of its own")
        orientation = int(image.getexif().get(ORIENTATION, 1))
        icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
        if codec == "JPEG":
            if image.mode not in ("L", "RGB"):
                refuse(path, f"is a picture in {image.mode}", "convert it to grey or RGB")
            pixels = np.asarray(image)
        else:
            require("pictures", "imagecodecs")
            import imagecodecs

            content = path.read_bytes()
            bits, colour = content[24:26]  # IHDR (PNG 11.2.1); colour type 0 is grey
            if (bits, colour) == (1, 0):
                refuse(path, "has 1 bit per pixel", "give the grey picture that it was made from")
            # As the standard says: palettes become RGB, 2 and 4 bits the whole range of 8, transparent colours alpha.
            pixels = imagecodecs.png_decode(content)
    return pixels.reshape(*pixels.shape[:2], -1), orientation, icc, None if dpi is None else (dpi[0], dpi[1])


def _tiff(path: Path) -> tuple[Pixels, int, bytes | None, Dpi | None]:
    require("pictures")
    import tifffile
    from tifffile import COMPRESSION, PHOTOMETRIC, PREDICTOR, SAMPLEFORMAT

    with tifffile.TiffFile(path) as file:
        pages = max(len(file.pages), int((file.imagej_metadata or {}).get("images", 1)))
        if pages != 1:
            refuse(path, f"holds {pages} pages", "save the one that is meant as a file of its own")
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        _check_size(path, page.imagewidth, page.imagelength)
        space, bits = PHOTOMETRIC(page.photometric), page.bitspersample
        jpeg = page.compression in (COMPRESSION.JPEG, COMPRESSION.OJPEG)
        if page.sampleformat != SAMPLEFORMAT.UINT:
            kind = SAMPLEFORMAT(page.sampleformat).name
            refuse(path, f"has pixels of type {kind}, {bits} bits", "save it as unsigned integers of 8 or 16 bits")
        if bits not in ((4, 8) if space == PHOTOMETRIC.PALETTE else (8, 10, 12, 14, 16)):
            refuse(path, f"has {bits} bits per pixel", "save it as unsigned integers of 8 or 16 bits")
        if page.predictor != PREDICTOR.NONE and page.compression == COMPRESSION.NONE:
            refuse(path, "has a predictor and no compression, so its pixels can be read in two ways", "save it again")
        grey = space in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE)
        # tifffile gives RGB for YCbCr where it is the JPEG inside that is so coded.
        colour = space == PHOTOMETRIC.RGB or (space == PHOTOMETRIC.YCBCR and jpeg)
        if not (grey or colour) or page.samplesperpixel not in ((1, 2) if grey else (3, 4)) or page.imagedepth != 1:
            problem = f"{page.samplesperpixel} channels of {space.name}"
            refuse(path, f"is a picture with {problem}", "convert it to grey or RGB")
        pixels = page.asarray()
        if space == PHOTOMETRIC.PALETTE:
            assert page.colormap is not None
            pixels = np.moveaxis(page.colormap[:, pixels] >> 8, 0, -1).astype(np.uint8)
        elif page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        if space == PHOTOMETRIC.MINISWHITE:
            pixels = (2**bits - 1) - pixels
        tags = {tag.code: tag.value for tag in page.tags}
    return pixels.reshape(*pixels.shape[:2], -1), int(tags.get(ORIENTATION, 1)), tags.get(ICC_PROFILE), _tiff_dpi(tags)


def _tiff_dpi(tags: dict[int, Any]) -> Dpi | None:
    """Dots per inch from X- and YResolution and ResolutionUnit: 2 inch, 3 centimetre (TIFF 6.0, section 8)."""
    (a, b), (c, d) = (tags.get(code, (0, 1)) for code in (0x011A, 0x011B))
    scale = {2: 1.0, 3: 2.54}.get(tags.get(0x0128, 2))
    return None if scale is None or not b * d else (scale * a / b, scale * c / d)
