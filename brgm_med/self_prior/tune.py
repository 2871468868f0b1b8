"""Tuning of the network on the planes of one scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.self_prior.network import SubSliceNetwork, condition
from brgm_med.self_prior.pairs import Strips, detail_loss, thick_of
from brgm_med.self_prior.thick_axis import ThickAxis

Progress = Callable[[int, int], None]
"""Called with the iterations done and their number."""

RATE = 5e-3
STRIPS, WIDTH = 24, 32
"""Strips of a minibatch, and columns of each."""


def tune(
    network: SubSliceNetwork,
    views: Sequence[Tensor],
    step: float,
    thickness: float,
    profile: Profile,
    *,
    plane: float = 1.0,
    noise: float = 0.0,
    blur: float = 0.0,
    iterations: int = 300,
    rate: float = RATE,
    seed: int = 0,
    precision: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> list[float]:
    """Fit `network`, in place, to pairs made of the planes of `views`, each [P, H, W], along H; the losses.

    Intensities normalised; the views take turns. `step`, `thickness` (pixels) and `profile` are those of the scan's
    slices, `plane` the thickness (pixels) over which each plane is a mean. `noise`: standard deviation in the planes.
    `blur`: standard deviation (pixels) by which the planes are smoothed along the axis that is made thick, where the
    scan is that much smoother through plane. Adam (Kingma and Ba 2015) with a rate that falls to 0 as a cosine.
    Deterministic for a `seed`.
    """
    random = torch.Generator().manual_seed(seed)
    sources = []
    for planes in views:
        length = planes.shape[1] - math.ceil(step) + 1  # leaves room for an offset of up to one slice
        axis = ThickAxis.inside(length, step, thickness, profile)
        conditions = condition(axis, noise, plane)
        sources.append((Strips(planes, axis, WIDTH), conditions, smoothing(axis.thin, blur)))
    optimizer = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    losses = []
    for iteration in range(iterations):
        strips, conditions, smooth = sources[iteration % len(sources)]
        thin = strips.draw(STRIPS, random)
        if smooth is not None:
            thin = smooth @ thin
        thick = thick_of(thin, strips.axis, noise, noise if smooth is None else 0.0, random)
        loss = detail_loss(network, thin, thick, strips.axis, conditions, precision)
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
