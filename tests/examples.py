"""Every corruption that the package exports, at a small size, with what it is linear in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from brgm_med.corruptions import (
    AxisBlur,
    BiasField,
    Blur,
    Downsample,
    Grey,
    KSpace,
    Mask,
    MotionBetweenLines,
    ObliqueProfile,
    Separable,
    SliceProfile,
    StackAsVolume,
    Together,
    profile_inside,
    profile_kernel,
    profile_matrix,
    profile_nodes,
)
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile

SHAPE = (2, 3, 12, 18)
"""Images [N, C, H, W] that every corruption of pictures fits."""
SOURCE = Grid((13, 15, 12), np.diag([2.0, 2.0, 2.0, 1.0]))
"""The volume that the oblique scans are taken of."""
PROFILES = ("box", "gaussian", "trapezoid")


class Example(NamedTuple):
    """`corruption` of images of `shape`; `batch`: the axis along which its measurement counts the images of a batch
    (the first axis of `shape`), or None where neighbouring images share a measurement."""

    corruption: nn.Module
    shape: tuple[int, ...]
    batch: int | None = 0


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(*shape: int, share: float = 0.5, seed: int = 1) -> Tensor:
    """A random mask, true at about `share` of the pixels."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def scan(shape: tuple[int, int, int] = (9, 10, 8)) -> SliceProfile:
    """The first axis as it is, slices of 5 mm along the second, a Gaussian profile with gaps along the third."""
    return SliceProfile(
        (None, profile_matrix(shape[1], 2.0, 4, 5.0, 5.0), profile_matrix(shape[2], 1.0, 3, 2.5, 2.0, "gaussian")),
        (None, None, profile_inside(shape[2], 1.0, 3, 2.5, 2.0, "gaussian")),
    )


def blur() -> AxisBlur:
    return AxisBlur((profile_kernel(2.0, 6.0), profile_kernel(2.0, 5.0, "gaussian"), None))


def motion(n: int = 18, axis: int = -1) -> MotionBetweenLines:
    groups = torch.randint(3, (n,), generator=torch.Generator().manual_seed(2))
    shifts = torch.tensor([[0.0, 0.0], [1.3, -0.6], [-0.4, 2.2]])
    return MotionBetweenLines(groups, torch.tensor([0.0, 4.0, -7.0]), shifts, axis)


def posed(seed: int) -> tuple[Grid, AcquisitionModel]:
    """A scan at a random angle through the middle of SOURCE, with a random thickness, gap and profile."""
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(1.5, 3.0, 3)
    axis = int(rng.integers(3))
    spacing[axis] = rng.uniform(3.0, 7.0)
    thickness = spacing.copy()
    thickness[axis] = spacing[axis] * rng.uniform(0.5, 1.3)  # a gap, or an overlap
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    shape = (6, 5, 4)
    middle = SOURCE.corners().mean(0)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2) + rng.normal(0, 1, 3)
    model = AcquisitionModel(tuple(thickness.tolist()), PROFILES[seed % 3], axis)  # type: ignore[arg-type]
    return Grid(shape, affine), model


def oblique(seed: int, interpolation: str = "cubic") -> ObliqueProfile:
    """A random oblique scan of SOURCE; with linear interpolation its profile is a box along every axis."""
    grid, model = posed(seed)
    profile = oblique_profile(model, grid, SOURCE)
    if interpolation == "cubic":
        return profile
    nodes = [profile_nodes(t, "box", 2.0) for t in model.thickness]
    nodes = [(p / s, w) for (p, w), s in zip(nodes, grid.spacing, strict=True)]
    return ObliqueProfile(profile.to_source, SOURCE.shape, grid.shape, nodes, interpolation)  # type: ignore[arg-type]


PIXELS = {
    "box": Downsample((3, 2)),
    "gaussian": Downsample(3, "gaussian"),
    "bicubic": Downsample((2, 3), "bicubic"),
    "lanczos": Downsample((4, 1), "lanczos"),
    "any kernel": Downsample((2, 3), randn(4, 5)),
    "one kernel for both axes": Downsample(3, randn(5)),
    "blur": Blur(0.8),
    "blur along rows": Blur((1.1, 0.0)),
    "point spread": Blur(kernel=randn(3, 5)),
    "bias": BiasField.smooth(0.3 * randn(3, 4), SHAPE[2:]),
    "grey": Grey(),
    "mask": Mask(some(*SHAPE[2:])),
    "lines": KSpace(some(18, share=0.4)),
    "lines along rows": KSpace(some(12, share=0.4), -2),
    "motion": motion(),
    "motion along rows": motion(12, -2),
}
COMPOSED = {
    "blurred, coarse, masked": nn.Sequential(Blur(0.7), Downsample(2, "gaussian"), Mask(some(6, 9))),
    "biased, moved, undersampled": nn.Sequential(
        BiasField.smooth(0.2 * randn(2, 2), SHAPE[2:]), motion(), KSpace(some(18))
    ),
    "grey and coarse": nn.Sequential(Grey(), Downsample(3, "lanczos")),
}
VOLUMES = {
    "matrices": Example(Separable((randn(4, 6), None, randn(7, 3))), (2, 6, 5, 3)),
    "slice profile": Example(scan(), (2, 9, 10, 8)),
    "slice profile, masked": Example(nn.Sequential(scan(), Mask(some(9, 4, 3))), (2, 9, 10, 8)),
    "stack as volume": Example(StackAsVolume(), (4, 2, 5, 6), batch=1),
    "blurred stack": Example(blur(), (7, 1, 8, 6), batch=None),
    "blurred and coarse stack": Example(nn.Sequential(blur(), Downsample(2)), (5, 1, 8, 6), batch=None),
    "several scans": Example(Together([oblique(0), oblique(1)], [1.0, 3.0]), (1, *SOURCE.shape), batch=None),
    **{f"oblique scan {seed}": Example(oblique(seed), (2, *SOURCE.shape)) for seed in range(9)},
    **{f"oblique scan {seed}, linear": Example(oblique(seed, "linear"), (2, *SOURCE.shape)) for seed in range(9)},
}
EXAMPLES = {name: Example(f, SHAPE) for name, f in (PIXELS | COMPOSED).items()} | VOLUMES
"""Name -> example: every corruption that the package exports, and some compositions."""
