"""The raw header of a NIfTI file: its layout, byte order and codes. Needs numpy only.

Layouts: NIfTI-1 (nifti1.h, 348 bytes) and NIfTI-2 (nifti2.h, 540 bytes), https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse

Record = NDArray[Any]
Order = Literal["<", ">"]
ORDERS: tuple[Order, ...] = ("<", ">")

LAYOUTS = {
    1: np.dtype(
        "i4,S10,S18,i4,i2,S1,u1,8i2,3f4,i2,i2,i2,i2,8f4,f4,f4,f4,i2,u1,u1,f4,f4,f4,f4,i4,i4,S80,S24,i2,i2,"
        "3f4,3f4,(3,4)f4,S16,S4"
    ),
    2: np.dtype("i4,S8,i2,i2,8i8,3f8,8f8,i8,f8,f8,f8,f8,f8,f8,i8,i8,S80,S24,i4,i4,3f8,3f8,(3,4)f8,i4,i4,i4,S16,u1,S15"),
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LAYOUTS[1].names = _names(
    "sizeof_hdr data_type db_name extents session_error regular dim_info dim intent_p intent_code datatype bitpix "
    "slice_start pixdim vox_offset scl_slope scl_inter slice_end slice_code xyzt_units cal_max cal_min slice_duration "
    "toffset glmax glmin descrip aux_file qform_code sform_code quatern qoffset srow intent_name magic"
)
LAYOUTS[2].names = _names(
    "sizeof_hdr magic datatype bitpix dim intent_p pixdim vox_offset scl_slope scl_inter cal_max cal_min "
    "slice_duration toffset slice_start slice_end descrip aux_file qform_code sform_code quatern qoffset srow "
    "slice_code xyzt_units intent_code intent_name dim_info unused"
)
MAGIC = {1: b"n+1", 2: b"n+2\0\r\n\x1a\n"}
PAIR_MAGIC = {1: b"ni1", 2: b"ni2\0\r\n\x1a\n"}

_TYPES = _names("u1 i2 i4 f4 f8 i1 u2 u4 i8 u8")
DTYPES = dict(zip((2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280), _TYPES, strict=True))
DTYPE_CODES = {np.dtype(name): code for code, name in DTYPES.items()}
REFUSED_DTYPES = {0: "of unknown type", 1: "single bits", 1536: "128-bit floats", 128: "RGB colours"}
REFUSED_DTYPES |= {32: "complex", 1792: "complex", 2048: "complex", 2304: "RGBA colours"}

UNIT_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Length in mm of the space units unknown (taken as mm), metre, millimetre, micron."""


@dataclass(frozen=True, eq=False)
class NiftiRecord:
    """A NIfTI file's own part of its header, from which that of an output is made.

    `fields`: the raw header, in native byte order, of NIfTI-`version`. `offset`: where the voxels begin in the
    (uncompressed) content. `forms_agree` is False where the form that was not chosen says something else.
    """

    version: int
    fields: Record
    offset: int
    forms_agree: bool

    @property
    def description(self) -> str:
        return self.fields["descrip"].item().decode("utf-8", "replace")


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
