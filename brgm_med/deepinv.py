"""deepinv both ways: its physics as our corruptions, our posterior as one of its reconstructors. It is not imported.

Its images are in [0, 1], ours in [-1, 1]: x = 2 u - 1, so that of a linear A, A x = 2 A u - A 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brgm_med.corruptions import Mask
from brgm_med.errors import BrgmError
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import reconstruct_slices, slices_search


class PhysicsCorruption(nn.Module):
    """A of a deepinv physics, without its noise, as a corruption of images [N, C, H, W] in [-1, 1].

    It is computed in float32, whatever x is: in float64 torch's convolutions are a hundred times slower. So what is
    made consistent gives y back to float32's accuracy. `project` and the like check whether A is linear.
    """

    rounding = 1e-5  # that of float32, see `consistency.check_linear`

    def __init__(self, physics: Any) -> None:
        super().__init__()
        self._physics = (physics,)  # not a submodule: `double()` leaves it alone

    @property
    def physics(self) -> Any:
        return self._physics[0]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.physics.A(x.float())
        return y.to(x.dtype)

    def measured(self, y: Tensor, shape: Sequence[int]) -> Tensor:
        """Measurement `y` that deepinv made of images in [0, 1], as the measurement of the same in [-1, 1]: 2 y - A 1.

        `shape` (C, H, W): of the images.
        """
        ones = torch.ones(len(y), *shape, dtype=y.dtype, device=y.device)
        with torch.no_grad():
            return 2 * y - self(ones)


def corruption_of(physics: Any, shape: Sequence[int]) -> nn.Module:
    """A deepinv physics as a corruption of images of `shape` (C, H, W): its `Inpainting` with one mask for all images
    and channels as our `Mask`, whose solvers know it; everything else as it is."""
    mask = getattr(physics, "mask", None)
    if isinstance(mask, Tensor):
        known = mask.expand(1, *shape)[0] if mask.ndim <= 4 and (mask.ndim < 4 or len(mask) == 1) else None
        if known is not None and bool(((known == 0) | (known == 1)).all()) and bool((known == known[:1]).all()):
            image = physics.A(torch.ones(1, *shape, dtype=mask.dtype, device=mask.device))
            if torch.equal(image, known[None]):
                return Mask(known[0] == 1)
    return PhysicsCorruption(physics)


class SlicesReconstructor(nn.Module):
    """A prior of a volume as a deepinv reconstructor of slices: (y, physics) -> images [N, 1, H, W] in [0, 1].

    `reconstruct_slices`, without its linear companion (whose solution takes A's whole matrix), for any linear physics,
    at positions `index` of the prior's box: one for all images of a batch, or one for each. In [0, 1], air is 0 and the
    mean of the brain 1/2. Noise is that of the physics' Gaussian noise model, if it has one. Raises BrgmError for more
    images than positions, and where noise-free values cannot be given back in floating point (a strong blur);
    ValueError when the physics is not linear.
    """

    def __init__(self, prior: PriorBundle, index: int | Sequence[int], iterations: int | None = None) -> None:
        super().__init__()
        self.prior, self.index, self.iterations = prior, index, iterations

    def forward(self, y: Tensor, physics: Any, **_: Any) -> Tensor:
        index = [self.index] * len(y) if isinstance(self.index, int) else list(self.index)
        if len(index) != len(y):
            raise BrgmError(f"{len(y)} images and {len(index)} positions: give one for each, or one for all")
        shape = (1, *self.prior.image_shape)
        corruption = corruption_of(physics, shape)
        values = corruption.measured(y, shape) if isinstance(corruption, PhysicsCorruption) else 2 * y - 1
        sigma = getattr(getattr(physics, "noise_model", None), "sigma", 0.0)
        deviation = 2 * float(torch.as_tensor(sigma).max())
        if not math.isfinite(deviation):
            deviation = 0.0
        search = slices_search(corruption).limited_to(self.iterations)
        with torch.enable_grad():  # the search needs it, and deepinv's loops switch it off
            y = values.detach()
            image = reconstruct_slices(self.prior, index, corruption, y, search=search, deviation=deviation)
        return (image.detach() + 1) / 2
