"""Inpainting of one volume: what happens between reading scan and mask and writing the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brgm_med.corruptions import Mask
from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.reconstruct.measurement import Problem, placed, pose_problem
from brgm_med.pipelines.reconstruct.registered import approximate_corruption, measured_stack
from brgm_med.posterior import Weights, whitened_posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.seams import blend_seamless
from brgm_med.solvers import fit_lbfgs
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.slices import coronal_stack
from brgm_med.transforms.template import Template

STEPS = 15
MARGIN = 4
"""So many slices on either side of a hole are searched with it: they tell what it most probably held."""

NOISE = 0.8
"""Standard deviation of what the generator leaves unexplained beside a hole, in units of the [-1, 1] range: larger than
its error there, since neighbouring errors are alike. Chosen on four choosing heads, of 0.15 to 3."""

INSIDE = 0.95
"""The least fraction of a mask's unknown voxels that must lie inside the scan."""


@dataclass(frozen=True)
class Filled:
    """`image` [X, Y, Z], the scan with its hole filled (outside the hole bit for bit the scan); `weight` [X, Y, Z] in
    [0, 1]: how far the prior is trusted (0: interpolation from the hole's rim alone)."""

    image: Tensor
    weight: Tensor
    problem: Problem
    slices: tuple[int, int]


def hole_on(mask: NDArray[np.generic], mask_grid: Grid, grid: Grid, known: bool = False) -> tuple[Tensor, bool]:
    """The unknown voxels [X, Y, Z] bool of a scan on `grid`, and whether `mask` had to be resampled.

    `mask` holds integers: not 0 is unknown, or, if `known`, 0 is. On another grid it is taken nearest-neighbour; what
    lies outside the mask image counts as known. Raises InputRefusedError for values that are no integers, for a mask
    that covers nothing or all of the scan, and for one of which less than `INSIDE` lies inside the scan.
    """
    if not np.isfinite(mask).all() or not np.array_equal(mask, np.rint(mask)):
        raise InputRefusedError("its values are not all integers; give a mask of 0 and 1")
    unknown = (mask == 0) if known else (mask != 0)
    if not unknown.any():
        raise InputRefusedError("it marks no voxel as unknown; did you mean the other sense (--mask-known)?")
    same = mask_grid.shape == grid.shape and np.allclose(mask_grid.affine, grid.affine, rtol=0, atol=1e-3)
    if not same:
        place = _indices(np.argwhere(unknown), mask_grid, grid)
        inside = float(_within(place, grid.shape).mean())
        if inside < INSIDE:
            raise InputRefusedError(
                f"only {inside:.0%} of its unknown voxels lie inside the scan; is it the mask of this scan?"
            )
        every = np.argwhere(np.ones(grid.shape, bool))
        place = _indices(every, grid, mask_grid)
        there = _within(place, mask_grid.shape)
        values = np.zeros(len(every), bool)
        values[there] = unknown[tuple(place[there].T)]
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


def infer_hole(
    stack: Tensor,
    known: Tensor,
    hidden: Tensor,
    profile: nn.Module,
    bundle: PriorBundle,
    *,
    steps: int = STEPS,
    device: torch.device | None = None,
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> tuple[Tensor, tuple[int, int]]:
    """The MAP of the slices of the prior's box through a hole: `stack` with those replaced, and their first and last.

    `stack` [Y, 1, Z, X], normalised; `known` and `hidden` of its shape, bool: where the likelihood holds, and the hole
    (what is neither lies outside the scan). `profile`: what the scanner averaged, see `approximate_corruption`. The
    slices through the hole and `MARGIN` on either side are searched together. Raises InputRefusedError for a hole that
    lies wholly outside the box.
    """
    through = hidden.flatten(1).any(1).nonzero()[:, 0].tolist()
    if not through:
        raise InputRefusedError("the hole lies wholly outside what the prior covers; nothing can be inferred there")
    first, last = max(0, through[0] - MARGIN), min(len(stack) - 1, through[-1] + MARGIN)
    searched, where = slice(first, last + 1), torch.device("cpu") if device is None else device
    mask = Mask(known[searched])
    whitened = bundle.whitened(where)
    whitened = dataclasses.replace(whitened, mean=whitened.mean[searched])
    measured = mask(stack[searched]).to(where)
    posterior = whitened_posterior(
        whitened, nn.Sequential(profile, mask).to(where), measured, None, Weights(noise=NOISE)
    )
    start = torch.zeros(last + 1 - first, 1, whitened.w_dim, device=where)
    whole = stack.clone()
    found = fit_lbfgs(posterior, start, steps=steps, curvature=whitened.curvature, callback=callback)
    whole[searched] = found.image.cpu()
    return whole, (first, last)


def fill(
    scan: Tensor,
    grid: Grid,
    hole: Tensor,
    acquisition: AcquisitionModel,
    bundle: PriorBundle,
    template: Template,
    *,
    steps: int = STEPS,
    device: torch.device | None = None,
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Filled:
    """The most probable content of the `hole` of a scan, [X, Y, Z] both, given all voxels outside it.

    What the scan holds inside the hole, NaN included, never enters: for registration and intensities the hole is
    interpolated from its rim, and the likelihood masks it. Where the prior does not reach, the interpolation stays.
    Raises InputRefusedError for a scan that cannot be registered, and as `infer_hole` does.
    """
    interpolated = blend_seamless(scan, torch.zeros_like(scan), hole, grid.spacing)
    problem = pose_problem(interpolated[None], grid, acquisition, bundle.spacing, template)
    box = template.box
    stack, seen = measured_stack(problem, box)
    known = coronal_stack(resample((~hole).float()[None], grid, box, problem.pose)) > 0.999
    profile = approximate_corruption(problem, box)
    whole, slices = infer_hole(
        stack, seen & known, seen & ~known, profile, bundle, steps=steps, device=device, callback=callback
    )
    volume, weight = (problem.corruption(v.double())[0] for v in placed(problem, whole, box))
    guess = interpolated.lerp(volume.to(interpolated.dtype), weight.to(interpolated.dtype))
    return Filled(blend_seamless(scan, guess, hole, grid.spacing), weight, problem, slices)
