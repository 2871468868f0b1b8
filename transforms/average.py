"""Building a template: the mean of many heads, rigidly aligned to each other, with its mid-sagittal plane at x = 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.pyramid import head_centre, shrink
from brgm_med.transforms.register import find_pose
from brgm_med.transforms.template import TEMPLATE_SHAPE, Pose, Template, centred, centred_grid

FEWEST_HEADS = 3
ROUGH_HEADS = 24


def half_mirror(template: Template) -> Pose:
    """The rigid map H [4, 4], new world -> old world, that puts the template's plane of symmetry at x = 0.

    With M the mirror x -> -x, register the template to its mirror image: P. Then M P is the reflection that maps
    the template onto itself; H M H^-1 = M P holds for H = P^-1/2, because M H M = H^-1 for what mirroring corrects.
    """
    mirrored = Grid(template.grid.shape, np.diag([-1.0, 1.0, 1.0, 1.0]) @ template.grid.affine)
    pose = find_pose(template.image, mirrored, template)
    root = np.real(np.asarray(sqrtm(pose), np.complex128))
    return np.linalg.inv(root).astype(np.float64)


def mean_image(heads: Iterable[tuple[Tensor, Grid]], poses: Sequence[Pose], target: Grid) -> Tensor:
    """The mean [1, X, Y, Z] on `target` of the posed heads, each divided by its 95th percentile first."""
    total = torch.zeros(1, *target.shape)
    for (image, grid), pose in zip(heads, poses, strict=True):
        total += resample(image / float(np.percentile(image.numpy(), 95)), grid, target, pose)
    return total / len(poses)


def build_template(
    heads: Sequence[tuple[Tensor, Grid]], rounds: int = 2, progress: Callable[[str], None] = lambda line: None
) -> tuple[Template, list[Pose]]:
    """The template of `heads` (each [1, X, Y, Z] and its grid) and each head's pose in it.

    Starts from heads matched by their centres; `rounds` rough rounds (at most 24 heads, evenly taken) of registering
    all, averaging and centring; then one round of all heads. 3 s per head and round. Heads are read one at a time,
    so a lazy sequence does. Raises InputRefusedError for fewer than 3 heads.
    """
    if len(heads) < FEWEST_HEADS:
        raise InputRefusedError(f"{len(heads)} heads are too few for a template; give at least {FEWEST_HEADS}")
    every = range(len(heads))
    rough = every[:: -(-len(heads) // ROUGH_HEADS)]
    pairs = (heads[i] for i in rough)
    centres = (head_centre(*shrink(image[0].numpy(), grid, 4.0, 3.0)) for image, grid in pairs)
    poses = [make_affine(np.eye(3), centre) for centre in centres]
    target = centred_grid(TEMPLATE_SHAPE, 2.0, (0.0, 0.0, 0.0))
    template, shift = centred(mean_image((heads[i] for i in rough), poses, target), target)
    for number in range(rounds + 1):
        members = rough if number < rounds else every
        progress(f"template: round {number + 1} of {rounds + 1}, {len(members)} heads")
        poses = [find_pose(*heads[i], template) for i in members]
        half = half_mirror(template)
        poses = [pose @ half for pose in poses]
        mean = mean_image((heads[i] for i in members), poses, template.grid)
        template, shift = centred(mean, template.grid)
    return template.trimmed(), [pose @ shift for pose in poses]
