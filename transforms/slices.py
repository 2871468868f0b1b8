"""A volume in the prior's box as a stack of coronal slices, and back, exactly."""

from __future__ import annotations

import torch
from torch import Tensor


def coronal_stack(volume: Tensor) -> Tensor:
    """[1, X, Y, Z] with RAS+ axes -> [Y, 1, Z, X]: slices along A, rows superior first, columns left first."""
    return volume[0].flip(2).permute(1, 2, 0)[:, None]


def restack(stack: Tensor) -> Tensor:
    """[Y, 1, Z, X] -> [1, X, Y, Z]: the inverse of `coronal_stack`."""
    return stack[:, 0].permute(2, 0, 1).flip(2)[None]


def stack_affine(affine: Tensor, rows: int) -> Tensor:
    """(slice, row, column) of the stack -> world mm, from the volume's affine; `rows` is Z."""
    x, y, z, origin = affine.unbind(1)
    return torch.stack([y, -z, x, origin + (rows - 1) * z], 1)


def volume_affine(affine: Tensor, rows: int) -> Tensor:
    """The inverse of `stack_affine`."""
    slices, down, columns, origin = affine.unbind(1)
    return torch.stack([columns, slices, -down, origin + (rows - 1) * down], 1)
