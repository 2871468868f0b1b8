"""Any decoder as a generator: a VAE's, an autoencoder's, an image model of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from brgm_med.networks.noise import Noise


@dataclass(frozen=True)
class DecoderGenerator:
    """A decoder behind the `Generator` protocol: one w, the decoder's own latent variable z, N(0, I) a priori.

    `decode` maps z [N, *latent_shape] to images [N, C, H, W], about [-1, 1], each on its own (a module in evaluation
    mode); it is called, never changed. `image_shape` is (H, W). The paper's section 2.2: any generator with a low-
    dimensional space will do. With num_ws 1 there is nothing for a `Colinear` prior to judge (it is 0); the prior is
    `Gaussian(torch.zeros(w_dim), torch.ones(()), 0.5)`, and the search starts at zeros [N, 1, w_dim].
    """

    decode: Callable[[Tensor], Tensor]
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int]

    @property
    def num_ws(self) -> int:
        return 1

    @property
    def w_dim(self) -> int:
        return math.prod(self.latent_shape)

    @property
    def z_dim(self) -> int:
        return self.w_dim

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N, z_dim] -> w = z. Raises ValueError for a condition: a decoder takes none."""
        if c is not None:
            raise ValueError("DecoderGenerator: a decoder takes no condition")
        return z

    def synthesis(self, ws: Tensor, noise: Noise = "none") -> Tensor:
        """w [N, 1, w_dim] -> image [N, C, H, W]. It has no noise inputs, so "const" and "none" are the same, and
        random noise and maps are refused by a ValueError."""
        if noise not in ("const", "none"):
            raise ValueError("DecoderGenerator: a decoder has no noise inputs")
        if ws.shape[1:] != (1, self.w_dim):
            raise ValueError(f"DecoderGenerator: ws must be [N, 1, {self.w_dim}], not {tuple(ws.shape)}")
        image = self.decode(ws.reshape(-1, *self.latent_shape))
        if image.shape[-2:] != self.image_shape:
            raise ValueError(f"DecoderGenerator: decoded {tuple(image.shape)}, not images of {self.image_shape}")
        return image
