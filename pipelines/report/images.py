"""Volumes as pictures: three planes in radiological convention, as PNG or JPEG in data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray
from PIL import Image

from brgm_med.transforms.geometry import Grid

LARGEST = 512
"""No picture has more pixels than this along a side."""

WHITE = 1.15
"""White is so many times as far from black as the brightest of the brain."""

OUTLINE = 400
"""A picture with outlines has at least so many pixels along its longer side, so that they are thin."""

Colour = tuple[int, int, int]
ORANGE: Colour = (255, 150, 40)
BLUE: Colour = (70, 190, 255)


@dataclass(frozen=True)
class View:
    """A plane across one RAS axis. Columns run against `horizontal`, rows against `vertical`: radiological."""

    name: str
    across: int
    horizontal: int
    vertical: int
    letters: str
    """What lies at the left, right, top and bottom."""


VIEWS = (View("axial", 2, 0, 1, "RLAP"), View("coronal", 1, 0, 2, "RLSI"), View("sagittal", 0, 1, 2, "APSI"))


@dataclass(frozen=True, eq=False)
class Volume:
    """`values` [X, Y, Z] float32 on `grid`, whose index axes run nearly towards R, A and S."""

    values: NDArray[np.float32]
    grid: Grid

    @classmethod
    def turned(cls, values: NDArray[np.generic], grid: Grid) -> Volume:
        """Image of any order and direction of the index axes; no voxel is interpolated."""
        image = nib.as_closest_canonical(nib.nifti1.Nifti1Image(np.asarray(values, np.float32), grid.affine))
        x, y, z = image.shape
        return cls(np.ascontiguousarray(image.dataobj, np.float32), Grid((x, y, z), image.affine))

    def index(self, point: NDArray[np.float64]) -> NDArray[np.int_]:
        """The voxel nearest to a world point (RAS mm), [3]; at the edge where the point lies outside."""
        voxel = np.linalg.inv(self.grid.affine) @ np.append(point, 1.0)
        return np.clip(np.rint(voxel[:3]).astype(int), 0, np.asarray(self.grid.shape) - 1)

    def plane(self, view: View, point: NDArray[np.float64]) -> NDArray[np.float32]:
        """The plane of `view` through the voxel nearest to `point`: [rows, columns], as it is looked at."""
        return self.values.take(self.index(point)[view.across], axis=view.across)[::-1, ::-1].T


@dataclass(frozen=True, eq=False)
class Spot:
    """A plane to look at: through `point` (RAS mm), called `where`."""

    view: View
    point: NDArray[np.float64]
    where: str


def tilt(grid: Grid) -> float:
    """The largest angle, degrees, between an index axis and the nearest axis of the world."""
    columns = np.abs(grid.affine[:3, :3]) / np.asarray(grid.spacing)
    return float(np.degrees(np.arccos(np.clip(columns.max(0), 0, 1))).max())


def window(volume: Volume, brain: Volume | None = None) -> tuple[float, float]:
    """Black and white for a head: air, and a little above the 99.5th percentile of the `brain` (0 to 1, in the same
    field of view), or without one of the middle half of the volume; its whole range where those are equal."""
    values = volume.values
    if brain is not None and bool((brain.values > 0.5).any()):
        points = np.argwhere(brain.values > 0.5)[::7]
        index = (points + 0.5) * values.shape / brain.values.shape
        inside = values[tuple(index.astype(int).T)]
    else:
        inside = values[tuple(slice(n // 4, n - n // 4) for n in values.shape)]
    low, high = float(np.percentile(values.ravel()[::11], 2)), float(np.percentile(inside, 99.5))
    high = low + WHITE * (high - low)
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def whole_range(volume: Volume, low: float, high: float) -> tuple[float, float]:
    """`low` to `high`, widened to the darkest and the brightest 0.1 % of a volume."""
    below, above = np.percentile(volume.values.ravel()[::11], [0.1, 99.9])
    return min(low, float(below)), max(high, float(above))


def bytes_of(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """0 at or below `low`, 255 at or above `high`, linear between."""
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def pixels(volume: Volume, view: View, least: int = 1) -> tuple[int, int]:
    """Columns and rows of a picture with square pixels as fine as the finest voxel edge, within `LARGEST`.

    The longer side has `least` at least.
    """
    spacing = np.asarray(volume.grid.spacing)[[view.horizontal, view.vertical]]
    width, height = spacing * np.asarray(volume.grid.shape)[[view.horizontal, view.vertical]]
    longer = max(width, height)
    count = min(max(longer / min(spacing), least), LARGEST)
    return max(1, round(width / longer * count)), max(1, round(height / longer * count))


def grey(volume: Volume, spot: Spot, low: float, high: float, least: int = 1) -> Image.Image:
    """A plane in grey; pixels between voxels are interpolated (bicubic)."""
    picture = Image.fromarray(bytes_of(volume.plane(spot.view, spot.point), low, high))
    return picture.resize(pixels(volume, spot.view, least), Image.Resampling.BICUBIC)


def heat(volume: Volume, spot: Spot, high: float) -> Image.Image:
    """A plane from black (0) over red to white (`high`); voxels stay squares."""
    t = bytes_of(volume.plane(spot.view, spot.point), 0.0, high) / 255.0
    ramps = [
        np.interp(t, (0, 0.4, 0.75, 1), levels) for levels in ((0, 190, 255, 255), (0, 20, 170, 255), (0, 60, 0, 255))
    ]
    picture = Image.fromarray(np.rint(np.stack(ramps, -1)).astype(np.uint8))
    return picture.resize(pixels(volume, spot.view), Image.Resampling.NEAREST)


def tinted(below: Image.Image, volume: Volume, spot: Spot) -> Image.Image:
    """`below`, grey, turned orange as far as the values of `volume` in [0, 1] say."""
    plane = bytes_of(volume.plane(spot.view, spot.point), 0.0, 1.0)
    share = Image.fromarray(plane).resize(below.size, Image.Resampling.NEAREST)
    a = np.asarray(share, np.float32)[..., None] / 255 * 0.55
    base = np.asarray(below.convert("RGB"), np.float32)
    return Image.fromarray(np.rint(base * (1 - a) + np.asarray(ORANGE, np.float32) * a).astype(np.uint8))


def outlined(below: Image.Image, shapes: list[tuple[Volume, float, Colour]], spot: Spot) -> Image.Image:
    """`below`, grey, with the level lines of volumes on its grid: each (volume, level, colour)."""
    picture = np.array(below.convert("RGB"))
    for volume, level, colour in shapes:
        plane = Image.fromarray(np.ascontiguousarray(volume.plane(spot.view, spot.point)))
        inside = np.asarray(plane.resize(below.size, Image.Resampling.BICUBIC)) > level
        picture[inside & ~ndi.binary_erosion(inside, border_value=1)] = colour
    return Image.fromarray(picture)


def data_uri(picture: Image.Image, quality: int | None = None) -> str:
    """PNG, or JPEG of a `quality`. The same bytes for the same picture."""
    file, kind = io.BytesIO(), "PNG" if quality is None else "JPEG"
    picture.save(file, kind, **({} if quality is None else {"quality": quality, "subsampling": 0}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(file.getvalue()).decode("ascii")
