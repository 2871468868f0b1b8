"""Pairs of thick and thin planes, made of an image's own planes by the acquisition model; and the loss on them."""

from __future__ import annotations

import torch
from torch import Tensor

from brgm_med.self_prior.network import SubSliceNetwork, autocast
from brgm_med.self_prior.thick_axis import ThickAxis

CHARBONNIER = 0.02
"""Below it, relative to the mean of tissue, an error counts by its square, above it by its size."""

SIGNAL = 0.1
"""A strip holds signal where its mean exceeds this part of the largest mean of a strip."""


class Strips:
    """Strips of whole columns out of planes [P, H, W], along H: where they hold signal, at any offset.

    Offsets and positions are drawn by `random`; `axis` says how many pixels of H a strip has (`axis.thin`).
    """

    def __init__(self, planes: Tensor, axis: ThickAxis, width: int) -> None:
        self.planes, self.axis, self.width = planes, axis, min(width, planes.shape[2])
        means = planes.clamp(min=0).mean(1).unfold(1, self.width, 1).mean(2)
        self.where = (means > SIGNAL * means.max()).nonzero()

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """[count, axis.thin, width], each mirrored along both dimensions at random."""
        chosen = self.where[torch.randint(len(self.where), (count,), generator=random)]
        offsets = torch.randint(self.planes.shape[1] - self.axis.thin + 1, (count,), generator=random)
        mirror = torch.rand(count, 2, generator=random) < 0.5
        strips = []
        for (plane, column), offset, flips in zip(chosen.tolist(), offsets.tolist(), mirror.tolist(), strict=True):
            strip = self.planes[plane, offset : offset + self.axis.thin, column : column + self.width]
            strips.append(strip.flip([d for d in (0, 1) if flips[d]]))
        return torch.stack(strips)


def thick_of(thin: Tensor, axis: ThickAxis, noise: float, own_noise: float, random: torch.Generator) -> Tensor:
    """Slices [N, slices, U] of thin planes [N, thin, U], their noise brought to a standard deviation of `noise`.

    `own_noise`: that of the thin planes, white, of which averaging over the profile leaves a part.
    """
    thick = axis.matrix.to(thin) @ thin
    left = own_noise**2 * axis.matrix.square().sum(1).to(thin)
    missing = (noise**2 - left).clamp(min=0).sqrt()
    if float(missing.max()) == 0:
        return thick
    return thick + missing[:, None] * torch.randn(thick.shape, generator=random)


def detail_loss(
    network: SubSliceNetwork, thin: Tensor, thick: Tensor, axis: ThickAxis, conditions: Tensor, precision: torch.dtype
) -> Tensor:
    """Charbonnier loss between the detail that `network` predicts of `thick` and that of `thin`, a scalar.

    Detail: what the base reconstruction of the slices lacks, in the null space of the acquisition; the rest is
    measured. White noise of `thin` has a part in the null space that is independent of the slices, so that it raises
    the loss and does not teach: the best prediction of a squared loss stays that of noise-free planes.
    """
    null = axis.null.to(thin)
    detail = null @ (thin - axis.base.to(thin) @ thick)
    with autocast(precision):
        coefficients = network(thick, conditions)
    error = null @ axis.expand(coefficients.float()) - detail
    return (error.square() + CHARBONNIER**2).sqrt().mean() - CHARBONNIER
