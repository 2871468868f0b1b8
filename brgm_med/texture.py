"""Texture of a filled hole: detail finer than the fill, from the places of the image itself that look most alike.

A generator that draws voxels of 2 mm leaves a hole in an image of 1 mm smoother than what is around it. The image
itself shows what such detail looks like beside such a structure: the fill's patches, smoothed, are compared with those
of the known surroundings, and the nearest one's residual (image minus smoothed image) is added (as in non-parametric
texture synthesis, Efros & Leung 1999, and example-based super-resolution, Freeman et al. 2002). Any contrast;
deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH_MM = 25.0
"""Patches are taken from so far around the hole."""

PATCHES = 30_000
"""So many of them are compared, drawn at random where there are more."""

HALF = 3
"""Half width of the patches that are added, in the finest voxels. Neighbours share one layer, as a mean of two has less
grain than each."""

APART_MM = 2.0
"""Distance of the 3 x 3 x 3 smoothed values that are compared."""


def texture(image: Tensor, hole: Tensor, spacing: Sequence[float], sigma: float, seed: int = 0) -> Tensor:
    """Detail finer than a Gaussian of `sigma` mm for the `hole` [X, Y, Z] (bool) of a filled `image` [X, Y, Z].

    `spacing`: of the voxels, mm. The result [X, Y, Z] is 0 outside the hole, and everywhere where the image has no
    known patch within `REACH_MM` of it, or its voxels are twice `sigma` or more.
    """
    values, inside = image.detach().double().numpy(), hole.numpy()
    detail = np.zeros_like(values)
    smooth = ndi.gaussian_filter(values, [sigma / s for s in spacing])
    steps = [max(1, round(APART_MM / s)) for s in spacing]
    half = [max(1, round(HALF * min(spacing) / s)) for s in spacing]
    border = [max(both) for both in zip(half, steps, strict=True)]
    known = _known(inside, spacing, 2 * sigma + HALF * min(spacing), border)
    if not len(known) or not inside.any() or sigma <= min(spacing) / 2:
        return torch.from_numpy(detail).to(image.dtype)
    if len(known) > PATCHES:
        known = known[np.random.default_rng(seed).choice(len(known), PATCHES, replace=False)]
    places = _lattice(inside, half, border)
    alike = nearest(_described(smooth, places, steps), _described(smooth, known, steps))
    residual, weight = values - smooth, np.zeros_like(values)
    x, y, z = (np.r_[0.5, np.ones(2 * h - 1), 0.5] for h in half)
    window = x[:, None, None] * y[:, None] * z
    for place, other in zip(places, known[alike], strict=True):
        here, there = (tuple(slice(c - h, c + h + 1) for c, h in zip(at, half, strict=True)) for at in (place, other))
        detail[here] += window * residual[there]
        weight[here] += window
    return torch.from_numpy(np.where(inside & (weight > 0), detail / weight.clip(min=1e-12), 0.0)).to(image.dtype)


def _known(hole: NDArray[np.bool_], spacing: Sequence[float], least: float, border: Sequence[int]) -> NDArray[np.int64]:
    """Centres [N, 3] of patches that are known, at `least` so many mm from the hole."""
    far = ndi.distance_transform_edt(~hole, spacing)
    inner = np.zeros_like(hole)
    inner[tuple(slice(b, n - b) for b, n in zip(border, hole.shape, strict=True))] = True
    return np.argwhere((far > least) & (far < REACH_MM) & inner)


def _lattice(hole: NDArray[np.bool_], half: Sequence[int], border: Sequence[int]) -> NDArray[np.int64]:
    """Centres [N, 3] of patches that cover the hole; those at the image's border are moved inside."""
    box = ndi.find_objects(hole.astype(np.int8))[0]
    cells = [np.arange(b.start, b.stop + 2 * h - 1, 2 * h) for b, h in zip(box, half, strict=True)]
    places = np.stack(np.meshgrid(*cells, indexing="ij"), -1).reshape(-1, 3)
    near = ndi.binary_dilation(hole, np.ones([2 * h + 1 for h in half], bool))
    last = np.asarray(hole.shape) - 1
    places = places[near[tuple(np.minimum(places, last).T)]]
    return np.unique(places.clip(border, last - np.asarray(border)), axis=0)


def _described(smooth: NDArray[np.float64], places: NDArray[np.int64], steps: Sequence[int]) -> Tensor:
    """The 3 x 3 x 3 smoothed values around each of `places`, [N, 27] float32."""
    offsets = np.stack(np.meshgrid(*([-s, 0, s] for s in steps), indexing="ij"), -1).reshape(-1, 3)
    at = places[:, None] + offsets
    return torch.from_numpy(smooth[at[..., 0], at[..., 1], at[..., 2]].astype(np.float32))


def nearest(queries: Tensor, others: Tensor) -> NDArray[np.int64]:
    """Index [N] of the row of `others` [M, D] that is nearest to each of `queries` [N, D]."""
    return torch.cat([torch.cdist(part, others).argmin(1) for part in queries.split(256)]).numpy()
