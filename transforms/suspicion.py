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
    """Contradictions between a scan [X, Y, Z], its header and the acquisition stated there: one clause each.

    Interpolated slices (smooth along one axis, not along the others), repeated slices, a slice thickness far from the
    spacing. Empty where nothing is odd.
    """
    signs = []
    repeated = [_repeated(values, axis) >= REPEATED for axis in range(3)]
    ratios = [np.nan if repeated[axis] else _ratio(values, axis) for axis in range(3)]
    for axis, name in enumerate(WORLD[grid.world_axis(a)] for a in range(3)):
        advice = f"state the true --slice-thickness, or give the scan before it was resampled along {name}"
        if repeated[axis]:
            signs.append(f"many neighbouring slices along {name} are equal, as if they had been repeated; {advice}")
        elif ratios[axis] < SMOOTH and np.nanmax(ratios) > ROUGHER * ratios[axis]:
            signs.append(
                f"along {name} it is as smooth as if it had been interpolated from thicker slices "
                f"(spacing {grid.spacing[axis]:g} mm); {advice}"
            )
        part = model.thickness[axis] / grid.spacing[axis]
        if model.stated and axis == model.axis and not 0.3 < part < 3:
            signs.append(
                f"slices of {model.thickness[axis]:g} mm every {grid.spacing[axis]:g} mm along {name}: "
                "if that is wrong, state --slice-thickness"
            )
    return signs


def _repeated(values: NDArray[np.floating], axis: int) -> float:
    """The part of neighbouring planes that are equal, of those that are not constant."""
    planes = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    planes = planes[planes.max(1) > planes.min(1)]
    return float((planes[1:] == planes[:-1]).all(1).mean()) if len(planes) > 2 else 0.0


def _ratio(values: NDArray[np.floating], axis: int) -> float:
    """Mean square of first over second-neighbour differences; infinite for fewer than 9 planes."""
    planes = np.moveaxis(values, axis, 0).astype(np.float64)
    if len(planes) < 9:
        return np.inf
    near, far = np.square(np.diff(planes, axis=0)).mean(), np.square(planes[2:] - planes[:-2]).mean()
    return float(near / far) if far > 0 else np.inf
