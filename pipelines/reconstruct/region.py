"""A region of a reconstruction: the mean intensity in it, and how sure that is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import along_axes
from brgm_med.pipelines.reconstruct.measurement import Reconstruction
from brgm_med.pipelines.reconstruct.samples import drawn_size
from brgm_med.self_prior.draws import roots


def mean_in(result: Reconstruction, region: Tensor) -> tuple[float, float]:
    """Mean of the image in a `region` [X, Y, Z] bool, and its standard deviation: of a `result` with its uncertainty.

    Errors are correlated as on the scan's own planes, and have no part in what a single scan measured: so the mean over
    a region of many slices is far surer than that of a voxel. Of several scans that part is left in, which makes the
    deviation larger than it is. Raises ValueError for an empty region.
    """
    uncertainty = result.uncertainty
    if uncertainty is None or not bool(region.any()):
        raise ValueError("mean_in: needs a result with uncertainty, and a region that is not empty")
    weights = (region.double() / region.sum())[None]
    mean = float((weights * result.image.double()).sum())
    factors = roots(uncertainty.model, result.grid.shape, uncertainty.axis, uncertainty.voxel)
    first, noise = result.measurements[0], float((weights * uncertainty.noise.double()).sum())
    left = weights
    if len(result.measurements) == 1:
        left = project(weights, first.operator, torch.zeros_like(first.values))
    spread = along_axes(drawn_size(result).double() * left, [f.T for f in factors])
    # Noise is white in the scan: over the samples that have a part in the region it averages out.
    samples = max(1.0, float(region.sum()) * first.values.numel() / region.numel())
    return mean, math.hypot(float(spread.norm()), noise / math.sqrt(samples))
