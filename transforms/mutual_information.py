"""SimpleITK's part of registration: images and transforms in its convention (LPS), and the search for a pose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from brgm_med.transforms.formats.affine import RAS_LPS, make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import Pose

BINS = 32
Transform = sitk.Euler3DTransform | sitk.Similarity3DTransform
"""A rigid transform, or one that changes the size too."""


def to_sitk(values: NDArray[Any], grid: Grid) -> sitk.Image:
    """`values` [X, Y, Z] on `grid` as a SimpleITK image (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    affine = RAS_LPS @ grid.affine
    image.SetSpacing(grid.spacing)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / np.asarray(grid.spacing)).ravel().tolist())
    return image


def to_affine_transform(pose: Pose) -> sitk.AffineTransform:
    """`pose` (RAS) as a SimpleITK transform (LPS)."""
    lps = RAS_LPS @ pose @ RAS_LPS
    return sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())


def optimise(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: Transform,
    mask: sitk.Image | None,
    step: float,
    iterations: int,
) -> tuple[Transform, float]:
    """Maximise Mattes mutual information from `start`. Deterministic: every voxel, one thread.

    `start` is rigid, or a similarity whose size is searched too. Returns the transform and the negative information in
    nats: infinite, and `start`, where the images do not overlap.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, step / 200, iterations, 0.8, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    transform = type(start)(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        if "outside" not in str(error):
            raise
        return type(start)(start), math.inf
    return transform, float(method.GetMetricValue())


def information(fixed: sitk.Image, moving: sitk.Image, pose: Pose) -> float:
    """Mattes mutual information of both images in `pose`, nats a voxel: 0 where they do not overlap."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(to_affine_transform(pose))
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError as error:
        if "outside" not in str(error):
            raise
        return 0.0


def to_pose(transform: Transform) -> Pose:
    """A SimpleITK transform (LPS) as a pose (RAS)."""
    lps = make_affine(np.reshape(transform.GetMatrix(), (3, 3)), transform.TransformPoint((0.0, 0.0, 0.0)))
    return RAS_LPS @ lps @ RAS_LPS


@contextmanager
def one_thread() -> Iterator[None]:
    """SimpleITK on one thread: its joint histograms depend on how many there are, and the pose on them."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
