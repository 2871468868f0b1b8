"""A MetaTensor in, a scan's file out, with the conventions of the scan it was made from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple

from brgm_med.transforms import formats
from brgm_med.transforms.formats.nifti import OutputType


@dataclass(eq=False)
class SaveScan(Transform):
    """Write a MetaTensor [1, X, Y, Z] to `path`, atomically, and give back the voxels that the file holds.

    The header is made from that of `like`, read again from its file; where `like` is None, from the file that
    the tensor says it was loaded from (`meta["filename_or_obj"]`), and from nothing where it names none.
    `affine` says which form of `like` was used ("auto": the one that the tensor was loaded by). `dtype` is
    "float32", or "source" for the type of `like`: integers are then scaled so that nothing is clipped. The
    result is float32, or float64 where integers were written. Raises InputRefusedError for an existing `path`
    without `force`, CannotWriteError, ValueError for values that are not finite; see `formats.nifti.write`.
    """

    path: Path | str
    like: Path | str | None = None
    _: KW_ONLY
    affine: str = "auto"
    dtype: OutputType = "float32"
    description: str | None = None
    force: bool = False

    def __call__(self, image: MetaTensor) -> MetaTensor:
        if not isinstance(image, MetaTensor) or image.ndim != 4 or image.shape[0] != 1:
            raise ValueError(f"a MetaTensor [1, X, Y, Z] is needed, not {type(image).__name__} {[*image.shape]}")
        own = image.meta.get("filename_or_obj")
        source = own if self.like is None else str(self.like)
        form = image.meta.get("form", "auto") if self.affine == "auto" and source == own else self.affine
        series = image.meta.get("series") if source == own else None
        header = None if source is None else formats.for_reading(source, series=series).read_header(Path(source), form)
        written = formats.for_writing(self.path).write(
            self.path,
            image.as_tensor()[0].detach().cpu().numpy(),
            image.affine.to(torch.float64).cpu().numpy(),
            header,
            self.dtype,
            self.description,
            self.force,
        )
        return MetaTensor(torch.from_numpy(written.copy(order="C"))[None], meta=image.meta)


class SaveScand(MapTransform):
    """`SaveScan` for the images under `keys`; each one's path lies under its partner in `path_keys`.

    The images are replaced by what the files hold.
    """

    def __init__(
        self,
        keys: KeysCollection,
        path_keys: KeysCollection,
        *,
        dtype: OutputType = "float32",
        description: str | None = None,
        force: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.path_keys = ensure_tuple(path_keys)
        if len(self.path_keys) != len(self.keys):
            raise ValueError(f"{len(self.keys)} keys need as many path_keys, not {len(self.path_keys)}")
        self.save = partial(SaveScan, dtype=dtype, description=description, force=force)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key, path_key in self.key_iterator(result, self.path_keys):
            result[key] = self.save(data[path_key])(data[key])
        return result
