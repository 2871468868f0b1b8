"""Covariances and measurements that factor along the axes: A C A' = K0 x K1 x K2, solved axis by axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from brgm_med.corruptions import Separable, SliceProfile, along_axes
from brgm_med.errors import BrgmError

MAX_CONDITION = 1e12
"""Beyond this condition number along an axis an exact solution in float64 would be noise."""

NOTHING = 1e-20
"""A correlation below this is 0: it is beyond the rounding of float64, and float32 would hold it as a subnormal number,
which processors multiply many times slower."""


def stationary_covariance(
    shape: Sequence[int],
    length: Sequence[float] | float,
    kernel: Literal["gaussian", "matern", "exponential"] = "gaussian",
    nugget: float = 1e-3,
) -> Separable:
    """C = C0 x C1 x ...: unit-variance covariance that falls with distance, separable over the image axes of `shape`.

    Along each axis (1 - nugget) k(d / length) + nugget I, d in voxels: k = exp(-u^2 / 2), (1 + u) exp(-u)
    or exp(-u). The nugget keeps A C A' well conditioned where the kernel is much wider than a coarse
    sample. A length of 0 leaves that axis uncorrelated.
    """
    lengths = [length] * len(shape) if isinstance(length, int | float) else list(length)
    matrices: list[Tensor | None] = []
    for n, scale in zip(shape, lengths, strict=True):
        if scale == 0:
            matrices.append(None)
            continue
        index = torch.arange(n, dtype=torch.float64)
        u = (index[:, None] - index).abs() / scale
        k = {
            "gaussian": lambda u: torch.exp(-0.5 * u * u),
            "matern": lambda u: (1 + u) * torch.exp(-u),
            "exponential": lambda u: torch.exp(-u),
        }[kernel](u)
        k = torch.where(k < NOTHING, 0.0, k)
        matrices.append((1 - nugget) * k + nugget * torch.eye(n, dtype=torch.float64))
    return Separable(matrices)


@dataclass(frozen=True, eq=False)
class SeparableSystem:
    """A C A' of a `SliceProfile` A and a covariance C of three axes, K_i = U_i diag(L_i) U_i' along axis i.

    `values`: L_i, [n'_i]. `vectors`: U_i, or None where K_i = I. `spreads`: C_i A_i' [n_i, n'_i], or None where that is
    I. `variances`: the diagonal of C_i, [n_i]. `identity`: whether A_i = I, so that an exact
    correction passes. Float64.
    """

    values: tuple[Tensor, ...]
    vectors: tuple[Tensor | None, ...]
    spreads: tuple[Tensor | None, ...]
    variances: tuple[Tensor, ...]
    identity: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        corruption: SliceProfile,
        covariance: Separable | None,
        fine: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> SeparableSystem:
        """The system for images of shape `fine` [X, Y, Z]."""
        parts: list[tuple[Tensor, Tensor | None, Tensor | None, Tensor, bool]] = []
        for a, c, n in zip(corruption.matrices, _axes(covariance), fine, strict=True):
            ones = torch.ones(n, dtype=torch.float64, device=device)
            c = None if c is None else c.to(ones)
            a = None if a is None else a.to(ones)
            variance = ones if c is None else c.diagonal()
            if a is None and c is None:
                parts.append((ones, None, None, variance, True))
                continue
            spread = (torch.diag(ones) if c is None else c) @ (torch.diag(ones) if a is None else a.T)
            values, vectors = torch.linalg.eigh(spread if a is None else a @ spread)
            parts.append((values.clamp(min=0), vectors, spread, variance, a is None))
        return cls(*(tuple(part) for part in zip(*parts, strict=True)))

    @property
    def spectrum(self) -> Tensor:
        """The eigenvalues of A C A', [X', Y', Z']."""
        x, y, z = self.values
        return x[:, None, None] * y[:, None] * z

    def coefficients(self, r: Tensor) -> Tensor:
        """Residuals [C, X', Y', Z'] in the basis of eigenvectors: an isometry."""
        return along_axes(r, [None if u is None else u.T for u in self.vectors])

    def correction(self, r: Tensor, noise: float) -> Tensor:
        """C A' (A C A' + noise^2 I)^-1 r: [C, X', Y', Z'] -> [C, X, Y, Z].

        With noise 0 the gain is the product of the axes' gains C_i A_i' K_i^-1, so that their condition numbers do
        not multiply, and an axis that is measured as it is passes unchanged. Raises BrgmError where one is singular.
        """
        if noise == 0:
            return along_axes(r, [self._gain(axis) for axis in range(3)])
        products = [None if c is None or u is None else c @ u for c, u in zip(self.spreads, self.vectors, strict=True)]
        return along_axes(self.coefficients(r) / (self.spectrum + noise**2), products)

    def _gain(self, axis: int) -> Tensor | None:
        values, u, spread = self.values[axis], self.vectors[axis], self.spreads[axis]
        if self.identity[axis] or u is None or spread is None:
            return None
        if not values[0] * MAX_CONDITION > values[-1]:
            raise BrgmError(
                f"the samples along axis {axis} nearly repeat each other (overlapping slices?): "
                "no exact solution; state a noise level"
            )
        return spread @ (u / values) @ u.T

    def noise_for(self, r: Tensor, deviation: float) -> float:
        """The `noise` for which the correction leaves residuals `r` [1, X', Y', Z'] of that root mean square.

        The discrepancy principle (Morozov 1966). Infinite where they are not larger as they are; never 0.
        """
        squares, spectrum = self.coefficients(r)[0].square(), self.spectrum
        if float(squares.mean()) <= deviation**2:
            return math.inf
        low, high = -9.0, 9.0  # decimal logarithms of noise^2
        for _ in range(50):
            middle = (low + high) / 2
            left = (squares * (10**middle / (spectrum + 10**middle)).square()).mean()
            low, high = (middle, high) if float(left) < deviation**2 else (low, middle)
        return float(10 ** ((low + high) / 4))

    def measured_fraction(self, noise: float) -> Tensor:
        """[C A' (A C A' + noise^2 I)^-1 A C]_ii / C_ii: the part of each voxel's variance that the measurement
        explains, [X, Y, Z] in [0, 1]. Exact. `noise`: the measurement's standard deviation in units of C's."""
        factors = []
        for axis in range(3):
            u, spread, variance = self.vectors[axis], self.spreads[axis], self.variances[axis]
            if u is None or spread is None or (self.identity[axis] and not noise):
                factors.append(torch.eye(len(variance)).to(variance))
                continue
            squares = (spread @ u).square() / variance[:, None]
            factors.append(squares if noise else (squares / self.values[axis]).sum(1, keepdim=True))
        if noise:
            part = along_axes(1 / (self.spectrum + noise**2), factors)
        else:
            x, y, z = (f.sum(1) for f in factors)
            part = x[:, None, None] * y[:, None] * z
        return part.clamp(0, 1)


def _axes(covariance: Separable | None) -> tuple[Tensor | None, ...]:
    axes = (None, None, None) if covariance is None else covariance.matrices
    if len(axes) != 3:
        raise ValueError("project: a SliceProfile needs a covariance of three axes")
    return axes
