"""NIfTI volumes, read strictly and written atomically. Needs numpy (and, to write, scipy); never torch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import CannotWriteError, InputRefusedError, refuse
from brgm_med.files import replacing
from brgm_med.transforms.formats import nifti_affine
from brgm_med.transforms.formats.nifti_affine import Affine, Choice, Record
from brgm_med.transforms.formats.nifti_header import (
    DTYPE_CODES,
    LAYOUTS,
    MAGIC,
    NiftiHeader,
    is_gzip,
    read_header,
)

OutputType = Literal["float32", "source"]
KIND = "volume"
CHUNK = 1 << 20
COMPRESSION = 1
"""Higher levels take several times as long and make voxels hardly smaller."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume: `array` [X, Y, Z] float32, scaled; `affine` [4, 4], index -> world RAS mm; its header."""

    array: NDArray[np.float32]
    affine: Affine
    header: NiftiHeader


def read(path: Path | str, affine: Choice = "auto") -> Scan:
    """Read one volume, refusing everything that could be misunderstood.

    `affine` chooses between sform and qform; "auto" takes the sform, else the qform, and refuses two that
    put a corner more than 0.1 mm apart. 4-D files with one volume are squeezed. Raises InputRefusedError for
    a file that is missing, not single-file NIfTI, truncated, damaged (gzip CRC), or longer than its header
    says; for voxels that are NaN, infinite, beyond float32, all equal, RGB or complex; for more than one
    volume; and for an affine that is absent, singular, sheared or ambiguous.
    """
    header = read_header(Path(path), affine)
    values = decode(header, read_voxels(header))
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, np.float32)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        refuse(header.path, f"{bad} of its voxels are NaN, infinite or beyond float32", "correct or mask them")
    if array.min() == array.max():
        refuse(header.path, f"all its voxels are {array.flat[0]:g}", "give an image that is not constant")
    return Scan(array, header.affine, header)


def check(path: Path | str, affine: Choice = "auto") -> NiftiHeader:
    """Refuse what `read` would refuse, and tell what the header says. Raises InputRefusedError."""
    return read(path, affine).header


def read_stored(path: Path | str, affine: Choice = "auto") -> tuple[NiftiHeader, NDArray[np.generic]]:
    """The header and the stored voxels [X, Y, Z], before scaling, whatever they hold: NaN and constants too.

    Raises InputRefusedError as `read` does, but for what it says of voxel values.
    """
    header = read_header(Path(path), affine)
    return header, read_voxels(header)


def read_voxels(header: NiftiHeader) -> NDArray[np.generic]:
    """The stored voxels, [X, Y, Z], before scaling. Never unpacks more than the header declares."""
    end = header.offset + header.nbytes
    try:
        with header.path.open("rb") as file:
            content = bytearray()
            chunks: Iterator[bytes] = iter(lambda: file.read(CHUNK), b"")
            gzipped = is_gzip(file.read(2))
            file.seek(0)
            for chunk in inflate(header.path, chunks, end + 1) if gzipped else chunks:
                content += chunk
                if len(content) > end:
                    refuse(header.path, "bytes follow the voxels that its header declares", "export it again")
    except OSError as error:
        refuse(header.path, f"cannot be read ({error.strerror})", "check the disk and the permissions")
    if len(content) < end:
        short = f"ends after {len(content)} of the {end} bytes that its header declares"
        refuse(header.path, short, "it is truncated: copy or export it again")
    stored = np.frombuffer(content, header.dtype, offset=header.offset)
    return stored.reshape(header.shape, order="F")


