"""Tuning of the network on the planes of scans."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.self_prior.network import SubSliceNetwork, condition
from brgm_med.self_prior.pairs import Strips, detail_loss, thick_of
from brgm_med.self_prior.thick_axis import ThickAxis

Progress = Callable[[int, int], object]
"""Called with the iterations done and their number."""

RATE = 5e-3
STRIPS, WIDTH = 24, 32
"""Strips of a minibatch, and columns of each."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Pairs of thick and thin planes [P, H, W] along H. Intensities normalised.

    `axis`: the slices of a strip; `noise`: standard deviation of white noise in the planes; `smooth`: matrix that blurs
    the planes along H where the scan is that much smoother through plane, or None.
    """

    strips: Strips
    axis: ThickAxis
    conditions: Tensor
    noise: float
    smooth: Tensor | None

    @classmethod
    def of(
        cls,
        planes: Tensor,
        step: float,
        thickness: float,
        profile: Profile,
        *,
        plane: float = 1.0,
        noise: float = 0.0,
        blur: float = 0.0,
    ) -> Lesson:
        """`step`, `thickness` (pixels) and `profile` are those of the scan's slices, `plane` the thickness (pixels)
        over which each plane is a mean, `blur` the standard deviation (pixels) of `smooth`."""
        length = planes.shape[1] - math.ceil(step) + 1  # leaves room for an offset of up to one slice
        axis = ThickAxis.inside(length, step, thickness, profile)
        strips = Strips(planes, axis, WIDTH)
        return cls(strips, axis, condition(axis, noise, plane), noise, smoothing(axis.thin, blur))

    def draw(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Thin strips and their thick slices."""
        thin, own_noise = self.strips.draw(STRIPS, random), self.noise
        if self.smooth is not None:
            thin, own_noise = self.smooth @ thin, 0.0
        return thin, thick_of(thin, self.axis, self.noise, own_noise, random)


def tune(
    network: SubSliceNetwork,
    lessons: Sequence[Lesson],
    *,
    iterations: int = 300,
    rate: float = RATE,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> list[float]:
    """Fit `network`, in place, to `lessons`, which take turns; the losses.

    Adam (Kingma and Ba 2015) with a rate that falls to 0 as a cosine. Deterministic for a `seed`.
    """
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    losses = []
    for iteration in range(iterations):
        lesson = lessons[iteration % len(lessons)]
        thin, thick = lesson.draw(random)
        loss = detail_loss(network, thin, thick, lesson.axis, lesson.conditions, precision)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(iteration + 1, iterations)
    return losses


def smoothing(pixels: int, deviation: float) -> Tensor | None:
    """Gaussian blur as a matrix [pixels, pixels] float32, rows normalised; None for a deviation of 0."""
    if deviation <= 0:
        return None
    index = torch.arange(pixels, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((index[:, None] - index) / deviation).square())
    return (weights / weights.sum(1, keepdim=True)).float()
