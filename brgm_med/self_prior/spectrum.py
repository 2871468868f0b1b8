"""Extra blur of a scan through plane against in plane, from the spectra of doubly thick data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.self_prior.thick_axis import ThickAxis

BAND = (0.1, 0.45)
"""Frequencies that are compared, cycles per slice."""


def power(lines: Tensor, frequencies: Tensor, noise: float) -> Tensor:
    """Mean power of `lines` [N, n] at `frequencies` [F] (cycles per sample), under a Hann window, less white noise."""
    n = lines.shape[1]
    window = torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]
    window = window / window.square().sum().sqrt()
    mean = (lines.double() @ window.square())[:, None]
    angles = 2 * math.pi * frequencies[:, None] * torch.arange(n, dtype=torch.float64)
    parts = [(lines.double() - mean) @ (window * wave(angles)).T for wave in (torch.cos, torch.sin)]
    return sum(part.square().mean(0) for part in parts) - noise**2  # type: ignore[return-value]


def extra_blur(views: Sequence[Tensor], step: float, thickness: float, profile: Profile, noise: float = 0.0) -> float:
    """Variance of the Gaussian blur that the scan has through plane and not in plane, in squared slice spacings.

    `views`: the scan's planes [P, H, W], P along the slices, H one in-plane axis or the other; `step`, `thickness` in
    pixels. Made thick along H by the scan's own profile, the data are sampled alike along P and H; were the head as
    sharp along both, their spectra would agree. The slope of the log ratio over (2 pi f)^2 is the variance. Anatomy
    is not the same along both axes: +-0.05 mean nothing, and the result may be negative.
    """
    frequencies = torch.linspace(*BAND, 15, dtype=torch.float64)
    abscissa = (2 * math.pi * frequencies).square()
    slopes = []
    for planes in views:
        axis = ThickAxis.inside(planes.shape[1], step, thickness, profile)
        doubly = axis.matrix.to(planes) @ planes[:, : axis.thin]  # [P, slices, W]
        left = noise * math.sqrt(float(axis.matrix.square().sum(1).mean()))
        through = power(doubly.permute(1, 2, 0).flatten(0, 1), frequencies, left)
        within = power(doubly.transpose(1, 2).flatten(0, 1), frequencies, left)
        floor = 1e-3 * torch.maximum(through, within).max() + left**2 * 0.1
        usable = (through > floor) & (within > floor)
        if int(usable.sum()) < 4:
            continue
        x, y = abscissa[usable], (within / through)[usable].log()
        slopes.append(float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()))
    return sum(slopes) / len(slopes) if slopes else 0.0
