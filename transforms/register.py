"""Rigid registration of a head to a template, with a check that the result is plausible."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.transforms.formats.affine import RAS_LPS, make_affine
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.mutual_information import (
    Transform,
    information,
    one_thread,
    optimise,
    to_affine_transform,
    to_pose,
    to_sitk,
)
from brgm_med.transforms.orientation import STARTS, Hypothesis, check_covered, check_orientation, recognise
from brgm_med.transforms.pyramid import clipped, head_centre, shrink
from brgm_med.transforms.template import Pose, Template

POOR_CORRELATION, T1_LIKE = 0.62, 0.5
LARGER = (1.05, 1.1)
"""Below the first correlation, less than any adult head measured, these sizes are tried, and taken where it rises above
the second: heads that were resampled to MNI space are about 9 % larger than life."""

FEWEST_VOXELS = 500


def resample_cubic(image: Tensor, source: Grid, target: Grid, pose: Pose | None = None, outside: float = 0.0) -> Tensor:
    """As `geometry.resample`, by cubic B-spline interpolation; `outside` where the source ends. Not differentiable."""
    reference = to_sitk(np.zeros(target.shape, np.uint8), target)
    options = to_affine_transform(np.eye(4) if pose is None else pose), sitk.sitkBSpline, outside, sitk.sitkFloat32
    moving = (to_sitk(channel.numpy().astype(np.float32), source) for channel in image)
    sampled = [sitk.GetArrayFromImage(sitk.Resample(m, reference, *options)).transpose(2, 1, 0) for m in moving]
    return torch.from_numpy(np.ascontiguousarray(np.stack(sampled)))


@one_thread()
def find_pose(image: Tensor, grid: Grid, template: Template) -> Pose:
    """The rigid pose of `image` [1, X, Y, Z] that maximises mutual information with the template; no check.

    Starts: centres of the two heads' upper parts matched, and pitch and height varied; the best after a short
    search at 8 mm is refined at 4 and 2 mm, the last within 14 mm of the brain.
    """
    values = clipped(image[0].numpy())
    scan, scan_grid = shrink(values, grid, 4.0, 3.0)
    coarse, coarse_grid = shrink(template.image[0].numpy(), template.grid, 8.0, 3.0)
    fixed, moving = to_sitk(coarse, coarse_grid), to_sitk(scan, scan_grid)
    middle = head_centre(*shrink(template.image[0].numpy(), template.grid, 4.0, 3.0))
    offset = RAS_LPS[:3, :3] @ (head_centre(scan, scan_grid) - middle)
    starts = [
        sitk.Euler3DTransform((0.0, 0.0, 0.0), np.deg2rad(pitch), 0.0, 0.0, np.add(offset, (0, 0, height)).tolist())
        for pitch, height in STARTS
    ]
    best, _ = min((optimise(fixed, moving, start, None, 8.0, 12) for start in starts), key=lambda item: item[1])
    return to_pose(refined(values, grid, template, template.near, best))


def refined(
    values: NDArray[np.float32], grid: Grid, template: Template, region: NDArray[np.bool_], transform: Transform
) -> Transform:
    """`transform` with more mutual information in a `region` of the template, searched at 4 and 2 mm."""
    inside = to_sitk(region.astype(np.float32), template.grid)
    for spacing, sigma, step, iterations in ((4.0, 3.0, 4.0, 60), (2.0, 1.0, 1.4, 90)):
        scan, scan_grid = shrink(values, grid, spacing, sigma)
        level, level_grid = shrink(template.image[0].numpy(), template.grid, 4.0, sigma / 3)
        fixed, moving = to_sitk(level, level_grid), to_sitk(scan, scan_grid)
        mask = sitk.Cast(sitk.Resample(inside, fixed), sitk.sitkUInt8)
        transform, _ = optimise(fixed, moving, transform, mask, step, iterations)
    return transform


def _detail(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """The detail finer than 20 mm (Gaussian sigma): folds, ventricles, skull, but neither outline nor bias field."""
    return values - ndi.gaussian_filter(values, 20.0 / np.asarray(grid.spacing), mode="nearest")


def similarity(image: Tensor, grid: Grid, template: Template, pose: Pose) -> tuple[float, float]:
    """(Pearson correlation of scan and template, covered fraction), within 14 mm of the template's brain.

    Correlated is the detail between 4 and 20 mm. Measured on 3 T T1 heads at 2 mm: 0.67 to 0.89 for heads, the same
    in 6 to 8 mm slices along any axis; at most 0.33 for noise, spheres, shells, and heads whose header is turned by
    90 or 180 degrees.
    """
    there = resample(torch.ones_like(image), grid, template.grid, pose)[0].numpy() > 0.5
    use = template.near & there
    covered = float(use.sum() / template.near.sum())
    if use.sum() < FEWEST_VOXELS:
        return 0.0, covered
    smooth, small = shrink(clipped(image[0].numpy()), grid, 4.0, 4.0)
    seen = resample(torch.from_numpy(smooth)[None], small, template.grid, pose, padding="border")[0].numpy()
    scan, model = _detail(seen, template.grid)[use], _detail(template.image[0].numpy(), template.grid)[use]
    if min(scan.std(), model.std()) == 0:
        return 0.0, covered
    return float(np.corrcoef(scan, model)[0, 1]), covered


def scale_of(pose: Pose) -> float:
    """The scan's size in units of the template's: 1 for a rigid pose."""
    return float(np.cbrt(np.linalg.det(pose[:3, :3])))


@one_thread()
def pose_of(hypothesis: Hypothesis, image: Tensor, grid: Grid, template: Template) -> Pose:
    """The pose of a head `image` on `grid`, from a rough hypothesis of it: its size is searched only if it is not 1.

    Within 14 mm of the brain, as `find_pose` does. In some T2-weighted heads that search goes astray: where it loses a
    tenth of the information of the whole head, that within 25 mm is taken.
    """
    model = template.without_skull if hypothesis.stripped else template
    values, moved = clipped(image[0].numpy()), hypothesis.grid(grid)
    start = hypothesis.transform
    if hypothesis.size != 1:
        start = sitk.Similarity3DTransform()
        start.SetMatrix(hypothesis.transform.GetMatrix())
        start.SetTranslation(hypothesis.transform.TransformPoint((0.0, 0.0, 0.0)))
    scan, whole = (
        to_sitk(*shrink(values, moved, 7.0, 3.0)),
        to_sitk(*shrink(model.image[0].numpy(), model.grid, 12.0, 3.0)),
    )
    pose = to_pose(refined(values, moved, model, template.near, start))
    if information(whole, scan, pose) < 0.9 * information(whole, scan, to_pose(start)):
        pose = to_pose(refined(values, moved, model, template.wide, start))
    return np.linalg.inv(make_affine(hypothesis.turn / hypothesis.size, np.zeros(3))) @ pose


def rigid_pose(image: Tensor, grid: Grid, template: Template) -> tuple[Pose, float]:
    """The pose of a head `image` [1, X, Y, Z] on `grid`, of any contrast, with its skull or without, and its Pearson
    correlation with the T1-weighted template near the brain (`similarity`): a measure of how T1-like it is.

    Rigid. Only where a head of another size has 20 % more information on the template, of .75 to 1.15 times its size,
    the pose is that size times a rotation (`scale_of`): children. A T1-weighted head that fits poorly is also tried in
    the sizes `LARGER`.

    Raises InputRefusedError when less than half of the neighbourhood of the brain is in the field of view, and when the
    scan does not fit the template better in the orientation that its header states than in all others (`recognise`).
    Deterministic.
    """
    stated, turned = recognise(clipped(image[0].numpy()), grid, template)
    check_orientation(stated, turned)
    pose = pose_of(stated, image, grid, template)
    correlation, covered = similarity(image, grid, template, pose)
    if correlation < POOR_CORRELATION:
        for scale in LARGER:
            enlarge = np.diag([scale, scale, scale, 1.0])
            shrunk = Grid(grid.shape, np.linalg.inv(enlarge) @ grid.affine)
            other = enlarge @ find_pose(image, shrunk, template)
            fit = similarity(image, grid, template, other)
            if fit[0] > max(correlation, T1_LIKE):
                pose, (correlation, covered) = other, fit
    check_covered(covered)
    return pose, correlation
