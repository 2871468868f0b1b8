"""Heads brought to a template's box, as MONAI transforms: by rigid registration, with intensities or without."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, Transform

from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.keyed import InvertibleKeyed
from brgm_med.transforms.meta import grid_of, like
from brgm_med.transforms.register import resample_cubic, rigid_pose, similarity
from brgm_med.transforms.template import Pose, Template


class Registered(NamedTuple):
    """A head on the template's box, in its own units; its pose (template world -> scan world) and normalisation."""

    image: MetaTensor
    pose: Pose
    normalisation: Normalisation


def registered(image: MetaTensor, template: Template, pose: Pose | None = None) -> Registered:
    """Register a head [1, X, Y, Z] and resample it onto the box; `pose` given: no registration.

    The image's `meta` holds `pose` and `registration_correlation`. Where the scan ends, the value of air. The brain
    reaches out of the box, so intensities are measured before the box is cut out. Raises InputRefusedError as
    `rigid_pose` and `estimate` do.
    """
    values, grid = image.as_tensor(), grid_of(image)
    if pose is None:
        pose, correlation = rigid_pose(values, grid, template)
    else:
        correlation = similarity(values, grid, template, pose)[0]
    normalisation = estimate(values, grid, template, pose)
    resampled = resample_cubic(values, grid, template.box, pose, normalisation.low)
    note = {"pose": torch.from_numpy(pose), "registration_correlation": correlation}
    return Registered(like(image, resampled, template.box.affine, **note), pose, normalisation)


class RegisterRigid(InvertibleTransform):
    """MetaTensor [1, X, Y, Z] of a head -> the same on the template's box, by rigid registration.

    The result's affine is the box's, in template world; `meta["pose"]` [4, 4] maps that to the scan's world, and
    `meta["registration_correlation"]` tells how well it fits. `pose` given: no registration. Cubic B-spline
    interpolation; where the scan ends, the value of air. `inverse` resamples back to the scan's own grid, exactly
    where it was; outside the box, air. Raises InputRefusedError as `registered` does.
    """

    def __init__(self, template: Template) -> None:
        self.template = template

    def __call__(self, image: MetaTensor, pose: Pose | None = None) -> MetaTensor:
        out, pose, normalisation = registered(image, self.template, pose)
        grid = grid_of(image)
        info = {"pose": pose.tolist(), "affine": grid.affine.tolist(), "air": normalisation.low}
        self.push_transform(out, orig_size=grid.shape, extra_info=info)
        return out

    def inverse(self, image: MetaTensor) -> MetaTensor:
        step = self.pop_transform(image)
        info = step["extra_info"]
        x, y, z = (int(n) for n in step["orig_size"])
        target = Grid((x, y, z), np.asarray(info["affine"], np.float64))
        back = np.linalg.inv(np.asarray(info["pose"], np.float64))
        values = resample_cubic(image.as_tensor(), grid_of(image), target, back, info["air"])
        out = like(image, values, target.affine)
        del out.meta["pose"], out.meta["registration_correlation"]
        return out


class RegisterRigidd(InvertibleKeyed):
    """`RegisterRigid` for the entries `keys` of a dictionary, each registered for itself."""

    def __init__(self, keys: KeysCollection, template: Template, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, RegisterRigid(template), allow_missing_keys)


class RegisterNormalised(Transform):
    """MetaTensor [1, X, Y, Z] of a head -> the same on the template's box, air -1 and the mean of the brain 0.

    `RegisterRigid` and `NormaliseIntensity` in one. Raises InputRefusedError as `registered` does.
    """

    def __init__(self, template: Template) -> None:
        self.template = template

    def __call__(self, image: MetaTensor) -> MetaTensor:
        out, _, normalisation = registered(image, self.template)
        return like(out, normalisation.forward(out.as_tensor()), out.affine)
