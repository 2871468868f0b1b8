"""A NIfTI header, read strictly. Needs numpy only, so that a bad file is refused before anything heavy loads.

Layouts: NIfTI-1 (nifti1.h, 348 bytes) and NIfTI-2 (nifti2.h, 540 bytes), https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from brgm_med.errors import refuse
from brgm_med.transforms.formats import nifti_affine
from brgm_med.transforms.formats.nifti_affine import Affine, AffineProblem, Choice, Record

LAYOUTS = {
    1: np.dtype(
        "i4,S10,S18,i4,i2,S1,u1,8i2,3f4,i2,i2,i2,i2,8f4,f4,f4,f4,i2,u1,u1,f4,f4,f4,f4,i4,i4,S80,S24,i2,i2,"
        "3f4,3f4,(3,4)f4,S16,S4"
    ),
    2: np.dtype("i4,S8,i2,i2,8i8,3f8,8f8,i8,f8,f8,f8,f8,f8,f8,i8,i8,S80,S24,i4,i4,3f8,3f8,(3,4)f8,i4,i4,i4,S16,u1,S15"),
}
LAYOUTS[1].names = (
    *("sizeof_hdr", "data_type", "db_name", "extents", "session_error", "regular", "dim_info", "dim"),
    *("intent_p", "intent_code", "datatype", "bitpix", "slice_start", "pixdim", "vox_offset", "scl_slope"),
    *(
        "scl_inter",
        "slice_end",
        "slice_code",
        "xyzt_units",
        "cal_max",
        "cal_min",
        "slice_duration",
        "toffset",
    ),
    *("glmax", "glmin", "descrip", "aux_file", "qform_code", "sform_code", "quatern", "qoffset", "srow"),
    *("intent_name", "magic"),
)
LAYOUTS[2].names = (
    *("sizeof_hdr", "magic", "datatype", "bitpix", "dim", "intent_p", "pixdim", "vox_offset", "scl_slope"),
    *("scl_inter", "cal_max", "cal_min", "slice_duration", "toffset", "slice_start", "slice_end", "descrip"),
    *("aux_file", "qform_code", "sform_code", "quatern", "qoffset", "srow", "slice_code", "xyzt_units"),
    *("intent_code", "intent_name", "dim_info", "unused"),
)
MAGIC = {1: b"n+1", 2: b"n+2\0\r\n\x1a\n"}
PAIR_MAGIC = {1: b"ni1", 2: b"ni2\0\r\n\x1a\n"}

DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
DTYPE_CODES = {np.dtype(name): code for code, name in DTYPES.items()}
REFUSED_DTYPES = {
    0: "of unknown type",
    1: "single bits",
    1536: "128-bit floats",
    32: "complex",
    1792: "complex",
    2048: "complex",
    128: "RGB colours",
    2304: "RGBA colours",
}
Order = Literal["<", ">"]
ORDERS: tuple[Order, ...] = ("<", ">")

UNIT_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Length in mm of the space units unknown (taken as mm), metre, millimetre, micron."""

MAX_VOXELS = 2**30
MAX_BYTES = 2**32
MAX_DEFLATE = 1032
"""No deflate stream expands by more than this."""
LARGE_BYTES, LARGE_DEFLATE = 2**28, 256
"""An image that claims more bytes than the first is not believed to be deflated by more than the second."""


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What the header of a NIfTI file says, checked.

    `shape` is (X, Y, Z); `dtype` the stored voxels' type with its byte order; `offset` where they begin in
    the (uncompressed) content; value = slope * stored + inter; `affine` [4, 4] index -> world RAS mm, from
    `form` ("sform" or "qform"); `forms_agree` is False where the other form says something else. `record` is
    the raw header, from which an output's header is made.
    """

    path: Path
    version: int
    record: Record
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    affine: Affine
    form: str
    forms_agree: bool

    @property
    def nbytes(self) -> int:
        """Bytes of voxels that the header declares."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def description(self) -> str:
        return self.record["descrip"].item().decode("utf-8", "replace")


def is_gzip(start: bytes) -> bool:
    return start[:2] == b"\x1f\x8b"


