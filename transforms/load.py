"""A scan's file in, a MetaTensor out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform

from brgm_med.transforms import formats
from brgm_med.transforms.formats.beside import metadata_beside
from brgm_med.transforms.keyed import Keyed


@dataclass(eq=False)
class LoadScan(Transform):
    """Read a scan strictly: path -> MetaTensor [1, X, Y, Z], float32; affine float64 (index -> world RAS mm).

    DICOM (a folder, DICOMDIR, zip or file of slices) comes in the order of positions, [1, columns, rows, slices], and
    `series` chooses one of several volumes (see `dicom.series.the_series`). `affine` chooses between a NIfTI file's
    "sform" and "qform"; "auto" refuses two that disagree by more than 0.1 mm at a corner. `meta` keeps facts of the
    header to look at (`dtype`, `slope`, `inter`; of NIfTI `sform_code`, `qform_code`, `description`), whether the JSON
    file beside the scan says that it is without its skull (BIDS's `SkullStripped`), and, for `SaveScan`, which file,
    form and series it came from (`filename_or_obj`, `form`, `series` where one was chosen). Raises InputRefusedError as
    the format's `read` does, and for a damaged JSON file.
    """

    affine: str = "auto"
    series: str | None = None

    def __call__(self, path: Path | str) -> MetaTensor:
        scan = formats.for_reading(path, series=self.series).read(path, self.affine)
        header = scan.header
        meta: dict[str, Any] = {
            "filename_or_obj": str(path),
            "form": header.form,
            "dtype": header.dtype.newbyteorder("=").name,
            "slope": header.slope,
            "inter": header.inter,
            "space": "RAS",
            "SkullStripped": metadata_beside(Path(path)).get("SkullStripped") is True,
        } | ({} if self.series is None else {"series": self.series})
        if header.nifti is not None:
            meta |= {name: int(header.nifti.fields[name]) for name in ("sform_code", "qform_code")}
            meta["description"] = header.nifti.description
        return MetaTensor(torch.from_numpy(scan.array)[None], affine=torch.from_numpy(scan.affine), meta=meta)


class LoadScand(Keyed):
    """`LoadScan` for the paths under `keys` of a dictionary."""

    def __init__(
        self, keys: KeysCollection, affine: str = "auto", allow_missing_keys: bool = False, series: str | None = None
    ) -> None:
        super().__init__(keys, LoadScan(affine, series), allow_missing_keys)
