"""A volume in the prior's box as a stack of coronal slices, and back, exactly."""

from __future__ import annotations

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from torch import Tensor

from brgm_med.transforms.keyed import InvertibleKeyed
from brgm_med.transforms.meta import like


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


def _volume_affine(affine: Tensor, rows: int) -> Tensor:
    """The inverse of `stack_affine`."""
    slices, down, columns, origin = affine.unbind(1)
    return torch.stack([columns, slices, -down, origin + (rows - 1) * down], 1)


class CoronalSlices(InvertibleTransform):
    """[1, X, Y, Z] MetaTensor with RAS+ axes -> [Y, 1, Z, X]; `inverse` restacks, bit for bit.

    The stack's `.affine` maps (slice, row, column) to world mm. Raises ValueError for other axes.
    """

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        axes = volume.affine[:3, :3].abs().argmax(0).tolist()
        if volume.ndim != 4 or volume.shape[0] != 1 or axes != [0, 1, 2] or (volume.affine.diagonal() <= 0).any():
            raise ValueError("CoronalSlices takes [1, X, Y, Z] with RAS+ axes: register it first")
        stack = like(volume, coronal_stack(volume.as_tensor()), stack_affine(volume.affine, volume.shape[3]))
        self.push_transform(stack, orig_size=tuple(volume.shape[1:]))
        return stack

    def inverse(self, stack: MetaTensor) -> MetaTensor:
        self.pop_transform(stack)
        return like(stack, restack(stack.as_tensor()), _volume_affine(stack.affine, stack.shape[2]))


class CoronalSlicesd(InvertibleKeyed):
    """`CoronalSlices` for the entries `keys` of a dictionary."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, CoronalSlices(), allow_missing_keys)
