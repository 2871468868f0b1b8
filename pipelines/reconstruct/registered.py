"""A scan as a stack of slices in the prior's box, and what was measured of such a stack, about."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from brgm_med.corruptions import AxisBlur, profile_kernel
from brgm_med.pipelines.reconstruct.measurement import Problem
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import resample_cubic, scale_of
from brgm_med.transforms.slices import coronal_stack


def approximate_corruption(problem: Problem, box: Grid) -> AxisBlur:
    """The scan's profile as a convolution of the registered stack along its nearest axes (N = A, H = S, W = R).

    Approximate in two ways: the rotation between scan and template is rounded to whole axes, and the sampling is
    left out (the interpolated scan is compared everywhere, not only where samples lie).
    """
    kernels: list[Tensor | None] = [None, None, None]
    scale = scale_of(problem.pose)
    to_template = np.linalg.inv(problem.pose)[:3, :3]
    directions = to_template @ problem.first.grid.affine[:3, :3]
    turned = Grid(problem.first.grid.shape, np.vstack([np.column_stack([directions, np.zeros(3)]), [0, 0, 0, 1]]))
    for axis, matrix in enumerate(problem.corruption.matrices):
        if matrix is None:
            continue
        world = turned.world_axis(axis)
        model = problem.first.acquisition
        kernel = profile_kernel(box.spacing[world], model.thickness[axis] / scale, model.profile_along(axis))
        kernels[{0: 2, 1: 0, 2: 1}[world]] = kernel
    return AxisBlur(kernels)


def measured_stack(problem: Problem, box: Grid) -> tuple[Tensor, Tensor]:
    """The interpolated scan as slices of the prior's box, normalised, and where the scan has them: [Y, 1, Z, X]."""
    normalised = problem.first.normalisation.forward(problem.interpolated)
    stack = coronal_stack(resample_cubic(normalised, problem.fine, box, problem.pose, -1.0))
    seen = coronal_stack(resample(torch.ones_like(normalised), problem.fine, box, problem.pose)) > 0.999
    return stack, seen
