"""Volumes of the interactive view: bytes, slice beside slice in one JPEG or PNG, which a browser unpacks by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brgm_med.pipelines.report.images import Volume, bytes_of, data_uri
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid

MOST_VOXELS = 13_000_000
"""Of a volume in a page; of a larger one, blocks are averaged."""

FEWEST_VOXELS = 500_000
"""Of a volume that is not made smaller still, whatever its budget."""

TILE = 8
"""Pixels: JPEG's blocks, so that no block holds two slices."""

QUALITIES = (92, 85, 75, 60)

Factors = tuple[int, int, int]


def factors_within(grid: Grid, voxels: int, finest: float = 0.0) -> Factors:
    """Sizes of blocks, in voxels, so that no more than `voxels` blocks are left, of `finest` mm at least where that
    makes them more alike."""
    factors = np.array([max(1, round(finest / s)) for s in grid.spacing])
    while np.prod(np.ceil(np.asarray(grid.shape) / factors)) > voxels:
        factors[np.argmin(factors * grid.spacing)] += 1
    x, y, z = (int(f) for f in factors)
    return x, y, z


def averaged(volume: Volume, factors: Sequence[int]) -> Volume:
    """Means of blocks of voxels; those at the far edges are filled with the last plane."""
    values = volume.values
    for axis, factor in enumerate(factors):
        if factor > 1:
            pad = [(0, 0)] * 3
            pad[axis] = (0, -values.shape[axis] % factor)
            whole = np.moveaxis(np.pad(values, pad, mode="edge"), axis, 0)
            blocks = whole.reshape(len(whole) // factor, factor, *whole.shape[1:]).mean(1, dtype=np.float32)
            values = np.moveaxis(blocks, 0, axis)
    scale = make_affine(np.diag(np.asarray(factors, np.float64)), (np.asarray(factors) - 1) / 2)
    return Volume(values, Grid.of(values, volume.grid.affine @ scale))


def tiled(values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """[X, Y, Z] as one picture of Z tiles of Y rows and X columns, and the number of tiles in a row."""
    x, y, z = values.shape
    width, height = x + -x % TILE, y + -y % TILE
    columns = max(1, round((z * height / width) ** 0.5))
    rows = -(-z // columns)
    slices = np.zeros((rows * columns, height, width), np.uint8)
    slices[:z] = np.pad(values, ((0, width - x), (0, height - y), (0, 0)), mode="edge").transpose(2, 1, 0)
    return slices.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, -1), columns


def entry(volume: Volume, view: Grid, low: float, high: float, budget: int | None = None) -> dict[str, Any]:
    """Input of viewer.js for one volume, whose axes are those of the grid that is looked at.

    `start` and `step`: the first edge and the size of its voxels, in voxels of `view`. `low` and `high` are the values
    of the bytes 0 and 255. Without a `budget` it is lossless (PNG); within one, in characters of base64, it is JPEG, of
    the best of `QUALITIES` that fits, and in larger blocks where none does; a small one is of the last of them.
    """
    picture, columns = tiled(bytes_of(volume.values, low, high))
    image = Image.fromarray(picture)
    if budget is None:
        uri = data_uri(image)
    else:
        for uri in (data_uri(image, quality) for quality in QUALITIES):
            if len(uri) <= budget:
                break
        else:
            if volume.values.size > FEWEST_VOXELS:
                smaller = factors_within(volume.grid, volume.values.size // 2)
                return entry(averaged(volume, smaller), view, low, high, budget)
    shape, padded = list(volume.values.shape), [n + -n % TILE for n in volume.values.shape[:2]]
    start = (np.linalg.inv(view.affine) @ volume.grid.affine @ [-0.5, -0.5, -0.5, 1.0])[:3] + 0.5
    step = np.asarray(volume.grid.spacing) / view.spacing
    place = {"start": start.round(4).tolist(), "step": step.round(6).tolist()}
    return {"uri": uri, "shape": shape, "tile": padded, "columns": columns, **place, "low": low, "high": high}
