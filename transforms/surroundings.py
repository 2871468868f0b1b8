"""Constant surroundings of a scan: air or a skull that was set to 0, and padding outside a resampled field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from brgm_med.transforms.geometry import Grid

LEAST_FACES, LEAST_VOLUME = 0.05, 0.002
"""Least part of the voxels on a scan's outer faces, and of all, that one constant has to fill."""

MOST_LEVELS = 3

FAR = 0.2
"""A constant is no air where it lies this part of the range of what the scan measured (1st to 99th percentile) away
from its darkest. But 0 below magnitudes is: a stripped brain has no dark rim."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """`values` [X, Y, Z]: the constant where a scan measured nothing, NaN where it did.

    `padding`: the part of all voxels whose constant is no level of air, such as -1000 around a head in MR; `level`:
    that constant; None: there is none.
    """

    values: NDArray[np.float32]
    padding: float
    level: float | None

    @property
    def measured(self) -> NDArray[np.bool_]:
        """The voxels [X, Y, Z] that were measured."""
        return np.isnan(self.values)


def surroundings(values: NDArray[np.float32], stripped: bool = False) -> Surroundings | None:
    """Constants of a scan [X, Y, Z] that reach its border, voxel by neighbouring voxel; None: there are none.

    A constant that no corner of the scan has is part of the image: what is saturated, for one. Of magnitudes that are 0
    there, every 0: what was taken away with a skull is not all in one piece.

    `stripped`: the scan is said to be without its skull; then a small part of the border is enough.
    """
    faces = [values.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
    levels, counts = np.unique(np.concatenate(faces), return_counts=True)
    cornered = np.isin(levels, values[np.ix_((0, -1), (0, -1), (0, -1))])
    levels, counts, every = levels[cornered], counts[cornered], counts.sum()
    regions: dict[float, NDArray[np.bool_]] = {}
    for number in np.argsort(-counts)[:MOST_LEVELS]:
        region = _from_border(values == levels[number])
        few = counts[number] < LEAST_FACES * every or region.mean() < LEAST_VOLUME
        if not few or (stripped and not regions):
            regions[float(levels[number])] = region
    inner = values[~np.logical_or.reduce(list(regions.values()))] if regions else values[:0]
    if not inner.size:
        return None
    low, high = np.percentile(inner, [1, 99])
    result, odd, strange = np.full(values.shape, np.nan, np.float32), 0.0, None
    for level, region in regions.items():
        lowest = level <= inner.min()
        air = lowest and (level == 0 or low - level <= FAR * (high - low))
        if not air and abs(level - low) <= FAR * (high - low):
            continue  # as dark as what is around it: part of the image
        result[values == 0 if air and level == 0 else region] = level  # a mean of magnitudes that is 0 holds nothing
        if not air:
            odd, strange = odd + float(region.mean()), level
    return None if np.isnan(result).all() else Surroundings(result, odd, strange)


def without_padding(values: NDArray[np.float32], around: Surroundings, grid: Grid) -> NDArray[np.float32]:
    """A scan whose constants are no air, with the nearest measured value (by distance in mm) in their place."""
    nearest = ndi.distance_transform_edt(
        ~around.measured, sampling=grid.spacing, return_distances=False, return_indices=True
    )
    return np.asarray(values[tuple(nearest)])


def _from_border(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a region [X, Y, Z] that reach the border."""
    labels, _ = ndi.label(region)
    ends = [labels.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
    touching = np.unique(np.concatenate(ends))
    return np.isin(labels, touching[touching > 0])
