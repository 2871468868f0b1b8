"""A generator that takes a batch in parts and keeps no intermediate result: memory for any number of slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from brgm_med.networks.noise import Noise
from brgm_med.posterior import Wrapping


@dataclass(frozen=True)
class Chunked(Wrapping):
    """`generator`, `size` images at a time. Their gradient is made of a second synthesis of each part, so that no more
    than one part's activations exist; it costs about a third more time and changes no value."""

    size: int

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        """Synthesis as the generator's. `noise` must not be "random": the second synthesis would draw others."""
        if noise == "random":
            raise ValueError("Chunked: random noise differs between the two syntheses of a part")
        images = []
        for first in range(0, len(ws), self.size):
            part = slice(first, first + self.size)
            maps = {k: v[part] for k, v in noise.items()} if isinstance(noise, Mapping) else noise
            if torch.is_grad_enabled():
                images.append(checkpoint(self.generator.synthesis, ws[part], maps, use_reentrant=False))
            else:
                images.append(self.generator.synthesis(ws[part], maps))
        return torch.cat(images)
