"""A picture of any size and a prior's frame: one scale for both axes, so that nothing is distorted, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from brgm_med.corruptions import along
from brgm_med.errors import InputRefusedError

How = Literal["contain", "crop"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """How a `picture` (H, W) lies in a `frame` (h, w), all in pixels: frame = scale * picture + offset, for edges.

    Pixel i reaches from i to i + 1. Everything here is linear in the image and differentiable. Where a grid gets
    coarser, each new pixel is the average of the area that it covers; where it gets finer, cubic interpolation (Keys
    1981, a = -1/2); where neither, the image is shifted by whole pixels and not changed. Outside, an image goes on as
    its nearest edge pixel.
    """

    picture: Size
    frame: Size
    scale: float
    offset: Size

    @classmethod
    def fit(cls, picture: Size, frame: Size, how: How = "contain") -> Frame:
        """The largest that the frame contains ("contain": the rest is padded), or the smallest that fills it ("crop").

        Centred, to the whole frame pixel. Raises InputRefusedError where less than one frame pixel would be covered.
        """
        if min(*picture, *frame) < 1:
            raise ValueError(f"a picture {picture} and a frame {frame} of at least one pixel are needed")
        ratios = [n / m for n, m in zip(frame, picture, strict=True)]
        scale = {"contain": min, "crop": max}[how](ratios)
        if min(picture) * scale < 1:
            sizes = f"{picture[1]} x {picture[0]} pixels is too narrow for a prior of {frame[1]} x {frame[0]}"
            raise InputRefusedError(f"a picture of {sizes}; cut out the part that is meant")
        top, left = (math.trunc(round((n - scale * m) / 2, 6)) for n, m in zip(frame, picture, strict=True))
        return cls(picture, frame, scale, (top, left))

    def to_frame(self, image: Tensor) -> Tensor:
        """A picture [N, C, H, W] -> in the frame, [N, C, h, w]; what is not `seen` is padding."""
        return Resample(*self._axes_to_frame())(_sized(image, self.picture))

    def from_frame(self, image: Tensor, factor: int = 1) -> Tensor:
        """A frame [N, C, h, w] -> the picture's own grid, `factor` times as fine: [N, C, factor H, factor W].

        What is not `reached` goes on as the frame's edge.
        """
        return self.measurement(factor)(_sized(image, self.frame))

    def measurement(self, factor: int = 1) -> Resample:
        """`from_frame` as a corruption: a prior's image -> the picture that is measured of it."""
        return Resample(*self._axes_from_frame(factor))

    def seen(self) -> Tensor:
        """Which pixels of the frame the picture covers wholly, [h, w] bool."""
        rows, columns = (
            _inside(n, offset, offset + self.scale * m)
            for n, m, offset in zip(self.frame, self.picture, self.offset, strict=True)
        )
        return rows[:, None] & columns

    def reached(self, factor: int = 1) -> Tensor:
        """Which pixels of `from_frame` the frame covers wholly, [factor H, factor W] bool."""
        fine = factor / self.scale
        rows, columns = (
            _inside(factor * m, -offset * fine, (n - offset) * fine)
            for n, m, offset in zip(self.frame, self.picture, self.offset, strict=True)
        )
        return rows[:, None] & columns

    def _axes_to_frame(self) -> list[Tensor | None]:
        return [
            axis_matrix(m, n, self.scale, offset)
            for n, m, offset in zip(self.frame, self.picture, self.offset, strict=True)
        ]

    def _axes_from_frame(self, factor: int) -> list[Tensor | None]:
        fine = factor / self.scale
        return [
            axis_matrix(n, factor * m, fine, -offset * fine)
            for n, m, offset in zip(self.frame, self.picture, self.offset, strict=True)
        ]


class Resample(nn.Module):
    """A separable linear map of images, [N, C, H, W] -> [N, C, H', W']: one matrix per axis, or None for identity."""

    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, rows: Tensor | None, columns: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        for axis, matrix in ((-2, self.rows), (-1, self.columns)):
            if matrix is not None:
                image = along(image, matrix, axis)
        return image


def axis_matrix(n_source: int, n_target: int, scale: float, offset: float) -> Tensor | None:
    """Resampling along one axis, [n_target, n_source] float64, each row summing to 1; None where it is the identity.

    target = scale * source + offset, for pixel edges. See `Frame` for how.
    """
    if scale == 1 and offset == 0 and n_source == n_target:
        return None
    target = torch.arange(n_target, dtype=torch.float64)
    if scale < 1:
        low, high = (target - offset) / scale, (target + 1 - offset) / scale
        taps = low.floor()[:, None] + torch.arange(math.ceil(1 / scale) + 1, dtype=torch.float64)
        weights = (torch.minimum(taps + 1, high[:, None]) - torch.maximum(taps, low[:, None])).clamp(min=0)
    else:
        place = (target + 0.5 - offset) / scale - 0.5
        # A shift by whole pixels must not be blurred by the rounding of its place.
        place = torch.where((place - place.round()).abs() < 1e-9, place.round(), place)
        taps = place.floor()[:, None] + torch.arange(-1, 3, dtype=torch.float64)
        weights = _cubic(place[:, None] - taps)
    matrix = torch.zeros(n_target, n_source, dtype=torch.float64)
    matrix.scatter_add_(1, taps.long().clamp(0, n_source - 1), weights)
    return matrix / matrix.sum(1, keepdim=True)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel, a = -1/2, at distances under 2 pixels."""
    t = distance.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def _inside(n: int, low: float, high: float) -> Tensor:
    """Which of the pixels 0 to n - 1 lie between the edges `low` and `high`, [n] bool."""
    index = torch.arange(n, dtype=torch.float64)
    return (index >= low - 1e-6) & (index + 1 <= high + 1e-6)


def _sized(image: Tensor, size: Size) -> Tensor:
    if image.ndim != 4 or tuple(image.shape[-2:]) != size:
        raise ValueError(f"images [N, C, {size[0]}, {size[1]}] are needed, not {[*image.shape]}")
    return image