def inflate(path: Path, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Unpack a gzip file of one or more members, at most `limit` bytes of it, checking each member's CRC."""
    inflater, left = zlib.decompressobj(31), limit
    try:
        for chunk in chunks:
            while chunk:
                if inflater.eof:
                    chunk = chunk.lstrip(b"\0")  # gzip allows zeros after a member
                    if not chunk:
                        break
                    inflater = zlib.decompressobj(31)
                piece = inflater.decompress(chunk, min(left, CHUNK))
                left -= len(piece)
                yield piece
                if left == 0:
                    return
                chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    except zlib.error as error:
        wrong_sum = str(error).endswith(("data check", "length check"))
        refuse(path, f"its gzip {'checksum is wrong' if wrong_sum else 'stream is damaged'}", "copy or export it again")
    if not inflater.eof:
        refuse(path, "its gzip stream ends too early", "it is truncated: copy or export it again")


def decode(header: NiftiHeader, stored: NDArray[np.generic]) -> NDArray[np.floating]:
    """slope * stored + inter in float64; float voxels without scaling as they are."""
    if (header.slope, header.inter) == (1.0, 0.0):
        native = header.dtype.newbyteorder("=")
        return stored.astype(native if native.kind == "f" else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return stored.astype(np.float64) * header.slope + header.inter


def write(
    path: Path | str,
    array: NDArray[np.floating],
    affine: Affine,
    like: NiftiHeader | None = None,
    dtype: OutputType = "float32",
    description: str | None = None,
    force: bool = False,
) -> NDArray[np.floating]:
    """Write `array` [X, Y, Z] with `affine` (index -> world RAS mm) and give it back as the file holds it.

    `like` is the header of the scan that it was made from: version, sform and qform codes, units and
    everything else are kept; intent, slice timing and extensions are cleared, metres and microns become mm,
    and a form that disagreed with the chosen one is marked absent. `description` (cut to 79 bytes) replaces
    the source's. `dtype` "source" keeps the source's type: integers get the source's own scaling where that
    holds every value exactly, else a slope and intercept that clip nothing and use the whole range, so the
    error is at most half a step (the slope). What comes back is float32 or float64 for floats, float64 for
    integers.

    The file is whole or not there: it is written beside `path`, read back, compared, and renamed. Raises
    InputRefusedError where `path` exists and not `force`; CannotWriteError where it cannot be written;
    ValueError for an affine that `read` would refuse, an array that is not three-dimensional or not finite,
    or a `path` not .nii or .nii.gz.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: the name of a NIfTI file ends in .nii or .nii.gz")
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ValueError(f"a finite array [X, Y, Z] is needed, not one of shape {array.shape}")
    if dtype == "source" and like is None:
        raise ValueError('dtype "source" needs the header of the source')
    nifti_affine.check(np.asarray(affine, np.float64), array.shape)
    target = np.dtype("f4") if dtype == "float32" or like is None else like.dtype.newbyteorder("=")
    record = make_record(array.shape, affine, target, like, description)
    stored = encode(array, target, record, like)
    return decode(*_put(path, record, stored, force))


def write_stored(
    path: Path | str, stored: NDArray[np.generic], like: NiftiHeader, description: str, force: bool = False
) -> NDArray[np.generic]:
    """Write voxels `stored` [X, Y, Z] as they are, of `like`'s type, with its grid and its scaling to the last bit.

    As `write` in everything else; gives the stored voxels back as the file holds them. Raises ValueError for voxels of
    another shape or type than `like`'s.
    """
    path = Path(path)
    if stored.shape != like.shape or stored.dtype.newbyteorder("=") != like.dtype.newbyteorder("="):
        raise ValueError(f"voxels {stored.shape} {stored.dtype} are not like {like.shape} {like.dtype}")
    record = make_record(like.shape, like.affine, like.dtype.newbyteorder("="), like, description)
    for name in ("scl_slope", "scl_inter", "cal_max", "cal_min"):
        record[name] = like.record[name]
    return _put(path, record, stored.astype(like.dtype.newbyteorder("<")), force)[1]


def _put(
    path: Path, record: Record, stored: NDArray[np.generic], force: bool
) -> tuple[NiftiHeader, NDArray[np.generic]]:
    """Write a file whole or not at all, read it back, compare it to the last bit."""
    content = record.tobytes() + bytes(4) + stored.tobytes(order="F")
    if path.name.lower().endswith(".gz"):
        packer = zlib.compressobj(COMPRESSION, wbits=31)  # a gzip header without name or time
        content = packer.compress(content) + packer.flush()
    with replacing(path, force) as temporary:
        with temporary.open("wb") as file:
            file.write(content)
        try:
            header = read_header(temporary)
            held = read_voxels(header)
        except InputRefusedError as error:
            raise CannotWriteError(f"{path}: does not read back ({error}); check the disk") from error
        if header.dtype != stored.dtype or held.tobytes() != stored.tobytes():
            raise CannotWriteError(f"{path}: reads back differently from what was written; check the disk")
    return header, held


def make_record(
    shape: tuple[int, ...], affine: Affine, dtype: np.dtype, like: NiftiHeader | None, description: str | None
) -> Record:
    """The raw header of an output, little-endian, without scaling."""
    version = 1 if like is None else like.version
    layout = LAYOUTS[version].newbyteorder("<")
    record = np.zeros((), layout)
    if like is None:
        record["sform_code"] = record["qform_code"] = 1
        record["xyzt_units"] = 2
    else:
        record[...] = like.record.astype(layout)
        if not like.forms_agree:
            record["qform_code" if like.form == "sform" else "sform_code"] = 0
        units = int(record["xyzt_units"])
        record["xyzt_units"] = units if units & 7 in (0, 2) else units & ~7 | 2
    for name in ("intent_p", "intent_code", "slice_start", "slice_end", "slice_code", "slice_duration"):
        record[name] = 0
    record["intent_name"] = b""
    if max(shape) > np.iinfo(layout["dim"].base).max:
        raise ValueError(f"the shape {shape} does not fit NIfTI-{version}")
    record["sizeof_hdr"] = layout.itemsize
    record["magic"] = MAGIC[version]
    record["vox_offset"] = layout.itemsize + 4
    record["dim"] = [3, *shape, 1, 1, 1, 1]
    record["pixdim"] = 0
    record["datatype"] = DTYPE_CODES[dtype]
    record["bitpix"] = 8 * dtype.itemsize
    record["scl_slope"], record["scl_inter"] = 1, 0
    nifti_affine.encode(record, np.asarray(affine, np.float64), shape)
    if description is not None:
        record["descrip"] = description.encode()[:79].decode("utf-8", "ignore").encode()
    return record


def encode(
    array: NDArray[np.floating], dtype: np.dtype, record: Record, like: NiftiHeader | None
) -> NDArray[np.generic]:
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


def integer_scaling(low: float, high: float, dtype: np.dtype, kept_as: np.dtype) -> tuple[float, float]:
    """(slope, inter), exact in the header's `kept_as`, that map [low, high] onto the integers of `dtype`.

    stored = round((value - inter) / slope) clips nothing and uses the range but for what rounding slope and
    inter costs. At most 2^32 levels are used: float64 arithmetic could not tell more apart.
    """
    least = max(np.iinfo(dtype).min, -(2**31))
    most = min(np.iinfo(dtype).max, least + 2**32 - 1)
    width = max(high - low, float(np.spacing(kept_as.type(abs(low)))))
    slope = max(width / (most - least), float(np.finfo(kept_as).tiny))
    margin = 0.0
    while True:
        step = float(kept_as.type(slope * (1 + margin)))
        inter = float(kept_as.type((low + high) / 2 - step * (least + most) / 2))
        if step > 0 and round((low - inter) / step) >= least and round((high - inter) / step) <= most:
            return step, inter
        margin = max(1e-9, 2 * margin)
