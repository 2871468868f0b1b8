"""Spheres implanted into heads whose truth is known, and the part of their contrast that an image retains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import rigid_pose
from brgm_med.transforms.template import Template

DIAMETERS = (16.0, 10.0, 6.0)
"""Millimetres. A head holds a bright and a dark sphere of each."""

CHANGE = 0.3
"""Of the local intensity of the brain, added to a bright sphere and taken from a dark one."""

SHELL = (2.0, 6.0)
"""A sphere's surroundings, with which it is compared: from so many to so many mm beyond its surface."""

APART = 16.0
"""Distance of the surfaces of two spheres, at least, mm: two of the thickest slices that are asked by default."""

TISSUE = (0.5, 1.5)
"""Of the median of the bulk of the brain: intensities between are tissue, neither CSF nor fat, in any contrast."""

MOSTLY, MOSTLY_MM = 0.75, 3.0
"""Around a voxel that is mostly tissue, so large a share of a Gaussian of that deviation (mm) is: thin sulci, and
speckles of a bias field, do not part a place."""

POINTS = 6
"""The edge of a sphere is soft: a voxel takes part by the share of so many points, along each axis, inside."""


@dataclass(frozen=True, eq=False)
class Sphere:
    """A sphere of `diameter` mm around `centre` [3], world mm, that changes intensities by `change`, in their units."""

    diameter: float
    centre: NDArray[np.float64]
    change: float

    def coverage(self, grid: Grid) -> Tensor:
        """The part of each voxel of `grid` that lies in the sphere, 0 to 1, [X, Y, Z] float32."""
        away, reach = distance(grid, self.centre), float(np.linalg.norm(grid.spacing)) / 2
        result = (away <= self.diameter / 2).float()
        edge = ((away - self.diameter / 2).abs() < reach).nonzero()
        steps = (np.arange(POINTS) + 0.5) / POINTS - 0.5
        points = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        offsets = (edge.numpy()[:, None] + points) @ grid.affine[:3, :3].T + grid.affine[:3, 3] - self.centre
        inside = (np.linalg.norm(offsets, axis=-1) <= self.diameter / 2).mean(1)
        result[tuple(edge.T)] = torch.from_numpy(inside).float()
        return result


class Region:
    """The voxels of a sphere and of its surroundings on `grid`, and its contrast in images [X, Y, Z]."""

    def __init__(self, sphere: Sphere, grid: Grid) -> None:
        self.sphere, coverage = sphere, sphere.coverage(grid).flatten()
        self.voxels = coverage.nonzero()[:, 0]
        self.weights = coverage[self.voxels].double()
        beyond = distance(grid, sphere.centre).flatten() - sphere.diameter / 2
        self.shell = ((beyond >= SHELL[0]) & (beyond <= SHELL[1]) & (coverage == 0)).nonzero()[:, 0]

    def inside(self, image: Tensor) -> float:
        """Mean of an image in the sphere; a voxel at its edge counts by its coverage."""
        return float((image.flatten()[self.voxels].double() * self.weights).sum() / self.weights.sum())

    def contrast(self, image: Tensor) -> float:
        """Mean of an image in the sphere, less that of its surroundings."""
        return self.inside(image) - float(image.flatten()[self.shell].double().mean())


def distance(grid: Grid, centre: NDArray[np.float64]) -> Tensor:
    """Of each voxel's centre to `centre` [3], world mm, [X, Y, Z] float64."""
    i, j, k = (torch.arange(n, dtype=torch.float64) for n in grid.shape)
    square = torch.zeros(grid.shape, dtype=torch.float64)
    for (a, b, c, origin), middle in zip(grid.affine[:3], centre, strict=True):
        square += ((a * i)[:, None, None] + (b * j)[None, :, None] + (c * k + (origin - middle))[None, None]).square()
    return square.sqrt()


def brain(image: Tensor, grid: Grid, template: Template) -> Tensor:
    """The bulk of the brain of a head [1, X, Y, Z], as the template has it, [X, Y, Z] bool.

    Raises InputRefusedError as `rigid_pose` does.
    """
    pose, _ = rigid_pose(image, grid, template)
    return resample(template.mask, template.grid, grid, np.linalg.inv(pose).astype(np.float64), mode="nearest")[0] > 0.5


def depth_in(mask: Tensor, grid: Grid) -> NDArray[np.float64]:
    """Of each voxel of a mask [X, Y, Z]: mm to the nearest that is not in it, or lies beyond the grid."""
    padded = ndi.distance_transform_edt(np.pad(mask.numpy(), 1), grid.spacing)
    return np.asarray(padded[1:-1, 1:-1, 1:-1])


def placed(image: Tensor, grid: Grid, region: Tensor, seed: int) -> list[Sphere]:
    """Spheres for a head [X, Y, Z]: of each diameter a bright one and a dark one.

    Each lies in tissue, and with its surroundings in `region` [X, Y, Z] bool, both but for half a voxel; `APART` of
    each other; else anywhere, by `seed`. Where they have no room, `MOSTLY` tissue around a voxel is enough. Raises
    InputRefusedError where one has no room then.
    """
    middle = float(image[region].double().median())
    tissue = region & (image > TISSUE[0] * middle) & (image < TISSUE[1] * middle)
    share = ndi.gaussian_filter(tissue.numpy().astype(np.float32), [MOSTLY_MM / s for s in grid.spacing])
    for where in (tissue, region & torch.from_numpy(share > MOSTLY)):
        spheres = _fitting(image, grid, region, where, seed)
        if len(spheres) == 2 * len(DIAMETERS):
            return spheres
    raise InputRefusedError(f"its brain has no room for {len(spheres) + 1} spheres that are apart")


def _fitting(image: Tensor, grid: Grid, region: Tensor, tissue: Tensor, seed: int) -> list[Sphere]:
    """The spheres of `placed` in `tissue` [X, Y, Z] bool, up to the first that has no room."""
    random, drawn = np.random.default_rng(seed), region.nonzero().numpy()
    drawn = drawn[random.permutation(len(drawn))]
    room, depth = (depth_in(mask, grid)[tuple(drawn.T)] for mask in (region, tissue))
    centres = (drawn + random.uniform(-0.5, 0.5, drawn.shape)) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    spheres: list[Sphere] = []
    for diameter in DIAMETERS:
        for sign in (1, -1):
            fits = (room >= diameter / 2 + SHELL[1]) & (depth >= diameter / 2)
            for other in spheres:
                fits &= np.linalg.norm(centres - other.centre, axis=1) >= (diameter + other.diameter) / 2 + APART
            if not fits.any():
                return spheres
            centre = centres[int(fits.argmax())]
            near = tissue & (distance(grid, centre) <= diameter / 2 + SHELL[1])
            spheres.append(Sphere(diameter, centre, sign * CHANGE * float(image[near].double().median())))
    return spheres


def implanted(image: Tensor, grid: Grid, spheres: list[Sphere]) -> Tensor:
    """A head [1, X, Y, Z] with all spheres: their changes are added, so that its texture stays."""
    return image + torch.stack([sphere.change * sphere.coverage(grid) for sphere in spheres]).sum(0)
