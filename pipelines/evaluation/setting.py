"""The signature of every method: a function from a measurement and its corruption to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from brgm_med.perceptual import LPIPS
from brgm_med.priors.bundle import PriorBundle

Method = Callable[[Tensor, nn.Module], Tensor]
"""Measurement y [N, ...] and corruption -> images [N, C, H, W], in about [-1, 1] (air -1). Deterministic.

The corruption maps images [N, C, H, W] to y: a `SliceProfile` over (C, H, W), or a `Mask` of known pixels [H, W].
"""


@dataclass(frozen=True)
class Setting:
    """The knowledge that a method has of the images of one subject, besides their measurement.

    `shape` (C, H, W); `index`: each image's position in the prior's box (0 for a prior of pictures); `trained_for`: the
    problem that a trained baseline was trained for, such as "sr-4"; `baselines`: the folder where those are kept;
    `features`: LPIPS, where its weights are there; `noise`: of the measurement, standard deviation as stated by whoever
    measured; `seed`, for methods that draw.
    """

    bundle: PriorBundle
    shape: tuple[int, int, int]
    index: tuple[int, ...]
    trained_for: str = ""
    baselines: Path = Path()
    features: LPIPS | None = None
    noise: float = 0.0
    seed: int = 0
