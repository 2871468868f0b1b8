"""Random changes of training slices that leave them plausible, and how often to make them.

Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676): the discriminator sees real and generated
images only after the same random changes, so that it cannot learn few images by heart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SOFTENING = 0.05
"""Offset of the gamma curve, so that its slope at air is finite."""


@dataclass(frozen=True)
class Augmentation:
    """Changes of normalised slices (air -1, mean of the brain 0), in the order of the fields; a strength of 0 is none.

    Every operation is applied to each image independently, with the probability of the call. Strengths are drawn from
    the difference of two equal independent draws, hence from a triangular distribution around no change. Intensities
    are changed on image + 1, the brightness above air, so that air stays air but for noise; one resampling makes
    rotation, scaling and elastic deformation together, and makes no value below the image's own minimum. Outside the
    picture its border goes on, so that a neck that the border cuts stays a neck.

    Non-leaking (section 2.2 and appendix C of the paper): on the distribution of images an operation acts as
    T = (1 - p) I + p A, where A averages over its draws. Where these form a group, the difference of two equal draws
    gives A eigenvalues |phi|^2 >= 0, phi being the characteristic function of one draw, so those of T are at least
    1 - p: for p < 1 T is invertible, and generated images are distributed as the real ones where the augmented are.
    (Uniform strengths are not: uniform shifts of up to 2 pixels have an eigenvalue of -1/4, and leak at p = 0.8.) That
    holds for flip (eigenvalues 1 and 1 - p), shift, rotation, scaling, gain, bias and noise, up to the interpolation
    and what leaves the picture; for elastic and gamma, which are groups to first order in their small strengths,
    rigorously for p < 1/2, where T is inverted by the Neumann series. Where augmented slices are the training data
    themselves, every change is part of what is learned: give targets of a reconstruction noise = 0.

    R1 is to be taken with respect to the augmented image, the discriminator's own input: it is the penalty of the
    game that is played, and needs no second derivative of the resampling (which older torch versions lack).
    """

    flip: bool = True
    """Whether the left-right axis (the last) is reversed, for half of the images for which it is drawn. Exact."""
    shift: int = 2
    """Largest shift along either axis, whole pixels. Exact."""
    rotation: float = 4.0
    """Largest rotation about the centre, degrees."""
    scale: float = 0.04
    """Largest |logarithm| of the isotropic scale."""
    elastic: float = 1.0
    """Root mean square length over images and pixels of a smooth displacement, pixels."""
    gamma: float = 0.15
    """Largest |logarithm| of the exponent of a power law that fixes air and 0."""
    gain: float = 0.08
    """Largest |logarithm| of the factor of the brightness above air."""
    bias: float = 0.05
    """Root mean square over images and pixels of the logarithm of a smooth field that multiplies the brightness."""
    noise: float = 0.04
    """Largest standard deviation of white Gaussian noise; the distance from air to 0 is 1."""

    def __post_init__(self) -> None:
        if not all(strength >= 0 for strength in astuple(self)):
            raise ValueError(f"strengths must not be negative: {self}")

    def __call__(self, image: Tensor, probability: float = 1.0) -> Tensor:
        """Augmented copies of `image` [N, C, H, W], differentiable with respect to it; its channels change alike.

        All randomness comes from torch's global generators: on the CPU, but the grain of each pixel on the image's own
        device, where all work on pixels is done. An image for which nothing is drawn is returned
        to the last bit, as is `image` itself at probability 0. Raises ValueError when `probability` is not in [0, 1].
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"probability {probability} is not in [0, 1]")
        if probability == 0:
            return image
        # The batch comes first, and each image has all draws, needed or not: processes that share a batch keep theirs.
        n = len(image)
        drawn = torch.rand(n, len(astuple(self))) < probability
        mirrored = torch.rand(n) < 0.5
        shifts = torch.randint(self.shift + 1, (n, 2)) - torch.randint(self.shift + 1, (n, 2))
        draws, waves, shades = _spread(n, 5, 1, 1, 1), _spread(n, 2, 4, 5), _spread(n, 1, 3, 3)
        grain = torch.randn(image.shape, device=image.device)

        strengths = (drawn * torch.tensor(astuple(self), dtype=torch.float32))[..., None, None, None].unbind(1)
        flip, shift, rotation, scale, elastic, gamma, gain, bias, noise = strengths  # each [N, 1, 1, 1]
        angle, log_scale, log_gamma, log_gain, deviation = (
            s * d for s, d in zip((rotation, scale, gamma, gain, noise), draws.unbind(1), strict=True)
        )
        with torch.autocast(image.device.type, enabled=False):
            x = image.to(torch.promote_types(image.dtype, torch.float32))
            moves = (mirrored & (flip > 0).flatten(), shifts * (shift > 0).view(n, 1))
            x = _moved(x, *(m.to(image.device) for m in moves))
            placed = (angle.deg2rad(), log_scale, elastic * waves)
            x = _changed(x, rotation + scale + elastic > 0, _resampled, *placed)
            lit = (log_gamma, log_gain, bias * shades, deviation.to(grain) * grain)
            x = _changed(x, gamma + gain + bias + noise > 0, _relit, *lit)
        return x.to(image.dtype)


