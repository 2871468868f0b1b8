"""MONAI transforms between a volume in the prior's box and its coronal slices, exactly. See `slices`."""

from __future__ import annotations

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform

from brgm_med.transforms.keyed import InvertibleKeyed
from brgm_med.transforms.meta import like
from brgm_med.transforms.slices import coronal_stack, restack, stack_affine, volume_affine


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
        return like(stack, restack(stack.as_tensor()), volume_affine(stack.affine, stack.shape[2]))


class CoronalSlicesd(InvertibleKeyed):
    """`CoronalSlices` for the entries `keys` of a dictionary."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, CoronalSlices(), allow_missing_keys)
