"""Super-resolution as MONAI transforms: an image with its affine in, a finer one with its affine out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Transform

from brgm_med.corruptions import Profile
from brgm_med.errors import UsageError
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
from brgm_med.priors import AUTO, SELF, population
from brgm_med.priors.bundle import load
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.keyed import Keyed
from brgm_med.transforms.meta import grid_of, like


@dataclass(eq=False, kw_only=True)
class SuperResolve(Transform):
    """Super-resolve a scan, as `brgm-med sr` does: MetaTensor [1, X, Y, Z] -> MetaTensor [1, X', Y', Z'], float32.

    Affines are index -> world RAS mm; the result has its own, and all other metadata of the scan. Where `SkullStripped`
    is True among these (`LoadScan` reads it), the scan is taken to be without its skull.

    thickness: of the slices, mm; None: their spacing.
    profile: of the slices, "box", "gaussian" or "trapezoid".
    axis: the slice axis, "R", "A" or "S"; None: that of the largest spacing.
    prior: "self": the one that the scan's own planes teach; name or folder of a population prior, which then
        reconstructs alone; "auto": the scan's own, and the shipped population prior as far as it knows such scans.
    spacing: of the result, mm; None: the finest of the scan, and of a population prior that has a weight.
    noise: standard deviation in the scan's units; None: estimated.
    steps: of the MAP search; learning from the scan shortens in proportion. None: `search.VOLUME`.
    seed: of the learning.
    device: of the MAP search.

    Deterministic. Raises UsageError for images that are no such MetaTensor and as `AcquisitionModel.from_flags` does,
    InputRefusedError as `reconstruct_volume` does.
    """

    thickness: float | None = None
    profile: Profile | None = None
    axis: Literal["R", "A", "S"] | None = None
    prior: str = AUTO
    spacing: float | None = None
    noise: float | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"

    def __call__(self, image: MetaTensor) -> MetaTensor:
        if not isinstance(image, MetaTensor) or image.ndim != 4 or len(image) != 1:
            raise UsageError(f"SuperResolve: takes a MetaTensor [1, X, Y, Z] with its affine, not {_described(image)}")
        grid, known = grid_of(image), population(self.prior)
        values = image.as_tensor().to("cpu", torch.float32)
        name = str(image.meta.get("filename_or_obj", "the scan"))
        stripped = image.meta.get("SkullStripped") is True
        scan = Scan(values, grid, self.acquisition(grid), self.noise, name, stripped)
        result = reconstruct_volume(
            scan,
            None if known is None else load(known),
            own=self.prior in (AUTO, SELF),
            search=VOLUME.limited_to(self.steps),
            spacing=self.spacing,
            device=self.device,
            seed=self.seed,
        )
        return like(image, result.image.float(), result.grid.affine)

    def acquisition(self, grid: Grid) -> AcquisitionModel:
        """The acquisition of a scan on `grid`, as stated; else every sample averages its own voxel."""
        if self.thickness is None and self.profile is None and self.axis is None:
            return AcquisitionModel.from_header(grid)
        return AcquisitionModel.from_flags(grid, self.thickness, None, self.profile or "box", self.axis)


def _described(image: object) -> str:
    return f"{type(image).__name__} {list(image.shape) if isinstance(image, torch.Tensor) else ''}".strip()


class SuperResolved(Keyed):
    """`SuperResolve` for the images under `keys` of a dictionary; `options` are its parameters."""

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False, **options: Any) -> None:
        super().__init__(keys, SuperResolve(**options), allow_missing_keys)
