"""Signs that a scan's header does not say how it was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brgm_med.transforms.acquire import WORLD, AcquisitionModel
from brgm_med.transforms.geometry import Grid

SMOOTH = 0.32
"""Mean square of first differences over that of second-neighbour differences: 1/4 for what is smooth, about 1/2 for
heads as scanned (0.50 to 0.61 on six at 2 mm); 0.25 to 0.31 where slices were interpolated to twice as many or more."""

ROUGHER = 1.35
REPEATED = 0.3


def suspicions(values: NDArray[np.floating], grid: Grid, model: AcquisitionModel) -> list[str]:
    """What does not go together in a scan [X, Y, Z], its header and the acquisition taken from there: one clause each.

    Interpolated slices (smooth along one axis, not along the others), repeated slices, a slice thickness far from the
    spacing. Empty where nothing is odd.
    """
    found = []
    ratios = [_ratio(values, axis) for axis in range(3)]
    for axis, name in enumerate(WORLD[grid.world_axis(a)] for a in range(3)):
        planes = np.moveaxis(values, axis, 0)
        told = f"state the true --slice-thickness, or give the scan before it was resampled along {name}"
        some = planes.reshape(len(planes), -1)
        some = some[some.max(1) > some.min(1)]
        if len(some) > 2 and (some[1:] == some[:-1]).all(1).mean() >= REPEATED:
            found.append(f"many neighbouring slices along {name} are equal, as if they had been repeated; {told}")
        elif ratios[axis] < SMOOTH and max(ratios) > ROUGHER * ratios[axis] and grid.shape[axis] > 8:
            found.append(
                f"along {name} it is as smooth as if it had been interpolated from thicker slices "
                f"(spacing {grid.spacing[axis]:g} mm); {told}"
            )
        part = model.thickness[axis] / grid.spacing[axis]
        if model.stated and axis == model.axis and not 0.3 < part < 3:
            found.append(
                f"slices of {model.thickness[axis]:g} mm every {grid.spacing[axis]:g} mm along {name}: "
                "if that is wrong, state --slice-thickness"
            )
    return found


def _ratio(values: NDArray[np.floating], axis: int) -> float:
    planes = np.moveaxis(values, axis, 0).astype(np.float64)
    if len(planes) < 3:
        return np.inf
    near, far = np.square(np.diff(planes, axis=0)).mean(), np.square(planes[2:] - planes[:-2]).mean()
    return float(near / far) if far > 0 else np.inf
