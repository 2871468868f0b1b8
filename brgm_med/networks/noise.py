"""Noise maps: the spatial latent inputs of a generator, one number a pixel at several resolutions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Noise = str | Mapping[str, Tensor]
"""What a generator's layers add: "const", "random", "none", or maps [N, 1, h, w] by the name of their block, each
added by the block's first layer, while layers without a map add nothing."""

Shapes = Mapping[str, tuple[int, int]]
"""(rows, columns) of noise maps by the name of their block."""


def map_shapes(base: tuple[int, int], levels: int) -> dict[str, tuple[int, int]]:
    """The maps of a generator of so many resolutions that are latent variables: one a block, but for the first (its
    30 or so pixels belong to w) and the last (its noise is grain)."""
    return {f"b{base[0] << i}": (base[0] << i, base[1] << i) for i in range(1, levels - 1)}


def pixels(shapes: Shapes) -> int:
    """The number of pixels of all maps together."""
    return sum(h * w for h, w in shapes.values())


def join_maps(maps: Mapping[str, Tensor]) -> Tensor:
    """Maps [N, 1, h, w] -> their pixels [N, M], one map after the other."""
    return torch.cat([m.flatten(1) for m in maps.values()], 1)


def split_maps(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """The inverse of `join_maps`: pixels [N, M] -> maps [N, 1, h, w] of the given shapes."""
    parts = flat.split([h * w for h, w in shapes.values()], 1)
    return {name: part.reshape(-1, 1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def unit_maps(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each map [N, 1, h, w] shifted and scaled to zero mean and unit variance."""
    centred = {name: m - m.mean((2, 3), keepdim=True) for name, m in maps.items()}
    return {name: m * (m.square().mean((2, 3), keepdim=True) + 1e-12).rsqrt() for name, m in centred.items()}
