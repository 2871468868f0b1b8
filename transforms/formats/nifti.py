"""NIfTI volumes, read strictly and written atomically. Needs numpy (and, to write, scipy); never torch."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med.files import reading_back, replacing
from brgm_med.transforms.formats import affine as affines
from brgm_med.transforms.formats import nifti_affine
from brgm_med.transforms.formats.affine import Affine
from brgm_med.transforms.formats.header import Header, Volume
from brgm_med.transforms.formats.nifti_header import read_header
from brgm_med.transforms.formats.nifti_record import DTYPE_CODES, LAYOUTS, MAGIC, Record
from brgm_med.transforms.formats.nifti_voxels import encode, read_voxels

OutputType = Literal["float32", "source"]
KIND: Literal["volume"] = "volume"
ENDINGS = (".nii", ".nii.gz")
MM, SECONDS = 2, 8
"""Codes of units."""

COMPRESSION = 1
"""Higher levels take several times as long and make voxels hardly smaller."""


def read(path: Path | str, affine: str = "auto") -> Volume:
    """Read one volume, refusing everything that could be misunderstood.

    `affine` chooses between sform and qform; "auto" takes the sform, else the qform, and refuses two that
    put a corner more than 0.1 mm apart. 4-D files with one volume are squeezed. Raises InputRefusedError for
    a file that is missing, not single-file NIfTI, truncated, damaged (gzip CRC), or longer than its header
    says; for voxels that are NaN, infinite, beyond float32, all equal, RGB or complex; for more than one
    volume; and for an affine that is absent, singular, sheared or ambiguous.
    """
    return Volume.of(*read_stored(path, affine))


def read_stored(path: Path | str, affine: str = "auto") -> tuple[Header, NDArray[np.generic]]:
    """The header and the stored voxels [X, Y, Z], before scaling, whatever they hold: NaN and constants too.

    Raises InputRefusedError as `read` does, but for what it says of voxel values.
    """
    header = read_header(path, affine)
    return header, read_voxels(header)


def write(
    path: Path | str,
    array: NDArray[np.floating],
    affine: Affine,
    like: Header | None = None,
    dtype: OutputType = "float32",
    description: str | None = None,
    force: bool = False,
    display: tuple[float, float] | None = None,
    conventional: bool = False,
) -> NDArray[np.floating]:
    """Write `array` [X, Y, Z] with `affine` (index -> world RAS mm) and give it back as the file holds it.

    `like` is the header of the scan that it was made from: version, sform and qform codes, units and
    everything else are kept; intent, slice timing and extensions are cleared, metres and microns become mm,
    and a form that disagreed with the chosen one is marked absent. `description` (cut to 79 bytes) replaces
    the source's, and `display`, the values to be shown as black and white, its cal_min and cal_max. `dtype`
    "source" keeps the source's type: integers get the source's own scaling where that holds every value
    exactly, else a slope and intercept that clip nothing and use the whole range, so the error is at most half
    a step (the slope). `conventional`: the forms and units are those that other tools expect of a new grid, see
    `_make_conventional`. The result is float32 or float64 for floats, float64 for integers.

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
    affines.check(np.asarray(affine, np.float64), array.shape)
    target = np.dtype("f4") if dtype == "float32" or like is None else like.dtype.newbyteorder("=")
    record = make_record(array.shape, affine, target, like, description)
    if conventional:
        _make_conventional(record, np.asarray(affine, np.float64), array.shape)
    stored = encode(array, target, record, like)
    if display is not None:
        record["cal_min"], record["cal_max"] = display
    header, written = _put(path, record, stored, force)
    return header.decode(written)


def write_stored(
    path: Path | str, stored: NDArray[np.generic], like: Header, description: str, force: bool = False
) -> NDArray[np.generic]:
    """Write voxels `stored` [X, Y, Z] as they are, of `like`'s type, with its grid and its scaling to the last bit.

    As `write` in everything else; gives the stored voxels back as the file holds them. Raises ValueError for voxels of
    another shape or type than `like`'s.
    """
    path = Path(path)
    if stored.shape != like.shape or stored.dtype.newbyteorder("=") != like.dtype.newbyteorder("="):
        raise ValueError(f"voxels {stored.shape} {stored.dtype} are not like {like.shape} {like.dtype}")
    record = make_record(like.shape, like.affine, like.dtype.newbyteorder("="), like, description)
    if like.nifti is None:
        record["scl_slope"], record["scl_inter"] = like.slope, like.inter
    else:
        for name in ("scl_slope", "scl_inter", "cal_max", "cal_min"):
            record[name] = like.nifti.fields[name]
    return _put(path, record, stored.astype(like.dtype.newbyteorder("<")), force)[1]


def _put(path: Path, record: Record, stored: NDArray[np.generic], force: bool) -> tuple[Header, NDArray[np.generic]]:
    """Write a file whole or not at all, read it back, compare it to the last bit."""
    content = record.tobytes() + bytes(4) + stored.tobytes(order="F")
    if path.name.lower().endswith(".gz"):
        content = zlib.compress(content, COMPRESSION, wbits=31)  # a gzip header without name or time
    with replacing(path, force) as temporary:
        with temporary.open("wb") as file:
            file.write(content)
        with reading_back(path) as check:
            header, written = read_stored(temporary)
            check(header.dtype == stored.dtype and written.tobytes() == stored.tobytes())
    return header, written


def _make_conventional(record: Record, affine: Affine, shape: tuple[int, ...]) -> None:
    """Header of a new grid as dcm2niix, FreeSurfer and FSL write it: `affine` in sform and qform, of one code (that of
    the form which was there), and units of mm and seconds."""
    code = max(int(record["sform_code"]), int(record["qform_code"]))
    for name in ("sform_code", "qform_code"):
        record[name] = int(record[name]) or code
    nifti_affine.encode(record, affine, shape)
    record["xyzt_units"] = MM | (int(record["xyzt_units"]) & ~7 or SECONDS)


def make_record(
    shape: tuple[int, ...], affine: Affine, dtype: np.dtype, like: Header | None, description: str | None
) -> Record:
    """The raw header of an output, little-endian, without scaling."""
    own = None if like is None else like.nifti
    version = 1 if own is None else own.version
    layout = LAYOUTS[version].newbyteorder("<")
    record = np.zeros((), layout)
    if like is None or own is None:
        record["sform_code"] = record["qform_code"] = 1
        record["xyzt_units"] = 2
    else:
        record[...] = own.fields.astype(layout)
        if not own.forms_agree:
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