def read_start(path: Path) -> tuple[bytes, int, bool]:
    """The first 540 bytes of the content, the file's size, and whether it is compressed."""
    try:
        if path.is_dir():
            refuse(path, "is a folder", "give a NIfTI file")
        if not path.exists():
            refuse(path, "no such file", "check the name")
        if not path.is_file():
            refuse(path, "is not a regular file", "give a NIfTI file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(1 << 16)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", "check the name and the permissions")
    if not is_gzip(start):
        return start[:540], size, False
    try:
        return zlib.decompressobj(31).decompress(start, 540), size, True
    except zlib.error:
        refuse(path, "its gzip stream is damaged", "copy or export it again")


def parse_record(path: Path, start: bytes) -> tuple[Record, int, Order]:
    """The raw header in native byte order, the NIfTI version, and the byte order of the file ("<" or ">")."""
    for version, layout in LAYOUTS.items():
        for order in ORDERS:
            if len(start) < 4 or int(np.frombuffer(start, f"{order}i4", 1)[0]) != layout.itemsize:
                continue
            if len(start) < layout.itemsize:
                refuse(path, "ends inside its header", "it is truncated: copy or export it again")
            record = np.frombuffer(start, layout.newbyteorder(order), 1).astype(layout)[0:1].reshape(())
            magic = record["magic"].item()
            if magic == PAIR_MAGIC[version]:
                refuse(path, "is half of a .hdr/.img pair", "convert the pair to one .nii file")
            if magic == MAGIC[version]:
                return record, version, order
            refuse(path, "has an Analyze or damaged header, not NIfTI's", "convert it to .nii")
    return refuse(path, "is not a NIfTI file", "convert it to .nii or .nii.gz")


def parse_shape(path: Path, record: Record) -> tuple[int, int, int]:
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
    code = int(record["datatype"])
    if code in REFUSED_DTYPES:
        refuse(path, f"its voxels are {REFUSED_DTYPES[code]}", "give real numbers, one per voxel")
    if code not in DTYPES:
        refuse(path, f"its voxels have the unknown type {code}", "it is damaged: export it again")
    dtype = np.dtype(DTYPES[code]).newbyteorder(order)
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
    most = size
    if gzipped:
        most = size * (LARGE_DEFLATE if nbytes > LARGE_BYTES else MAX_DEFLATE)
    if end > most:
        refuse(
            path,
            f"its header declares {nbytes} bytes of voxels, more than a file of {size} bytes can hold",
            "it is truncated or damaged: copy or export it again",
        )
    if nbytes > MAX_BYTES:
        refuse(path, f"its header declares {nbytes} bytes of voxels", "give a volume of at most 4 GiB")
    if not gzipped and end < size:
        refuse(path, f"{size - end} bytes follow the voxels that its header declares", "export it again")


def read_header(path: Path, choice: Choice = "auto") -> NiftiHeader:
    """The header of the single-file NIfTI-1 or NIfTI-2 at `path`, plain or gzip-compressed.

    `choice` says which form gives the affine; "auto" takes the sform, else the qform, and refuses two that
    put a corner more than 0.1 mm apart. Metres and microns are converted to mm; unknown units are taken as
    mm. Raises InputRefusedError.
    """
    start, size, gzipped = read_start(path)
    record, version, order = parse_record(path, start)
    shape = parse_shape(path, record)
    dtype = parse_dtype(path, record, order)
    where = float(record["vox_offset"])
    if not (where.is_integer() and LAYOUTS[version].itemsize <= where < MAX_BYTES):
        refuse(path, f"its header puts the voxels at byte {where:g}", "it is damaged: export it again")
    slope, inter = parse_scaling(path, record)
    unit = UNIT_MM.get(int(record["xyzt_units"]) & 7)
    if unit is None:
        refuse(path, "its header's unit of length is unknown", "it is damaged: export it again")
    check_size(path, size, gzipped, int(where), int(np.prod(shape, dtype=object)) * dtype.itemsize)
    try:
        affine, form, agree = nifti_affine.choose(record, unit, shape, choice)
    except AffineProblem as problem:
        advice = "correct the header"
        if choice == "auto" and min(record["sform_code"], record["qform_code"]) > 0:
            advice = "choose the sound one with --affine sform or --affine qform"
        refuse(path, f"its header {problem}", advice)
    return NiftiHeader(path, version, record, shape, dtype, int(where), slope, inter, affine, form, agree)
