"""A picture of any size and a prior's frame: one scale for both axes, so that nothing is distorted, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from brgm_med.corruptions import Separable, keys_cubic
from brgm_med.errors import InputRefusedError

Fit = Literal["contain", "crop"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """A `picture` (H, W) in a `frame` (h, w), all in pixels: frame = scale * picture + offset, for edges.

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
    def fit(cls, picture: Size, frame: Size, mode: Fit = "contain") -> Frame:
        """The largest that the frame contains ("contain": the rest is padded), or the smallest that fills it ("crop").

        Centred, to the whole frame pixel. Raises InputRefusedError where less than one frame pixel would be covered.
        """
        if min(*picture, *frame) < 1:
            raise ValueError(f"a picture {picture} and a frame {frame} of at least one pixel are needed")
        ratios = [n / m for n, m in zip(frame, picture, strict=True)]
        scale = {"contain": min, "crop": max}[mode](ratios)
        if min(picture) * scale < 1:
            sizes = f"{picture[1]} x {picture[0]} pixels is too narrow for a prior of {frame[1]} x {frame[0]}"
            raise InputRefusedError(f"a picture of {sizes}; cut out the part that is meant")
        top, left = (math.trunc(round((n - scale * m) / 2, 6)) for n, m in zip(frame, picture, strict=True))
        return cls(picture, frame, scale, (top, left))

    def to_frame(self, image: Tensor) -> Tensor:
        """A picture [N, C, H, W] -> in the frame, [N, C, h, w]; what is not `seen` is padding."""
        return _resampling(self.picture, self.frame, self.scale, self.offset)(_sized(image, self.picture))

    def from_frame(self, image: Tensor, factor: int = 1) -> Tensor:
        """A frame [N, C, h, w] -> the picture's own grid, `factor` times as fine: [N, C, factor H, factor W].

        Beyond `reached` the frame's edge is repeated.
        """
        return self.measurement(factor)(_sized(image, self.frame))

    def measurement(self, factor: int = 1) -> Separable:
        """`from_frame` as a corruption: a prior's image -> the picture that is measured of it."""
        fine = factor / self.scale
        return _resampling(self.frame, [factor * m for m in self.picture], fine, [-o * fine for o in self.offset])

    def seen(self) -> Tensor:
        """The pixels of the frame that the picture covers wholly, [h, w] bool."""
        ends = [offset + self.scale * m for m, offset in zip(self.picture, self.offset, strict=True)]
        return _inside(self.frame, self.offset, ends)

    def reached(self, factor: int = 1) -> Tensor:
        """The pixels of `from_frame` that the frame covers wholly, [factor H, factor W] bool."""
        fine = factor / self.scale
        ends = [(n - offset) * fine for n, offset in zip(self.frame, self.offset, strict=True)]
        return _inside([factor * m for m in self.picture], [-offset * fine for offset in self.offset], ends)


def _resampling(source: Sequence[int], target: Sequence[int], scale: float, offset: Sequence[float]) -> Separable:
    """Images [N, C, *source] -> [N, C, *target], axis by axis (see `axis_matrix`)."""
    return Separable([axis_matrix(n, m, scale, o) for n, m, o in zip(source, target, offset, strict=True)])


def axis_matrix(n_source: int, n_target: int, scale: float, offset: float) -> Tensor | None:
    """Resampling along one axis, [n_target, n_source] float64, each row summing to 1; None where it is the identity.

    target = scale * source + offset, for pixel edges. `Frame` names the interpolation.
    """
    if scale == 1 and offset == 0 and n_source == n_target:
        return None
    target = torch.arange(n_target, dtype=torch.float64)
    if scale < 1:
        low, high = (target - offset) / scale, (target + 1 - offset) / scale
        taps = low.floor()[:, None] + torch.arange(math.ceil(1 / scale) + 1, dtype=torch.float64)
        weights = (torch.minimum(taps + 1, high[:, None]) - torch.maximum(taps, low[:, None])).clamp(min=0)
    else:
        position = (target + 0.5 - offset) / scale - 0.5
        # A shift by whole pixels must not be blurred by the rounding of its position.
        position = torch.where((position - position.round()).abs() < 1e-9, position.round(), position)
        taps = position.floor()[:, None] + torch.arange(-1, 3, dtype=torch.float64)
        weights = keys_cubic(position[:, None] - taps)
    matrix = torch.zeros(n_target, n_source, dtype=torch.float64)
    matrix.scatter_add_(1, taps.long().clamp(0, n_source - 1), weights)
    return matrix / matrix.sum(1, keepdim=True)


def _inside(shape: Sequence[int], low: Sequence[float], high: Sequence[float]) -> Tensor:
    """The pixels of an image of `shape` between the edges `low` and `high` along both axes, [*shape] bool."""
    index = [torch.arange(n, dtype=torch.float64) for n in shape]
    rows, columns = ((i >= a - 1e-6) & (i + 1 <= b + 1e-6) for i, a, b in zip(index, low, high, strict=True))
    return rows[:, None] & columns


def _sized(image: Tensor, size: Size) -> Tensor:
    if image.ndim != 4 or tuple(image.shape[-2:]) != size:
        raise ValueError(f"images [N, C, {size[0]}, {size[1]}] are needed, not {[*image.shape]}")
    return image
