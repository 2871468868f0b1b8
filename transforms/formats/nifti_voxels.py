"""Voxels of a NIfTI file: unpacked and never beyond what the header declares; rounded to integers without clipping."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats.header import Header
from brgm_med.transforms.formats.nifti_header import is_gzip
from brgm_med.transforms.formats.nifti_record import Record


def read_voxels(header: Header) -> NDArray[np.generic]:
    """The stored voxels, [X, Y, Z], before scaling. Never unpacks more than the header declares."""
    assert header.nifti is not None
    offset = header.nifti.offset
    end = offset + int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
    try:
        with header.path.open("rb") as file:
            gzipped = is_gzip(file.read(2))
            file.seek(0)
            content = (gzip.GzipFile(fileobj=file) if gzipped else file).read(end + 1)
    except EOFError:
        refuse(header.path, "its gzip stream ends too early", "it is truncated: copy or export it again")
    except (gzip.BadGzipFile, zlib.error) as error:
        problem = "checksum is wrong" if str(error).startswith(("CRC", "Incorrect length")) else "stream is damaged"
        refuse(header.path, f"its gzip {problem}", "copy or export it again")
    except OSError as error:
        refuse(header.path, f"cannot be read ({error.strerror})", "check the disk and the permissions")
    if len(content) > end:
        refuse(header.path, "bytes follow the voxels that its header declares", "export it again")
    if len(content) < end:
        short = f"ends after {len(content)} of the {end} bytes that its header declares"
        refuse(header.path, short, "it is truncated: copy or export it again")
    stored = np.frombuffer(content, header.dtype, offset=offset)
    return stored.reshape(header.shape, order="F")


def encode(array: NDArray[np.floating], dtype: np.dtype, record: Record, like: Header | None) -> NDArray[np.generic]:
    """The voxels to store, little-endian; sets slope and intercept in `record` for an integer `dtype`."""
    stored_type = dtype.newbyteorder("<")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = array.astype(stored_type)
        if not np.isfinite(stored).all():
            raise ValueError("the values are beyond float32")
        return stored
    if like is not None:
        levels = np.rint((array.astype(np.float64) - like.inter) / like.slope)
        fits = np.iinfo(dtype).min <= levels.min() and levels.max() <= min(np.iinfo(dtype).max, 2**53)
        if fits and np.array_equal((levels * like.slope + like.inter).astype(array.dtype), array):
            record["scl_slope"], record["scl_inter"] = like.slope, like.inter
            return levels.astype(stored_type)
    slope, inter = integer_scaling(float(array.min()), float(array.max()), dtype, record["scl_slope"].dtype)
    record["scl_slope"], record["scl_inter"] = slope, inter
    return np.rint((array.astype(np.float64) - inter) / slope).astype(stored_type)


def integer_scaling(low: float, high: float, dtype: np.dtype, field: np.dtype) -> tuple[float, float]:
    """(slope, inter), exact in the header's `field`, that map [low, high] onto the integers of `dtype`.

    stored = round((value - inter) / slope) clips nothing and uses the range but for what rounding slope and
    inter costs. At most 2^32 levels are used: float64 arithmetic could not tell more apart.
    """
    least = max(np.iinfo(dtype).min, -(2**31))
    most = min(np.iinfo(dtype).max, least + 2**32 - 1)
    width = max(high - low, float(np.spacing(field.type(abs(low)))))
    slope = max(width / (most - least), float(np.finfo(field).tiny))
    margin = 0.0
    while True:
        step = float(field.type(slope * (1 + margin)))
        inter = float(field.type((low + high) / 2 - step * (least + most) / 2))
        if step > 0 and round((low - inter) / step) >= least and round((high - inter) / step) <= most:
            return step, inter
        margin = max(1e-9, 2 * margin)
