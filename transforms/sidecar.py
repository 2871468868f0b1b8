"""The acquisition of a scan's slices as a BIDS sidecar states it: thickness, spacing and the axis they lie along."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.acquire import SAME, WORLD, AcquisitionModel, coarsest_axis, replaced
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.geometry import Grid

OFF = 0.1
"""A stated spacing that differs from the positions' by more than this part contradicts them."""

ALIGNED = 0.9
"""Least cosine between an index axis and the slices' normal."""


def slice_axis(metadata: Mapping[str, Any], grid: Grid) -> int | None:
    """The index axis that slices lie along, where a sidecar says it; None: it does not.

    By `BrgmMedAcquisition`, else BIDS's `SliceEncodingDirection` (i, j or k), else dcm2niix's
    `ImageOrientationPatientDICOM`, the directions of rows and columns in LPS.
    """
    own = metadata.get("BrgmMedAcquisition")
    stated = own.get("SliceAxis") if isinstance(own, Mapping) else None
    if stated in tuple(WORLD):
        return grid.index_axis(WORLD.index(stated))
    direction = metadata.get("SliceEncodingDirection")
    if isinstance(direction, str) and direction[:1] in ("i", "j", "k"):
        return "ijk".index(direction[0])
    try:
        rows, columns = np.asarray(metadata.get("ImageOrientationPatientDICOM"), np.float64).reshape(2, 3)
    except (TypeError, ValueError):
        return None
    normal = RAS_LPS[:3, :3] @ np.cross(rows, columns)
    cosines = np.abs(normal @ (grid.affine[:3, :3] / np.asarray(grid.spacing)))
    return int(np.argmax(cosines)) if cosines.max() > ALIGNED else None


def thickness_in(metadata: Mapping[str, Any], name: str) -> float | None:
    """BIDS's `SliceThickness`, mm. Raises InputRefusedError, which names the scan `name`, for one that is no length."""
    stated = metadata.get("SliceThickness")
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < math.inf:
        raise InputRefusedError(f"{name}: its sidecar's SliceThickness is {stated!r}, no length; mend it")
    return float(stated)


def stated_slices(
    metadata: Mapping[str, Any], grid: Grid, name: str, axis: int | None = None
) -> AcquisitionModel | None:
    """A box profile of BIDS's `SliceThickness` along `axis`, else along the axis that the sidecar says, else along the
    one of clearly the largest spacing; None where nothing is stated or nothing tells the axis.

    Raises InputRefusedError as `thickness_in` does.
    """
    thickness = thickness_in(metadata, name)
    if axis is None:
        axis = slice_axis(metadata, grid)
    if axis is None:
        axis = coarsest_axis(grid)
    if thickness is None or axis is None:
        return None
    return AcquisitionModel(replaced(grid.spacing, axis, thickness), "box", axis, True)


def contradictions(metadata: Mapping[str, Any], grid: Grid, model: AcquisitionModel) -> list[str]:
    """Clauses on a sidecar's `SliceThickness` that was left out, since nothing tells its axis, and on a
    `SpacingBetweenSlices` that is not the scan's spacing: some scanners and converters put the gap there."""
    clauses = []
    thickness, spacing = metadata.get("SliceThickness"), metadata.get("SpacingBetweenSlices")
    if model.axis is None and isinstance(thickness, int | float) and not _among(thickness, grid):
        clauses.append(
            f"its sidecar's SliceThickness is {thickness:g} mm, but nothing tells along which axis; left out, state "
            "--slice-thickness and --slice-axis"
        )
    axis = slice_axis(metadata, grid) if model.axis is None else model.axis
    if axis is not None and isinstance(spacing, int | float) and math.isfinite(spacing):
        apart = grid.spacing[axis]
        if abs(abs(spacing) - apart) > OFF * apart:
            gap = isinstance(thickness, int | float) and abs(thickness + spacing - apart) <= OFF * apart
            clauses.append(
                f"its sidecar's SpacingBetweenSlices is {spacing:g} mm{' (the gap)' if gap else ''}, its slices lie "
                f"{apart:.4g} mm apart; the positions are taken"
            )
    return clauses


def _among(length: float, grid: Grid) -> bool:
    """True where a length is the spacing along the coarsest axis, which the header states as well."""
    return abs(length - max(grid.spacing)) <= 10 * SAME * length
