"""Pixels, resolution, colour profile and description as the bytes of a PNG, JPEG or TIFF file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from brgm_med.extras import require
from brgm_med.transforms.formats.picture_codec import Codec, Dpi, Pixels

JPEG_QUALITY = 95


def encode(stored: Pixels, codec: Codec, icc: bytes | None, dpi: Dpi | None, description: str | None) -> bytes:
    """`stored` [C, H, W] as the bytes of a file, losslessly but for JPEG (8 bit only, quality 95, no subsampling).

    `description` becomes PNG's text "Description", TIFF's ImageDescription or JPEG's comment.
    """
    if codec != "JPEG":
        require("pictures")
    pixels = np.ascontiguousarray(stored[0] if len(stored) == 1 else np.moveaxis(stored, 0, -1))
    if codec == "PNG":
        import imagecodecs

        file = bytes(imagecodecs.png_encode(pixels))
        return file[:_IHDR_END] + _png_chunks(icc, dpi, description) + file[_IHDR_END:]
    buffer = io.BytesIO()
    if codec == "JPEG":
        extra = {} if description is None else {"comment": description.encode()}
        inches = (0, 0) if dpi is None else (round(dpi[0]), round(dpi[1]))
        image = Image.fromarray(pixels)
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, dpi=inches, icc_profile=icc, **extra)
    else:
        import tifffile

        tifffile.imwrite(
            buffer,
            pixels,
            photometric="minisblack" if pixels.ndim == 2 else "rgb",
            compression="zlib",
            predictor=True,
            resolution=dpi,
            resolutionunit=None if dpi is None else 2,
            iccprofile=icc,
            description=None if description is None else description.encode(),
            software=False,
            metadata=None,
        )
    return buffer.getvalue()


_IHDR_END = 8 + 25
"""PNG: the signature and the first chunk. What describes the picture comes next (PNG 5.6)."""


def _png_chunks(icc: bytes | None, dpi: Dpi | None, description: str | None) -> bytes:
    """iCCP, pHYs and tEXt, or iTXt for what is not Latin-1 (PNG 11.3)."""
    info, buffer = PngInfo(), io.BytesIO()
    if icc is not None:
        info.add(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if dpi is not None:
        info.add(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1))
    if description is not None:
        info.add_text("Description", description)
    for name, content, _ in info.chunks:
        putchunk(buffer, name, content)
    return buffer.getvalue()
