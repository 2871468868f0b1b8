"""Headers that do not say how a scan was measured are named; true ones are not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi
from numpy.typing import NDArray

from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.suspicion import suspicions
from tests.phantom import head

GRID = Grid((60, 70, 60), np.diag([2.5, 2.5, 2.5, 1.0]))
GRID.affine[:3, 3] = -75.0, -87.5, -80.0


def textured() -> NDArray[np.float32]:
    values = head(GRID)[0].numpy()
    return values + 0.2 * values * np.random.default_rng(0).normal(size=values.shape).astype(np.float32)


def test_a_scan_as_it_was_made_is_not_suspicious() -> None:
    assert suspicions(textured(), GRID, AcquisitionModel.from_header(GRID)) == []


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_made_of_thicker_ones_are_named(order: int, axis: int) -> None:
    """Means of 5 slices, brought back to as many as before: repeated, linear, cubic."""
    thick = np.moveaxis(textured(), axis, 0)
    thick = thick.reshape(-1, 5, *thick.shape[1:]).mean(1)
    fine = ndi.zoom(
        np.moveaxis(thick, 0, axis),
        [5 if a == axis else 1 for a in range(3)],
        order=order,
        grid_mode=True,
        mode="nearest",
    )
    (said,) = suspicions(fine, GRID, AcquisitionModel.from_header(GRID))
    assert f"along {'RAS'[axis]}" in said
    assert ("equal" in said) == (order == 0)
    assert "--slice-thickness" in said


def test_a_smooth_scan_is_not_taken_for_an_interpolated_one() -> None:
    smooth = ndi.gaussian_filter(textured(), 2.0)
    assert suspicions(smooth, GRID, AcquisitionModel.from_header(GRID)) == []


@pytest.mark.parametrize("thickness", [0.5, 9.0])
def test_a_thickness_far_from_the_spacing_is_named(thickness: float) -> None:
    model = AcquisitionModel((2.5, 2.5, thickness), "box", 2, True)
    (said,) = suspicions(textured(), GRID, model)
    assert f"{thickness:g} mm every 2.5 mm along S" in said
    assert suspicions(textured(), GRID, AcquisitionModel((2.5, 2.5, 3.0), "box", 2, True)) == []
