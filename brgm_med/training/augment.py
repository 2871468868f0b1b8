"""Random changes of training slices that leave them plausible: they are part of the distribution to be learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(image: Tensor, *, shift: int = 2, angle: float = 4.0, scale: float = 0.04, gain: float = 0.08) -> Tensor:
    """Augmented copies of normalised slices `image` [N, C, H, W] (air -1), drawn from torch's global generator.

    Left-right flips; shifts by up to `shift` whole pixels (exact); for half of the images a rotation by up to
    `angle` degrees and a scaling by up to +-`scale` (bicubic); a brightness factor within +-`gain` above air.
    """
    n = image.shape[0]
    flip, turned = torch.rand(n) < 0.5, torch.rand(n) < 0.5
    shifts = torch.randint(-shift, shift + 1, (n, 2)).tolist()
    angles = (torch.rand(n) * 2 - 1) * math.radians(angle)
    scales = 1 + (torch.rand(n) * 2 - 1) * scale
    gains = 1 + (torch.rand(n) * 2 - 1) * gain

    padded = F.pad(image, (shift,) * 4, value=-1.0)
    h, w = image.shape[2:]
    moved = torch.stack(
        [padded[i, :, shift + dy : shift + dy + h, shift + dx : shift + dx + w] for i, (dy, dx) in enumerate(shifts)]
    )
    moved = torch.where(flip[:, None, None, None], moved.flip(3), moved)

    cos, sin = torch.cos(angles) * scales, torch.sin(angles) * scales
    zero = torch.zeros(n)
    # Rotation in pixels, so that non-square images are not sheared.
    matrix = torch.stack([torch.stack([cos, sin * h / w, zero], 1), torch.stack([-sin * w / h, cos, zero], 1)], 1)[
        turned
    ]
    if len(matrix):
        grid = F.affine_grid(matrix, [len(matrix), *image.shape[1:]], align_corners=False)
        turned_images = F.grid_sample(moved[turned] + 1, grid, mode="bicubic", align_corners=False) - 1
        moved = moved.clone()
        moved[turned] = turned_images
    return (moved + 1) * gains[:, None, None, None] - 1
