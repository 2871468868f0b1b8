"""A MetaTensor's grid, and a MetaTensor of other values or another grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.transforms.geometry import Grid


def grid_of(image: MetaTensor) -> Grid:
    """The grid of a MetaTensor [C, X, Y, Z]."""
    return Grid.of(image, np.asarray(image.affine.cpu(), np.float64))


def like(image: MetaTensor, values: Tensor, affine: Tensor | NDArray[np.float64], **note: Any) -> MetaTensor:
    """`values` with `affine` [4, 4], and of `image` the other metadata and the applied operations; plus `note`."""
    meta = {key: value for key, value in image.meta.items() if key != "affine"} | note
    return MetaTensor(values, torch.as_tensor(affine, dtype=torch.float64), meta, list(image.applied_operations))
