"""Intensities of the prior: air is -1 and the mean of a brain 0, or a picture's range -1 to 1. Undone exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.template import Pose, Template

LOW_PERCENTILE = 1.0
FEWEST_VOXELS = 500


@dataclass(frozen=True)
class Normalisation:
    """The map v -> (v - low) / scale - 1 and its inverse. `low` is the scan's value of air and `scale` the distance
    from there to the mean of its brain (> 0), both in the scan's own units."""

    low: float
    scale: float

    @classmethod
    def of_range(cls, low: float, high: float) -> Normalisation:
        """Normalise a picture: `low` becomes -1 and `high` 1, which are its `range`. Nothing is clipped."""
        return cls(low, (high - low) / 2)

    def forward(self, values: Tensor) -> Tensor:
        """Scan units -> normalised: air -1, brain 0; fat may be over 1. Any shape."""
        return (values - self.low) / self.scale - 1

    def inverse(self, values: Tensor) -> Tensor:
        """Normalised -> scan units. Any shape."""
        return (values + 1) * self.scale + self.low


def estimate(image: Tensor, grid: Grid, template: Template, pose: Pose) -> Normalisation:
    """The normalisation of a registered scan `image` [1, X, Y, Z].

    Air: the median where the template is air (more than 8 mm from the head) and the scan has voxels; where fewer than
    500 voxels are, its 1st percentile. Brain: the mean inside the template's mask. Averages over large regions:
    blurring and thick slices hardly move them. Raises InputRefusedError when the brain is not brighter than air.
    """
    there = resample(torch.ones_like(image), grid, template.grid, pose)[0].numpy() > 0.5
    values = resample(image, grid, template.grid, pose, padding="border")[0].numpy()
    brain = there & (template.mask[0].numpy() > 0)
    if brain.sum() < FEWEST_VOXELS:
        raise InputRefusedError("the scan hardly covers the brain; give a scan of the whole head")
    air = template.air & there
    low = np.median(values[air]) if air.sum() >= FEWEST_VOXELS else np.percentile(image.numpy(), LOW_PERCENTILE)
    scale = float(values[brain].mean() - low)
    if not scale > 0:
        raise InputRefusedError(
            "the brain is not brighter than the air around it; give a T1-weighted magnitude image of a head"
        )
    return Normalisation(float(low), scale)
