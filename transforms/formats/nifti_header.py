"""A NIfTI header, read strictly. Needs numpy only, so that a bad file is refused before anything heavy loads."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from brgm_med.errors import refuse
from brgm_med.files import start_of
from brgm_med.transforms.formats import nifti_affine, nifti_record
from brgm_med.transforms.formats.affine import AffineProblem
from brgm_med.transforms.formats.header import Header
from brgm_med.transforms.formats.nifti_record import NiftiRecord, Order, Record

MAX_VOXELS = 2**30
MAX_BYTES = 2**32
MAX_DEFLATE = 1032
"""No deflate stream expands by more than this."""
LARGE_BYTES, LARGE_DEFLATE = 2**28, 256
"""An image that claims more bytes than the first is not believed to be deflated by more than the second."""


def is_gzip(start: bytes) -> bool:
    return start[:2] == b"\x1f\x8b"


def read_start(path: Path) -> tuple[bytes, int, bool]:
    """The first 540 bytes of the content, the file's size, and whether it is compressed."""
    start, size = start_of(path, 1 << 16, "give a NIfTI file")
    if not is_gzip(start):
        return start[:540], size, False
    try:
        return zlib.decompressobj(31).decompress(start, 540), size, True
    except zlib.error:
        refuse(path, "its gzip stream is damaged", "copy or export it again")


def parse_shape(path: Path, record: Record) -> tuple[int, int, int]:
    """(X, Y, Z)."""
    ndim, *dims = (int(n) for n in record["dim"])
    if not 1 <= ndim <= 7:
        refuse(path, f"its header declares {ndim} dimensions", "it is damaged: export it again")
    dims = dims[:ndim]
    said = " x ".join(map(str, dims))
    if any(n <= 0 for n in dims):
        refuse(path, f"its header declares the dimensions {said}", "it is damaged: export it again")
    volumes = int(np.prod(dims[3:], dtype=object))
    if volumes > 1:
        refuse(path, f"holds {volumes} volumes ({said})", "extract the one that is meant")
    if ndim < 3:
        refuse(path, f"is an image of {ndim} dimensions ({said})", "give a volume")
    if int(np.prod(dims, dtype=object)) > MAX_VOXELS:
        refuse(path, f"its header declares absurd dimensions ({said})", "give a volume of at most 2^30 voxels")
    return dims[0], dims[1], dims[2]


def parse_dtype(path: Path, record: Record, order: Order) -> np.dtype:
    """The stored voxels' type, with the file's byte order."""
    code = int(record["datatype"])
    if code in nifti_record.REFUSED_DTYPES:
        refuse(path, f"its voxels are {nifti_record.REFUSED_DTYPES[code]}", "give real numbers, one per voxel")
    if code not in nifti_record.DTYPES:
        refuse(path, f"its voxels have the unknown type {code}", "it is damaged: export it again")
    dtype = np.dtype(nifti_record.DTYPES[code]).newbyteorder(order)
    if int(record["bitpix"]) != 8 * dtype.itemsize:
        refuse(path, "its header's datatype and bitpix disagree", "it is damaged: export it again")
    return dtype


def parse_scaling(path: Path, record: Record) -> tuple[float, float]:
    """Slope and intercept. A slope of 0 (the standard) or NaN (nibabel's mark for "not set") means none."""
    slope, inter = float(record["scl_slope"]), float(record["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite([slope, inter]).all():
        refuse(path, f"its intensity scaling is not finite ({slope:g}, {inter:g})", "export it again")
    return slope, inter


def check_size(path: Path, size: int, gzipped: bool, offset: int, nbytes: int) -> None:
    """Refuse, before reading voxels, a header that declares more, or in a plain file less, than is there."""
    end = offset + nbytes
    deflate = LARGE_DEFLATE if nbytes > LARGE_BYTES else MAX_DEFLATE
    if end > (size * deflate if gzipped else size):
        refuse(
            path,
            f"its header declares {nbytes} bytes of voxels, more than a file of {size} bytes can hold",
            "it is truncated or damaged: copy or export it again",
        )
    if nbytes > MAX_BYTES:
        refuse(path, f"its header declares {nbytes} bytes of voxels", "give a volume of at most 4 GiB")
    if not gzipped and end < size:
        refuse(path, f"{size - end} bytes follow the voxels that its header declares", "export it again")


def read_header(path: Path | str, choice: str = "auto") -> Header:
    """The header of the single-file NIfTI-1 or NIfTI-2 at `path`, plain or gzip-compressed.

    `choice` says which form gives the affine; "auto" takes the sform, else the qform, and refuses two that
    put a corner more than 0.1 mm apart. Metres and microns are converted to mm; unknown units are taken as
    mm. Raises InputRefusedError.
    """
    path = Path(path)
    start, size, gzipped = read_start(path)
    record, version, order = nifti_record.parse_record(path, start)
    shape = parse_shape(path, record)
    dtype = parse_dtype(path, record, order)
    offset = float(record["vox_offset"])
    if not (offset.is_integer() and nifti_record.LAYOUTS[version].itemsize <= offset < MAX_BYTES):
        refuse(path, f"its header puts the voxels at byte {offset:g}", "it is damaged: export it again")
    slope, inter = parse_scaling(path, record)
    unit = nifti_record.UNIT_MM.get(int(record["xyzt_units"]) & 7)
    if unit is None:
        refuse(path, "its header's unit of length is unknown", "it is damaged: export it again")
    check_size(path, size, gzipped, int(offset), int(np.prod(shape, dtype=object)) * dtype.itemsize)
    try:
        affine, form, agree = nifti_affine.choose(record, unit, shape, choice)
    except AffineProblem as problem:
        advice = "correct the header"
        if choice == "auto" and min(record["sform_code"], record["qform_code"]) > 0:
            advice = "choose the sound one with --affine sform or --affine qform"
        refuse(path, f"its header {problem}", advice)
    own = NiftiRecord(version, record, int(offset), agree)
    return Header(path, shape, affine, form, dtype, slope, inter, nifti=own)