def adapted(
    probability: float, sign: float, images: int, *, target: float = 0.6, ramp: float = 50_000.0, limit: float = 0.8
) -> float:
    """The probability of augmentation after `images` more real images were shown, in [0, `limit`].

    `sign` is r_t = E[sign(D(real))], the discriminator's overfitting (Karras et al. 2020, eq. 1): above `target`
    the probability rises by `images` / `ramp`, below it falls as fast. `ramp` is the number of images that takes it
    from 0 to 1: 500 000 in the paper; a run of some 100 000 images on 2000 slices overfits within a tenth of that.
    The default limit is the paper's practical bound, over which augmentations begin to leak.
    """
    step = images / ramp * ((sign > target) - (sign < target))
    return min(max(probability + step, 0.0), limit)


def _spread(*shape: int) -> Tensor:
    """Differences of two uniform draws: in (-1, 1), variance 1/6, the characteristic function nowhere negative."""
    return torch.rand(shape) - torch.rand(shape)


def _smooth(coefficients: Tensor, shape: torch.Size) -> Tensor:
    """Fields [N, maps, *`shape`] of cosines of the lowest orders along H and W; `coefficients` [N, maps, K, L].

    Coefficients of variance 1/6 give fields whose mean square over draws and pixels is 1.
    """

    def cosines(size: int, count: int) -> Tensor:
        angles = (torch.arange(size).to(coefficients) + 0.5) * (math.pi / size)
        waves = torch.outer(angles, torch.arange(count).to(coefficients)).cos() * math.sqrt(2)
        waves[:, 0] = 1
        return waves

    orders = coefficients.shape[2:]
    rows, columns = (cosines(size, count) for size, count in zip(shape, orders, strict=True))
    return rows @ coefficients @ columns.T * math.sqrt(6 / math.prod(orders))


def _changed(image: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`image`, in the `chosen` rows changed by `change`(brightness above air, rows of `parameters`)."""
    rows = chosen.flatten().nonzero()[:, 0]
    if not len(rows):
        return image
    there = rows.to(image.device)
    above = image.index_select(0, there) + 1
    return image.index_copy(0, there, change(above, *(p[rows.to(p.device)].to(image) for p in parameters)) - 1)


def _moved(image: Tensor, mirrored: Tensor, shifts: Tensor) -> Tensor:
    """Flips [N] along W, then shifts [N, 2] by whole pixels along H and W: a gather, so exact."""
    n, c, h, w = image.shape
    row = (torch.arange(h, device=image.device) - shifts[:, :1]).clamp(0, h - 1)
    column = (torch.arange(w, device=image.device) - shifts[:, 1:]).clamp(0, w - 1)
    column = torch.where(mirrored[:, None], w - 1 - column, column)
    index = row[:, :, None] * w + column[:, None, :]
    return image.flatten(2).gather(2, index.view(n, 1, h * w).expand(n, c, h * w)).view(image.shape)


def _resampled(above: Tensor, angle: Tensor, log_scale: Tensor, waves: Tensor) -> Tensor:
    """Bicubic samples of `above` [N, C, H, W] at the rotated, scaled and displaced places of its pixels.

    `angle` in radians and `log_scale` are [N, 1, 1, 1]; `waves` [N, 2, K, L] are coefficients of the displacement.
    """
    h, w = above.shape[2:]
    moved = _smooth(waves, above.shape[2:]) / math.sqrt(2)
    y = torch.arange(h).to(above)[:, None] - (h - 1) / 2
    x = torch.arange(w).to(above) - (w - 1) / 2
    cos, sin = angle.cos() * (-log_scale).exp(), angle.sin() * (-log_scale).exp()
    along_x, along_y = cos * x + sin * y + moved[:, :1], cos * y - sin * x + moved[:, 1:]
    grid = torch.cat([along_x * (2 / w), along_y * (2 / h)], 1).movedim(1, 3)
    sampled = F.grid_sample(above, grid, mode="bicubic", padding_mode="border", align_corners=False)
    # Bicubic interpolation undershoots beside edges; a cut at the image's own minimum hides nothing of it.
    return sampled.clamp(min=above.amin((1, 2, 3), keepdim=True))


def _relit(above: Tensor, log_gamma: Tensor, log_gain: Tensor, shades: Tensor, grain: Tensor) -> Tensor:
    """x -> x ((x + o) / (1 + o))^(gamma - 1) gain bias + noise; below 0, with the power's value at 0.

    `shades` [N, 1, K, L] are coefficients of the logarithm of the bias field, `grain` [N, C, H, W] is the noise.
    """
    curve = log_gamma.expm1() * ((above.relu() + SOFTENING) / (1 + SOFTENING)).log()
    return above * (curve + log_gain + _smooth(shades, above.shape[2:])).exp() + grain
