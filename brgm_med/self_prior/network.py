"""The network that predicts, on the grid of thick slices, the detail inside each slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brgm_med.self_prior.thick_axis import COSINES, ThickAxis

REACH = (3, 4)
"""Slices and pixels, to each side, that a prediction depends on."""

CONTRAST = 4.0
"""By so much more the first stage weighs differences between neighbours than their mean: it learns twice as fast."""

CONDITIONS = 4
"""Numbers that describe the acquisition to the network, see `condition`."""


def condition(axis: ThickAxis, noise: float, plane: float) -> Tensor:
    """Acquisition of a plane, [CONDITIONS]: the step, the profile's width, the noise, the plane's own thickness.

    `noise`: standard deviation over the mean of tissue; `plane`: pixels across the plane over which it is a mean.
    """
    return torch.tensor([math.log2(axis.step) - 2, axis.spread - 1, 20 * noise, math.log2(max(plane, 1.0))])


class SubSliceNetwork(nn.Module):
    """Planes [N, slices, U] -> coefficients [N, COSINES, slices, U] of a cosine series over each slice's width.

    Slices are thick along dimension 1 and pixels thin along U; intensities normalised (air 0, mean of tissue 1). Two
    hidden stages see 5 x 7 and 3 x 3 neighbours; each is scaled and shifted by the `condition` (FiLM, Perez et al.
    2018). The cosines describe any position in a slice, so that one network serves every real step.
    """

    def __init__(self, widths: Sequence[int] = (64, 64, 32, 32)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.widths = (a, b, c, d)
        self.wide = nn.Conv2d(1, a, (5, 7))
        self.mix = nn.Conv2d(a, b, 1)
        self.near = nn.Conv2d(b, c, 3)
        self.last = nn.Conv2d(c, d, 1)
        self.out = nn.Conv2d(d, COSINES, 1)
        self.film = nn.Linear(CONDITIONS, 2 * (a + c))
        for parameter in (*self.out.parameters(), *self.film.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, planes: Tensor, conditions: Tensor) -> Tensor:
        """`conditions` [CONDITIONS] of all planes; scaling and shifting by them is done on the weights."""
        a, _, c, _ = self.widths
        scale1, shift1, scale2, shift2 = self.film(conditions).float().split((a, a, c, c))
        weight = self.wide.weight
        weight = weight + CONTRAST * (weight - weight.mean((2, 3), keepdim=True))
        x = F.pad(planes[:, None], (REACH[1],) * 2 + (REACH[0],) * 2, mode="replicate")
        x = _modulated(x.contiguous(memory_format=torch.channels_last), weight, self.wide.bias, scale1, shift1).relu()
        x = self.mix(x).relu()
        x = _modulated(x, self.near.weight, self.near.bias, scale2, shift2).relu()
        return self.out(self.last(x).relu())


def _modulated(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
    """(1 + scale) * (weight * x + bias) + shift, per channel of the result."""
    assert bias is not None
    scale = 1 + scale
    weight = (weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, bias * scale + shift)


def autocast(precision: torch.dtype) -> AbstractContextManager[None]:
    """Convolutions in `precision` on the CPU; float32 changes nothing."""
    return torch.autocast("cpu", precision, enabled=precision != torch.float32)  # type: ignore[return-value]


def mirrored(coefficients: Tensor) -> Tensor:
    """The cosine series of the image mirrored along dimension 2, from [N, COSINES, slices, U] of the image."""
    signs = torch.tensor([1.0, -1.0] * (COSINES // 2), device=coefficients.device)
    return coefficients.flip(2) * signs[:, None, None]


@torch.no_grad()
def averaged(network: SubSliceNetwork, planes: Tensor, conditions: Tensor, precision: torch.dtype) -> Tensor:
    """Mean of the network's coefficients over the four mirror images of `planes` [N, slices, U]."""
    total = torch.zeros(())
    with autocast(precision):
        for along_slices in (False, True):
            for along_pixels in (False, True):
                x = planes.flip(1) if along_slices else planes
                y = network(x.flip(2) if along_pixels else x, conditions).float()
                y = y.flip(3) if along_pixels else y
                total = total + (mirrored(y) if along_slices else y)
    return total / 4
