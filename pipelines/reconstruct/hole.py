"""Inpainting of one volume: arrays in, arrays out."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brgm_med.corruptions import AxisBlur, Mask, profile_kernel
from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.reconstruct.decoy import decoy_of, explained
from brgm_med.pipelines.reconstruct.measurement import (
    LinearMeasurement,
    PriorWeight,
    Reconstruction,
    Registration,
    Scan,
)
from brgm_med.pipelines.reconstruct.registration import check_known, from_box, output_grid, register
from brgm_med.posterior import whitened_posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import Progress, solve
from brgm_med.seams import blend_seamless
from brgm_med.search import HOLE, KNOWN, Search
from brgm_med.texture import texture
from brgm_med.transforms.acquire import SAME
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import resample_cubic, scale_of
from brgm_med.transforms.slices import coronal_stack
from brgm_med.transforms.template import load_template

MARGIN = 4
"""So many slices on either side of a hole are searched with it: they tell what it most probably held."""

FINER = 0.5
"""Detail finer than a Gaussian of so many voxels of the prior is the scan's own texture (two validation heads of
ds000011; with 0.75, holes of 20 mm halve their LPIPS and lose 0.8 to 1 dB)."""

INSIDE = 0.95
"""The least fraction of a mask's unknown voxels that must lie inside the scan."""


