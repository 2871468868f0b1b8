"""What surrounds a scan: taken out of it before a reconstruction, and back in its place after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from brgm_med.corruptions import along_axes
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.surroundings import surroundings, without_padding

PART = 1e-5
"""Least weight with which a sample reaches a voxel; less comes of spacings that headers round to 32 bits."""


def taken_out(scan: Scan, message: Callable[[str], object]) -> Scan:
    """The scan with its constant `surroundings`, and padding replaced by the nearest value that was measured."""
    values = scan.values[0].numpy().astype(np.float32, copy=False)
    around = surroundings(values, scan.stripped)
    if around is None:
        return scan
    part = float((~around.measured).mean())
    if around.level is None:
        message(f"{scan.name}: {part:.0%} of its voxels, around what it shows, are constant, and stay so")
    else:
        message(
            f"warning: {scan.name}: {around.padding:.0%} of its voxels are a constant of {around.level:g} that reaches "
            "its border; taken as outside its field of view"
        )
        values = without_padding(values, around, scan.grid)
    kept = torch.from_numpy(around.values)
    return dataclasses.replace(
        scan, values=torch.from_numpy(values)[None], surroundings=kept, padded=around.level is not None
    )


def put_back(result: Reconstruction, scans: Sequence[Scan]) -> Reconstruction:
    """The result with the first scan's surroundings where nothing that was measured, by any scan, has a part."""
    first, grid = scans[0], result.grid
    if first.surroundings is None:
        return result
    operator = first.acquisition.corruption(grid, first.grid)
    measured = first.measured[None].double()
    reached = along_axes(measured, [None if m is None else m.T for m in operator.matrices]) > PART
    constant = resample(first.surroundings.nan_to_num(0)[None], first.grid, grid, mode="nearest", padding="border")
    outside = ~nearest(first.measured, first.grid, grid) & ~reached
    for scan in scans[1:]:
        outside &= ~nearest(scan.measured, scan.grid, grid)
    uncertainty = result.uncertainty
    if uncertainty is not None:
        deviation, noise = (torch.where(outside, 0.0, part) for part in (uncertainty.deviation, uncertainty.noise))
        uncertainty = dataclasses.replace(uncertainty, deviation=deviation, noise=noise)
    return dataclasses.replace(
        result,
        uncertainty=uncertainty,
        image=torch.where(outside, constant.to(result.image), result.image),
        unprojected=torch.where(outside, constant.to(result.unprojected), result.unprojected),
        measured=torch.where(outside, 0.0, result.measured),
    )


def nearest(mask: Tensor, source: Grid, grid: Grid) -> Tensor:
    """A mask [X, Y, Z] of one grid on another, [1, X', Y', Z'] bool, False beyond its edges."""
    return resample(mask.float()[None], source, grid, mode="nearest") > 0.5
