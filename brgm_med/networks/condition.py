"""Position of a slice, as the condition of a network."""

from __future__ import annotations

import torch
from torch import Tensor


def position_code(position: Tensor, size: int) -> Tensor:
    """Position [N] in [-1, 1] (posterior to anterior) -> code [N, size].

    Gaussian bumps whose centres are spread evenly over [-1, 1], so that neighbouring positions have like codes.
    """
    centres = torch.linspace(-1, 1, size, dtype=position.dtype, device=position.device)
    width = 2.0 / (size - 1)
    return torch.exp(-0.5 * ((position[:, None] - centres) / width).square())
