"""A scan taken at any angle through a volume: slice profile, in-plane averaging and pose as one linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.corruptions.profile import Profile, along, profile_cumulative, profile_reach

Interpolation = Literal["cubic", "linear"]


def profile_nodes(thickness: float, profile: Profile, finest: float) -> tuple[Tensor, Tensor]:
    """The profile as point samples: places [K] in mm from its centre and weights [K], float64, summing to 1.

    The profile's support is cut into K equal parts of at most `finest` mm, and each part's mass put in its middle. A
    box no wider than `finest` is one point: such a sample is a voxel of the image itself.
    """
    reach = thickness * profile_reach(profile)
    count = max(1, math.ceil(2 * reach / finest - 1e-6))
    edges = torch.linspace(-reach, reach, count + 1, dtype=torch.float64)
    weights = profile_cumulative(edges / thickness, profile).diff()
    return (edges[1:] + edges[:-1]) / 2, weights / weights.sum()


class ObliqueProfile(nn.Module):
    """A scan's samples of a volume on another grid, at any angle: y_s = sum_k weight_k x(T (s + offset_k)).

    Volumes [C, X, Y, Z] -> [C, X', Y', Z'], linear. `to_source` [3 or 4, 4] is T: index of a sample -> index of a
    voxel; it may shift, turn and scale. `nodes`: along each index axis of the scan places and weights, the places in
    samples (as `profile_nodes` gives them, divided by the spacing); all their combinations make the profile. Between
    voxels the volume is interpolated: "cubic" (an interpolating B-spline at half voxels, linear between those) or
    "linear". Where a node lies outside the volume it counts as 0; `covered` tells which samples have none there. With
    `use` [X', Y', Z'] bool the other samples are not computed, and 0. `shifts` [3, n]: along each axis of the scan, of
    its samples of that index away from even places, in samples. A volume is at least 2 voxels along each axis.
    """

    to_source: Tensor
    offsets: Tensor
    weights: Tensor
    index: Tensor
    shifts: Tensor | None

    def __init__(
        self,
        to_source: np.ndarray | Tensor,
        source: Sequence[int],
        shape: Sequence[int],
        nodes: Sequence[tuple[Tensor, Tensor]],
        interpolation: Interpolation = "cubic",
        use: Tensor | None = None,
        shifts: Tensor | None = None,
    ) -> None:
        super().__init__()
        if min(source) < 2:
            raise ValueError(f"ObliqueProfile: a volume of {tuple(source)} has an axis of one voxel")
        self.source, self.shape, self.interpolation = tuple(source), tuple(shape), interpolation
        places = torch.meshgrid(*(n[0].double() for n in nodes), indexing="ij")
        masses = torch.meshgrid(*(n[1].double() for n in nodes), indexing="ij")
        self.register_buffer("to_source", torch.as_tensor(to_source, dtype=torch.float64)[:3], persistent=False)
        self.register_buffer("offsets", torch.stack(places, -1).reshape(-1, 3), persistent=False)
        self.register_buffer("weights", torch.stack(masses, -1).prod(-1).flatten(), persistent=False)
        wanted = torch.arange(math.prod(self.shape)) if use is None else use.flatten().nonzero()[:, 0]
        self.register_buffer("index", wanted, persistent=False)
        self.register_buffer("shifts", shifts, persistent=False)

    def coordinates(self) -> Tensor:
        """T s of the samples in use, [samples, 3] float64: the voxel indices of their centres."""
        index = torch.unravel_index(self.index, self.shape)
        at = torch.stack(index, -1).to(self.to_source)
        if self.shifts is not None:
            at = at + torch.stack([shift[i] for shift, i in zip(self.shifts, index, strict=True)], -1)
        return at @ self.to_source[:, :3].T + self.to_source[:, 3]

    def covered(self, margin: float = 0.0) -> Tensor:
        """The samples with all their nodes inside the volume (between the centres of its outer voxels, and `margin`
        voxels away from those): bool [X', Y', Z']; of those not in use none."""
        at, turned = self.coordinates(), self.offsets @ self.to_source[:, :3].T
        last = torch.tensor(self.source).to(at) - 1
        # T is affine: the nodes' bounding box, turned, is reached by its nodes at the corners.
        inside = (at + turned.amin(0) >= margin - 1e-9) & (at + turned.amax(0) <= last - margin + 1e-9)
        return self.spread(inside.all(-1).to(torch.uint8)[None])[0].bool()

    def spread(self, samples: Tensor) -> Tensor:
        """Samples in use [C, P] -> [C, X', Y', Z'], 0 elsewhere."""
        whole = samples.new_zeros(len(samples), math.prod(self.shape))
        return whole.index_copy(1, self.index, samples).reshape(-1, *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.source:
            raise ValueError(f"ObliqueProfile: a volume of {self.source} is needed, not {tuple(x.shape[1:])}")
        return self.spread(self.samples(x))

    def samples(self, x: Tensor) -> Tensor:
        """The samples in use, in order: [C, X, Y, Z] -> [C, P]."""
        # Voxel index i of n is 2 i / (n - 1) - 1 in grid_sample's units, whether or not half voxels lie between.
        last = torch.tensor([max(n - 1, 1) for n in self.source]).to(self.to_source)
        places = (2 * self.coordinates() / last - 1).flip(-1).to(x.dtype)
        nodes = (2 * self.offsets @ self.to_source[:, :3].T / last).flip(-1).to(x.dtype)
        if self.interpolation == "cubic":
            for axis, n in enumerate(self.source):
                x = along(x, halved(n), axis - 3)
        values = _sample(x, (places[:, None] + nodes).reshape(-1, 3))
        return values.reshape(len(x), -1, len(nodes)) @ self.weights.to(x.dtype)


def _sample(x: Tensor, places: Tensor) -> Tensor:
    """x [C, X, Y, Z] at places [P, 3] (grid_sample's units): [C, P]. As many parts as threads, which is how many
    grid_sample can use: it shares out the batch."""
    parts = max(1, min(torch.get_num_threads(), len(places) // 1000))
    padded = torch.nn.functional.pad(places, (0, 0, 0, -len(places) % parts))
    grid = padded.reshape(parts, -1, 1, 1, 3)
    values = torch.nn.functional.grid_sample(x[None].expand(parts, -1, -1, -1, -1), grid, align_corners=True)
    return values[..., 0, 0].movedim(1, 0).reshape(len(x), -1)[:, : len(places)]


@cache
def halved(n: int) -> Tensor:
    """[2 n - 1, n] float64: the interpolating cubic B-spline of n samples (mirrored at its ends) at every half
    index."""
    index = torch.arange(n)
    mirror = {-1: 1, n: n - 2}
    spline = torch.zeros(n, n, dtype=torch.float64)  # samples of the spline, from its coefficients
    between = torch.zeros(2 * n - 1, n, dtype=torch.float64)
    for i in index.tolist():
        for step, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
            spline[i, mirror.get(i + step, i + step)] += weight
    for i in range(n - 1):  # the B-spline at distances 1/2 and 3/2 is 23/48 and 1/48
        for step, weight in ((-1, 1 / 48), (0, 23 / 48), (1, 23 / 48), (2, 1 / 48)):
            between[2 * i + 1, mirror.get(i + step, i + step)] += weight
    between[::2] = spline
    weights = torch.linalg.solve(spline.T, between.T).T
    return weights.where(weights.abs() > 1e-15, 0.0)  # it falls off by 0.27 a sample: no denormal numbers


class StackAsVolume(nn.Module):
    """Neighbouring slices [N, C, H, W] as a volume [C, N, H, W]: what a scan across slices is taken of."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, 0)


class Together(nn.Module):
    """Measurements of one image together: all of them flattened, each times its weight, [1, M]."""

    def __init__(self, corruptions: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.corruptions = nn.ModuleList(corruptions)
        self.weights = [1.0] * len(self.corruptions) if weights is None else list(weights)

    def join(self, measurements: Sequence[Tensor]) -> Tensor:
        """The measurements [C, ...], one for each corruption, as this module gives them."""
        return torch.cat([w * y.flatten() for w, y in zip(self.weights, measurements, strict=True)])[None]

    def forward(self, x: Tensor) -> Tensor:
        return self.join([f(x) for f in self.corruptions])
