"""Random contrasts of training slices: intensity maps of real images, and images drawn from label maps.

All randomness comes from torch's global generator, drawn for the whole batch first, so that processes that share a
batch keep theirs. Intensities are normalised: air -1, mean of what is seen of the head 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KNOTS = (-1.0, -0.75, -0.5, -0.25, -0.1, 0.0, 0.15, 0.3, 0.6, 1.2, 3.0)
"""Intensities at which a random map bends: between air and fat, closest together where tissues differ."""

HEAD = -0.7
"""Above it a normalised intensity is tissue and no longer air."""

LABELS = 64
"""Most labels of a label map."""

HIGHEST = 2.9


def remapped(image: Tensor, known: Tensor, chosen: Tensor) -> Tensor:
    """`image` [N, 1, H, W] with the intensities of the `chosen` [N] (bool) mapped to another contrast at random.

    Half of the maps are monotone, the others not: bright tissue may become the darkest, as in T2 or FLAIR. A map is
    linear between `KNOTS` and leaves air at -1; then the mean over the head, where `known` [N, 1, H, W], is made 0
    again.
    """
    n = len(image)
    steps, free, monotone = torch.rand(n, len(KNOTS)), torch.rand(n, len(KNOTS)), torch.rand(n) < 0.5
    steps[:, 0] = free[:, 0] = 0
    free[:, 1] *= 0.2  # the noise of air stays small
    rising = steps.square().cumsum(1)  # squares: some of the steps are nearly flat
    values = torch.where(monotone[:, None], rising / rising[:, -1:], free).to(image.device)
    rows = chosen.nonzero()[:, 0].to(image.device)
    if not len(rows):
        return image
    knots = torch.tensor(KNOTS, device=image.device)
    flat = image[rows].flatten(1).clamp(KNOTS[0], KNOTS[-1])
    upper = torch.searchsorted(knots, flat).clamp(1, len(KNOTS) - 1)
    values = values[rows]
    low, high = values.gather(1, upper - 1), values.gather(1, upper)
    part = (flat - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
    mapped = (low + part * (high - low)).view(-1, *image.shape[1:])
    head = (image[rows] > HEAD) & known[rows]
    return image.index_copy(0, rows, centred(mapped, head))


def centred(brightness: Tensor, head: Tensor) -> Tensor:
    """Brightness above air [N, 1, H, W] scaled to a mean of 1 over `head`, minus 1: air -1, the head 0 on average."""
    total = (brightness * head).sum((1, 2, 3), keepdim=True)
    mean = total / head.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return (brightness / mean.clamp(min=1e-3) - 1).clamp(-1, HIGHEST)


def coloured(labels: Tensor, ordered: Tensor, tissue: Tensor, rows: Tensor) -> Tensor:
    """Images [n, 1, H, W] of the `rows` [n] of label maps [N, 2 H, 2 W] (integers below `LABELS`, 0 air), drawn as
    SynthSeg does (Billot et al. 2023, arXiv 2107.09559): every label has a random mean and a random deviation, white at
    first and then averaged over 2 x 2 pixels, which gives mixed pixels at edges; a smooth random bias field multiplies
    all. The random numbers are those of all N.

    `tissue` [LABELS]: 1 cerebrospinal fluid, 2 grey matter, 3 white matter, 0 anything else. For the images `ordered`
    [N] (bool) the means of these three are in the order of T1: fluid darkest, white matter brightest.
    """
    n = len(labels)
    means, deviations = torch.rand(n, LABELS), 0.15 * torch.rand(n, LABELS).square()
    dark, middle, bright = 0.25 * torch.rand(n), 0.45 + 0.2 * torch.rand(n), 0.8 + 0.2 * torch.rand(n)
    waves, grain = torch.randn(n, 4, 4), torch.randn(n, *labels.shape[1:])
    jitter = 0.06 * torch.randn(n, LABELS)
    for kind, value in ((1, dark), (2, middle), (3, bright)):
        of_kind = ordered[:, None] & (tissue == kind)
        means = torch.where(of_kind, value[:, None] + jitter, means)
    means[:, 0] = deviations[:, 0] = 0
    labels, means, deviations, waves, grain = (t[rows] for t in (labels, means, deviations, waves, grain))
    index = labels.flatten(1).long()
    values = means.gather(1, index) + deviations.gather(1, index) * grain.flatten(1)
    fine = values.clamp(min=0).view(len(rows), 1, *labels.shape[1:])
    image = F.avg_pool2d(fine, 2) * _field(waves, labels.shape[1] // 2, labels.shape[2] // 2)
    return centred(image, F.avg_pool2d((labels > 0).float()[:, None], 2) > 0.5)


def _field(waves: Tensor, height: int, width: int) -> Tensor:
    """A positive smooth field [N, 1, height, width] of cosines with coefficients `waves` [N, K, L]."""

    def cosines(size: int, count: int) -> Tensor:
        return torch.outer(torch.arange(size) + 0.5, torch.arange(count) * (math.pi / size)).cos()

    k, m = waves.shape[1:]
    logarithm = cosines(height, k) @ waves @ cosines(width, m).T
    return (0.1 * logarithm).exp()[:, None]