def inpaint_volume(
    scan: Scan,
    hole: Tensor,
    prior: PriorBundle,
    *,
    search: Search = HOLE,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Reconstruction:
    """The scan with the most probable content of its `hole` [X, Y, Z] (bool), given all voxels outside it.

    Outside the hole the result is bit for bit the scan, whose noise therefore does not count. The scan's values inside
    the hole, NaN included, never enter: for registration and intensities the hole is interpolated from its rim, and the
    likelihood masks it. The slices of the prior's box through the hole and `MARGIN` on either side are searched
    together. Where the prior does not reach, the interpolation stays.

    The fill is rim + b (population - rim), b being 1 where the scan looks like the prior's template. Elsewhere (other
    contrasts) b is measured: a second hole of the same shape, at the place where the first would lie in the mirror, is
    filled with it, and b is the best weight there, in [0, 1]. Then the scan's own texture is added, where its voxels
    are finer than the prior's (see `brgm_med.texture`). Deterministic. Raises InputRefusedError, which names the scan,
    where that cannot be registered, for a hole that lies wholly outside the box, and for one that leaves no room for a
    second one where the scan does not look like the template.
    """
    values, template = scan.values, load_template(prior)
    interpolated = blend_seamless(values, torch.zeros_like(values), hole, scan.grid.spacing)
    blank = dataclasses.replace(scan, values=interpolated, noise=0.0)
    registration = register([blank], output_grid([scan.grid], prior.spacing), template, search.correlation)
    decoy = None if registration.correlation >= KNOWN else decoy_of(hole, scan.grid, registration.pose)
    if decoy is None:
        check_known(registration, prior.name)
    unknown = hole if decoy is None else hole | decoy
    box = template.box
    stack, seen = registered_stack(registration, box)
    known = coronal_stack(resample((~unknown).float()[None], scan.grid, box, registration.pose)) > 0.999
    through = (seen & ~known).flatten(1).any(1).nonzero()[:, 0].tolist()
    if not through:
        raise InputRefusedError(
            f"{scan.name}: the hole lies wholly outside what the prior covers; nothing can be inferred there"
        )
    first, last = max(0, through[0] - MARGIN), min(len(stack) - 1, through[-1] + MARGIN)
    searched, mask = slice(first, last + 1), Mask((seen & known)[first : last + 1])
    whitened = prior.whitened(device)
    whitened = dataclasses.replace(whitened, mean=whitened.mean[searched])
    measured = mask(stack[searched]).to(device)
    corruption = nn.Sequential(approximate_corruption(registration, box), mask).to(device)
    posterior = whitened_posterior(whitened, corruption, measured, None, search)
    start = torch.zeros(last + 1 - first, 1, whitened.w_dim, device=device)
    stack[searched] = solve(posterior, start, search, whitened.curvature, progress).image.cpu()
    volume, reach = (registration.operator(v.double()).to(values.dtype) for v in from_box(registration, stack, box))
    used, reason = 1.0, f"it knows such scans (correlation with its template {registration.correlation:.2f})"
    if decoy is not None:
        rim = blend_seamless(values, torch.zeros_like(values), unknown, scan.grid.spacing)
        filled = blend_seamless(values, rim.lerp(volume, reach), unknown, scan.grid.spacing)
        used = explained(values[0], rim[0], filled[0], decoy)
        reason = "measured at a hole of the same shape elsewhere in the scan"
    guess, weight = interpolated.lerp(volume, used * reach), used * reach
    image = blend_seamless(values, guess, hole, scan.grid.spacing)
    finest = finest_of(prior, scan.grid)
    if finest is not None:
        image = torch.where(hole, image + texture(image[0], hole, scan.grid.spacing, finest), image)
    measurement = LinearMeasurement(Mask(~hole), values, ~hole, 0.0)
    measured, noise = (~hole).float()[None], (registration.first.noise,)
    return Reconstruction(
        *(registration.grid, image, guess, weight, measured, 0.0, (measurement,), noise),
        population=PriorWeight(prior.name, prior.sha256, prior.spacing, used, reason),
        registration=registration,
        slices=(first, last),
    )


def finest_of(prior: PriorBundle, grid: Grid) -> float | None:
    """Standard deviation (mm) of the Gaussian that parts the prior's detail from a scan's own texture; None for scans
    whose voxels are not finer than the prior's."""
    return FINER * prior.spacing if min(grid.spacing) < prior.spacing * (1 - SAME) else None


def check_integers(mask: NDArray[np.generic]) -> None:
    """Raise InputRefusedError for a mask of values that are no integers."""
    if not np.isfinite(mask).all() or not np.array_equal(mask, np.rint(mask)):
        raise InputRefusedError("its values are not all integers; give a mask of 0 and 1")


def alike(mask_grid: Grid, grid: Grid) -> bool:
    """True where a mask has the voxels of an image."""
    return mask_grid.shape == grid.shape and np.allclose(mask_grid.affine, grid.affine, rtol=0, atol=1e-3)


def hole_on(mask: NDArray[np.generic], mask_grid: Grid, grid: Grid, known: bool = False) -> tuple[Tensor, bool]:
    """The unknown voxels [X, Y, Z] bool of a scan on `grid`, and whether `mask` had to be resampled.

    `mask` holds integers: not 0 is unknown, or, if `known`, 0 is. On another grid it is taken nearest-neighbour; what
    lies outside the mask image counts as known. Raises InputRefusedError for values that are no integers, for a mask
    that covers nothing or all of the scan, and for one of which less than `INSIDE` lies inside the scan.
    """
    check_integers(mask)
    unknown = (mask == 0) if known else (mask != 0)
    if not unknown.any():
        raise InputRefusedError("it marks no voxel as unknown; did you mean the other sense (--mask-known)?")
    same = alike(mask_grid, grid)
    if not same:
        inside = float(_within(_indices(np.argwhere(unknown), mask_grid, grid), grid.shape).mean())
        if inside < INSIDE:
            raise InputRefusedError(
                f"only {inside:.0%} of its unknown voxels lie inside the scan; is it the mask of this scan?"
            )
        every = np.argwhere(np.ones(grid.shape, bool))
        nearest = _indices(every, grid, mask_grid)
        covered = _within(nearest, mask_grid.shape)
        values = np.zeros(len(every), bool)
        values[covered] = unknown[tuple(nearest[covered].T)]
        unknown = values.reshape(grid.shape)
        if not unknown.any():
            raise InputRefusedError("none of the scan's voxel centres lies in it; give a larger mask")
    if unknown.all():
        raise InputRefusedError("it leaves no voxel known; did you mean the other sense (--mask-known)?")
    return torch.from_numpy(unknown), not same


def _indices(index: NDArray[np.int64], source: Grid, target: Grid) -> NDArray[np.int64]:
    """Voxel indices [N, 3] of one grid as the nearest ones of another."""
    world = index @ source.affine[:3, :3].T + source.affine[:3, 3]
    back = np.linalg.inv(target.affine)
    return np.rint(world @ back[:3, :3].T + back[:3, 3]).astype(np.int64)


def _within(index: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray(((index >= 0) & (index < np.asarray(shape))).all(1), dtype=np.bool_)


def approximate_corruption(registration: Registration, box: Grid) -> AxisBlur:
    """The scan's profile as a convolution of the registered stack along its nearest axes (N = A, H = S, W = R).

    Approximate in two ways: the rotation between scan and template is rounded to whole axes, and the sampling is
    left out (the interpolated scan is compared everywhere, not only where samples lie).
    """
    kernels: list[Tensor | None] = [None, None, None]
    scan, scale = registration.first.scan, scale_of(registration.pose)
    to_template = np.linalg.inv(registration.pose)[:3, :3]
    directions = to_template @ scan.grid.affine[:3, :3]
    turned = Grid(scan.grid.shape, np.vstack([np.column_stack([directions, np.zeros(3)]), [0, 0, 0, 1]]))
    for axis, matrix in enumerate(registration.operator.matrices):
        if matrix is None:
            continue
        world, model = turned.world_axis(axis), scan.acquisition
        kernel = profile_kernel(box.spacing[world], model.thickness[axis] / scale, model.profile_along(axis))
        kernels[{0: 2, 1: 0, 2: 1}[world]] = kernel
    return AxisBlur(kernels)


def registered_stack(registration: Registration, box: Grid) -> tuple[Tensor, Tensor]:
    """The interpolated scan as slices of the prior's box, normalised, and where the scan has them: [Y, 1, Z, X]."""
    normalised = registration.first.normalisation.forward(registration.interpolated)
    stack = coronal_stack(resample_cubic(normalised, registration.grid, box, registration.pose, -1.0))
    seen = coronal_stack(resample(torch.ones_like(normalised), registration.grid, box, registration.pose)) > 0.999
    return stack, seen
