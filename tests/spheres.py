"""Random spheres of one contrast, and thick slices of them: quick to reconstruct from."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from brgm_med.pipelines import Scan
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid

SIZE, STEP = 40, 4
QUICK = VOLUME.limited_to(3)


@cache
def spheres() -> Tensor:
    """Random spheres, as sharp along every axis: [1, SIZE, SIZE, SIZE], air 0."""
    random = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1)
    volume = np.full((SIZE,) * 3, 40.0)
    for _ in range(60):
        centre, radius, level = random.uniform(0, SIZE, 3), random.uniform(3, 9), random.uniform(30, 150)
        volume += (level - volume) * np.clip(radius - np.linalg.norm(index - centre, axis=-1) + 0.5, 0, 1)
    return torch.from_numpy(volume[None].astype(np.float32))


def scan_of(volume: Tensor, axis: int, name: str = "the scan") -> Scan:
    """Slices of `STEP` mm along `axis` of a volume with voxels of 1 mm."""
    shape, spacing = list(volume.shape[1:]), [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = shape[axis] // STEP, float(STEP)
    affine = np.diag([*spacing, 1.0])
    affine[axis, 3] = (STEP - 1) / 2
    values = volume.unflatten(axis + 1, (shape[axis], STEP)).mean(axis + 2)
    x, y, z = spacing
    return Scan(values, Grid((shape[0], shape[1], shape[2]), affine), AcquisitionModel((x, y, z), "box", axis), 0, name)
