"""A trainer's world at its smallest: 12 x 12 pictures, three networks of a few hundred weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture, TrainState

ARCHITECTURE = Architecture(
    base_shape=(3, 3),
    z_dim=6,
    w_dim=5,
    c_dim=4,
    generator_channels=(8, 6, 4),
    discriminator_channels=(8, 6, 4),
    encoder_channels=(8, 6, 4),
    mapping_layers=2,
)
RECIPE = Recipe(batch=4, reconstruction_only=8, r1_every=2, half_life=40.0)


def stacks(heads: int = 3, positions: int = 5) -> NDArray[np.float16]:
    """[heads, positions, 1, 12, 12]: discs that grow towards the middle, air -1."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:12, :12] - 5.5
    made = np.empty((heads, positions, 1, 12, 12), np.float16)
    for h in range(heads):
        for p in range(positions):
            radius = 3 + 2 * np.sin(np.pi * (p + 0.5) / positions) + random.uniform(-0.3, 0.3)
            inside = np.clip(radius - np.hypot(x, y), 0, 1)
            made[h, p, 0] = -1 + inside * (1 + 0.2 * random.standard_normal((12, 12)))
    return made


def state(**changes: object) -> TrainState:
    return TrainState.new(dataclasses.replace(ARCHITECTURE, **changes), seed=0, rate=RECIPE.rate)  # type: ignore[arg-type]


def numbers(state: TrainState) -> dict[str, torch.Tensor]:
    """Every number that a state holds, by name."""
    modules: dict[str, nn.Module] = {name: value for name, value in vars(state).items() if isinstance(value, nn.Module)}
    held = {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}
    for name, adam in state.optimisers.items():
        for i, moments in adam.state_dict()["state"].items():
            held |= {f"adam.{name}.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        held[f"adam.{name}.rate"] = torch.tensor([g["lr"] for g in adam.param_groups])
    return held | {"iteration": torch.tensor(state.iteration), "images": torch.tensor(state.images)}


def differing(a: TrainState, b: TrainState) -> list[str]:
    """Names of what is not equal to the last bit."""
    one, two = numbers(a), numbers(b)
    assert one.keys() == two.keys()
    return [k for k in one if not torch.equal(one[k], two[k])]
