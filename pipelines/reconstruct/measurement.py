"""The nouns of a reconstruction: a scan, where it lies, what it says of an image, and the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from brgm_med.corruptions import Separable, SliceProfile
from brgm_med.noise_level import NoiseLevel
from brgm_med.self_prior.error_model import ErrorModel
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.bias_field import LogBiasField
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import Normalisation
from brgm_med.transforms.refine import Refined
from brgm_med.transforms.template import Pose


@dataclass(frozen=True, eq=False)
class Scan:
    """A measured volume: `values` [1, X, Y, Z], in any units, on `grid`, each sampled as `acquisition` says.

    `noise`: its standard deviation in these units; None: to be estimated from the scan itself. `name` stands in
    messages. `stripped`: it is said to be without its skull. `surroundings` [X, Y, Z]: the constant where nothing was
    measured, NaN where it was (see `transforms.surroundings`); None: everything was. `padded`: that constant is no air,
    and `values` are other ones there. Raises ValueError where values and grid do not fit each other.
    """

    values: Tensor
    grid: Grid
    acquisition: AcquisitionModel
    noise: float | None = None
    name: str = "the scan"
    stripped: bool = False
    surroundings: Tensor | None = None
    padded: bool = False

    @property
    def measured(self) -> Tensor:
        """The samples that were measured, [X, Y, Z] bool."""
        if self.surroundings is None:
            return torch.ones(self.grid.shape, dtype=torch.bool)
        return self.surroundings.isnan()

    def __post_init__(self) -> None:
        if self.values.shape != (1, *self.grid.shape):
            raise ValueError(
                f"Scan: values {tuple(self.values.shape)} are not (1, {', '.join(map(str, self.grid.shape))})"
            )


@dataclass(frozen=True, eq=False)
class PosedScan:
    """A scan registered to the template: `pose` maps the template's world to the scan's, `normalisation` its units to
    air -1 and brain 0; `noise` as stated or estimated; `used` [X, Y, Z] bool: the samples that enter a likelihood."""

    scan: Scan
    pose: Pose
    normalisation: Normalisation
    noise: NoiseLevel
    bias_field: LogBiasField
    used: Tensor

    def normalised(self) -> Tensor:
        """The scan as the prior's head would look to it: air -1, brain 0, without its bias field."""
        factor = self.bias_field.on(self.scan.grid, self.pose).to(self.scan.values.dtype)
        return (self.normalisation.forward(self.scan.values) + 1) / factor - 1

    def denormalised(self, normalised: Tensor, grid: Grid, pose: Pose) -> Tensor:
        """The inverse of `normalised`, for an image on another `grid`, to whose world `pose` maps the template's."""
        factor = self.bias_field.on(grid, pose).to(normalised.dtype)
        return self.normalisation.inverse((normalised + 1) * factor - 1)


@dataclass(frozen=True, eq=False)
class Registration:
    """Scans of one head, registered, and the `grid` of the result, which has the first scan's axes.

    `operator`: the first scan's acquisition of an image on `grid`, exactly; `covariance`: that of the prior's own error
    there; `interpolated` [1, X, Y, Z]: the first scan on `grid`, consistent with it up to its noise; `correlation`:
    with the template.
    """

    scans: tuple[PosedScan, ...]
    grid: Grid
    operator: SliceProfile
    covariance: Separable
    interpolated: Tensor
    correlation: float

    @property
    def first(self) -> PosedScan:
        return self.scans[0]

    @property
    def pose(self) -> Pose:
        return self.first.pose

    def refined(self, fits: Sequence[Refined]) -> Registration:
        """With the pose and the bias field of each fit."""
        pairs = zip(self.scans, fits, strict=True)
        scans = tuple(dataclasses.replace(scan, pose=fit.pose, bias_field=fit.bias_field) for scan, fit in pairs)
        return dataclasses.replace(self, scans=scans)


@dataclass(frozen=True, eq=False)
class LinearMeasurement:
    """`operator` image = `values`, up to noise of standard `deviation`, for images on the grid of a result.

    `inside` (bool): samples that lie wholly on that grid, and were measured. `measured` [X, Y, Z] (bool): samples that
    were measured, None: all.
    """

    operator: nn.Module
    values: Tensor
    inside: Tensor
    deviation: float
    measured: Tensor | None = None


@dataclass(frozen=True)
class PriorWeight:
    """Weight of a prior in a reconstruction, and the reason for it, a clause.

    `name`, `sha256` and the finest detail (mm) that it can infer; `facts`: further numbers for the certificate.
    """

    name: str
    sha256: str
    finest: float
    weight: float
    reason: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """The error of a reconstruction, as its scans' own planes and validation heads say.

    `deviation` [1, X, Y, Z]: standard deviation around the image, in its units, 0 where nothing is in doubt; `noise`
    [1, X, Y, Z]: the part of it that is the scan's noise. `model`: of the errors, measured on the planes of the first
    scan with thick slices; they lie along `axis` of the image, and its voxels measure `voxel` of the planes' pixels.
    """

    deviation: Tensor
    noise: Tensor
    model: ErrorModel
    axis: int
    voxel: float
    population: Callable[[torch.Generator], Tensor] | None = None

    def half_width(self, level: float) -> Tensor:
        """Half of the interval that holds the truth of a voxel with probability `level`, [1, X, Y, Z]."""
        return self.model.quantile(level) * self.deviation


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume; images are [1, X, Y, Z] on `grid`, in the first scan's units.

    `image`: as consistent with the measurements as their noise asks; `unprojected`: before that; `prior_weight` in
    [0, 1]: how far a prior is trusted (0: interpolation alone); `measured` in [0, 1]: the measured fraction, which is
    the part of the prior's error that the scans explain (0 where there is no prior, and in constant surroundings), with
    its standard error (0: exact). `noise`: of each scan.

    `own`: the prior that the scans taught, None where it was not asked; `population`: the other, likewise. Of the
    latter are `registration` (None where the scan was not registered), `slices`, the first and last coronal slice of
    its box that were searched, and `refined`, poses and bias fields as fitted, for each scan.

    `uncertainty`: of the image, None where it was not asked for.
    """

    grid: Grid
    image: Tensor
    unprojected: Tensor
    prior_weight: Tensor
    measured: Tensor
    measured_error: float
    measurements: tuple[LinearMeasurement, ...]
    noise: tuple[NoiseLevel, ...]
    own: PriorWeight | None = None
    population: PriorWeight | None = None
    registration: Registration | None = None
    slices: tuple[int, int] | None = None
    refined: tuple[Refined, ...] = ()
    uncertainty: Uncertainty | None = None
