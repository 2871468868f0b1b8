"""The uncertainty of a reconstruction by the scans' own prior: deviation, intervals, expected PSNR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.noise_level import thinned
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan, Uncertainty
from brgm_med.pipelines.reconstruct.own import Taught, acquisition, slice_axis
from brgm_med.pipelines.reconstruct.registration import error_covariance
from brgm_med.search import HEADS, HEADS_RMS
from brgm_med.self_prior.error_model import TISSUE, ErrorModel
from brgm_med.self_prior.thick_axis import ThickAxis
from brgm_med.separable import SeparableSystem
from brgm_med.transforms.geometry import Grid


def uncertainty_of(scans: Sequence[Scan], taught: Taught, result: Reconstruction) -> Uncertainty:
    """Of a `result` of `scans`, whose prior was `taught`.

    Further scans shrink the variance as they shrink the part of the prior's that is left, 1 - measured fraction.
    """
    grid, prior, first = result.grid, taught.priors[0], first_thick(scans)
    scan = scans[first]
    model = ErrorModel.of(prior, scan.values[0].float())
    axis = grid.index_axis(scan.grid.world_axis(slice_axis(scan)))
    step = scan.grid.spacing[slice_axis(scan)] / grid.spacing[axis]
    detail = (taught.image - taught.base)[0] / prior.gain
    deviation = HEADS * model.deviation(taught.base[0], detail, axis, step)[None]
    if len(scans) > 1 and first == 0:
        covariance = error_covariance(grid)
        alone = SeparableSystem.of(
            scan.acquisition.corruption(grid, scan.grid), covariance, grid.shape
        ).measured_fraction(0.0)[None]
        left = (1 - result.measured) / (1 - alone).clamp(min=1e-3)
        deviation = deviation * left.clamp(0, 1).sqrt()
    noise = noise_in(scans[0], grid) * taught.noise[0].deviation
    noise = noise.to(deviation).expand_as(deviation)
    return Uncertainty(deviation.hypot(noise), noise, model, axis, grid.spacing[axis] / prior.acquisition.pixel)


def first_thick(scans: Sequence[Scan]) -> int:
    """Number of the first scan with thick slices. Raises InputRefusedError where none has."""
    for number, scan in enumerate(scans):
        try:
            acquisition(scan)
        except InputRefusedError:
            if number == len(scans) - 1:
                raise
        else:
            return number
    raise ValueError("first_thick: no scans")


def interpolation_of(scan: Scan, grid: Grid) -> tuple[Tensor | None, ...]:
    """Consistent interpolation of a scan onto `grid`, a matrix [n, n'] for each axis, None where both agree."""
    matrices: list[Tensor | None] = []
    for a, matrix in enumerate(scan.acquisition.corruption(grid, scan.grid).matrices):
        step, thickness = (size / grid.spacing[a] for size in (scan.grid.spacing[a], scan.acquisition.thickness[a]))
        axis = ThickAxis(grid.shape[a], scan.grid.shape[a], step, thickness, scan.acquisition.profile_along(a))
        matrices.append(None if matrix is None else axis.base)
    return tuple(matrices)


def noise_in(scan: Scan, grid: Grid) -> Tensor:
    """Standard deviation of an image on `grid` that keeps every value of a scan, for white noise of 1 in the scan,
    [1, X, Y, Z]; axes on which it does not depend have length 1."""
    result = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for a, matrix in enumerate(interpolation_of(scan, grid)):
        if matrix is not None:
            part = matrix.square().sum(1).sqrt()
            result = result * part.reshape([1, *(-1 if b == a else 1 for b in range(3))])
    return result


def expected_psnr(result: Reconstruction) -> tuple[float, float, float]:
    """PSNR (dB) against the truth as it is to be expected, and the bounds within which nine of ten heads lie.

    Over voxels of tissue, on the range from the image's 0.5th to its 99.5th percentile there.
    """
    uncertainty = result.uncertainty
    assert uncertainty is not None
    tissue = uncertainty.model.normalisation(result.image) > TISSUE
    low, high = torch.quantile(
        thinned(result.image[tissue]).double(), torch.tensor([0.005, 0.995], dtype=torch.float64)
    ).tolist()
    error = math.sqrt(float(uncertainty.deviation[tissue].double().square().mean()))
    psnr = 20 * math.log10((high - low) / (error * HEADS_RMS[0]))
    return psnr, psnr - HEADS_RMS[1], psnr + HEADS_RMS[1]
