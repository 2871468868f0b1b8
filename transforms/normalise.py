"""MONAI transforms of intensities: air is -1 and the mean of the brain 0, undone exactly. See `intensity`."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform

from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.keyed import InvertibleKeyed
from brgm_med.transforms.meta import grid_of, like
from brgm_med.transforms.template import Pose, Template


class NormaliseIntensity(InvertibleTransform):
    """MetaTensor [1, X, Y, Z] in the template's space -> the same with air -1 and the mean of the brain 0.

    `pose` (template world -> the image's world) allows an unregistered image. `inverse` restores its units, also of
    a stack made of it. Raises InputRefusedError as `estimate` does.
    """

    def __init__(self, template: Template) -> None:
        self.template = template

    def __call__(self, image: MetaTensor, pose: Pose | None = None) -> MetaTensor:
        own = estimate(image.as_tensor(), grid_of(image), self.template, np.eye(4) if pose is None else pose)
        out = like(image, own.forward(image.as_tensor()), image.affine)
        self.push_transform(out, extra_info=asdict(own))
        return out

    def inverse(self, image: MetaTensor) -> MetaTensor:
        own = Normalisation(**self.pop_transform(image)["extra_info"])
        return like(image, own.inverse(image.as_tensor()), image.affine)


class NormaliseIntensityd(InvertibleKeyed):
    """`NormaliseIntensity` for the entries `keys` of a dictionary."""

    def __init__(self, keys: KeysCollection, template: Template, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, NormaliseIntensity(template), allow_missing_keys)
