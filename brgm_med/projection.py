"""StyleGAN2's projection (Karras et al. 2020, arXiv 1912.04958, appendix D): one w for all layers, and noise maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from brgm_med.networks.noise import Noise, Shapes, pixels, split_maps, unit_maps
from brgm_med.posterior import Wrapping, WStatistics


@dataclass(frozen=True)
class OneW(Wrapping):
    """A generator in coordinates [N, 1, w_dim + M]: one w for all its layers, and the M pixels of noise maps.

    The maps have the given `shapes`, and enter at zero mean and unit variance. By default there are none (M = 0).
    """

    shapes: Shapes = field(default_factory=dict)

    @property
    def num_ws(self) -> int:
        return 1

    @property
    def w_dim(self) -> int:
        return self.generator.w_dim + pixels(self.shapes)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z -> w as the generator maps it, and maps of 0: [N, w_dim + M]."""
        return torch.nn.functional.pad(self.generator.mapping(z, c), (0, pixels(self.shapes)))

    def ws(self, coordinates: Tensor) -> Tensor:
        """Coordinates [N, 1, w_dim + M] -> W+ [N, num_ws, w_dim]."""
        return coordinates[:, :, : self.generator.w_dim].expand(-1, self.generator.num_ws, -1)

    def maps(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Coordinates [N, 1, w_dim + M] -> noise maps [N, 1, h, w] by the name of their block; none where M is 0."""
        return unit_maps(split_maps(coordinates[:, 0, self.generator.w_dim :], self.shapes))

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        """The image at coordinates `ws` [N, 1, w_dim + M]; without maps, `noise` as the generator takes it."""
        return self.generator.synthesis(self.ws(ws), noise=self.maps(ws) or noise)


def wander(statistics: WStatistics, shape: tuple[int, int], steps: int, seed: int = 0) -> Iterator[Tensor]:
    """Noise that StyleGAN2's projection adds to w while it searches (`fit_map`'s `wander`): normal noise that dies out.

    Its deviation is 0.05 sigma t^2, sigma that of `statistics`, and t falls from 1 to 0 over the first three quarters
    of the `steps`. `shape` (num_ws, K) is that of coordinates whose first w_dim are w, and only they wander; all images
    alike, so that what is found for one does not depend on the others.
    """
    random, w_dim = torch.Generator().manual_seed(seed), statistics.mean.shape[-1]
    for step in range(steps):
        strength = 0.05 * statistics.deviation * max(0.0, 1 - step / (0.75 * steps)) ** 2
        drawn = torch.randn(1, shape[0], w_dim, generator=random).to(statistics.mean)
        yield torch.nn.functional.pad(strength * drawn, (0, shape[1] - w_dim))
