"""Corruptions of each pixel on its own: masks, bias fields, colour to grey."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from torch import Tensor, nn


class Mask(nn.Module):
    """f_IN of section 2.3: keep the pixels where `mask` (bool, broadcastable) is true, 0 elsewhere.

    The values of hidden pixels, NaN included, never enter; pass the measurement through it too.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if mask.dtype != torch.bool:
            raise ValueError("Mask: the mask must be boolean (True = measured)")
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.where(self.mask, torch.zeros((), dtype=x.dtype, device=x.device))


class BiasField(nn.Module):
    """A coil's smooth sensitivity b > 0: y = b x, [N, C, H, W] -> [N, C, H, W] (not in the paper).

    `field` b is [H, W], positive, fixed; `BiasField.smooth` makes one of a few coefficients. b multiplies intensities
    that are 0 in air. Of images on [-1, 1], where air is -1, intensities are x + 1, so what a scanner measured is
    b (x + 1) - 1 = b x + (b - 1): subtract the constant b - 1 from the measurement to have y = b x.
    """

    field: Tensor

    def __init__(self, field: Tensor) -> None:
        super().__init__()
        if field.ndim != 2 or not bool(((field > 0) & field.isfinite()).all()):
            raise ValueError("BiasField: the field must be [H, W], positive and finite")
        self.register_buffer("field", field, persistent=False)

    @classmethod
    def smooth(cls, coefficients: Tensor, shape: tuple[int, int]) -> BiasField:
        """b = exp(sum_kl c_kl P_k(v) P_l(u)) on an image of `shape`, with Legendre's polynomials P.

        v and u run from -1 to 1 along rows and columns, edge to edge. `coefficients` c [K, L] are in units of log b;
        c_00 is a plain gain.
        """
        if coefficients.ndim != 2:
            raise ValueError("BiasField: the coefficients must be [K, L], of rows and columns")
        c = coefficients.double()
        centres = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
        v, u = (legvander(t, order - 1) for t, order in zip(centres, c.shape, strict=True))
        return cls((torch.from_numpy(v).to(c) @ c @ torch.from_numpy(u).to(c).T).exp())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.field.shape:
            raise ValueError(f"BiasField: a field of {tuple(self.field.shape)}, an image of {tuple(x.shape[-2:])}")
        return x * self.field.to(x)


class Grey(nn.Module):
    """Colour to luminance, [N, 3, H, W] -> [N, 1, H, W]: colourisation is its inverse problem (Fig. 2b, to-grayscale).

    `weights` of red, green and blue; by default those of ITU-R BT.601, as PIL and JPEG have them. They must sum to 1:
    grey stays as it is, and [-1, 1] stays [-1, 1].
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float] = (0.299, 0.587, 0.114)) -> None:
        super().__init__()
        if len(weights) != 3 or not abs(sum(weights) - 1) < 1e-6:
            raise ValueError(f"Grey: three weights that sum to 1 are needed, not {tuple(weights)}")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"Grey: images must be [N, 3, H, W], not {tuple(x.shape)}")
        return (x * self.weights.to(x)[:, None, None]).sum(1, keepdim=True)
