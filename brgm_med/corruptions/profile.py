"""A scanner's own sampling: slice profiles in mm, as matrices along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Profile = Literal["box", "gaussian", "trapezoid"]

GAUSSIAN_REACH = 1.5
"""A Gaussian slice profile is cut at +-1.5 FWHM (3.5 standard deviations; 4e-4 of its mass lies beyond)."""

RAMP = 0.25
"""Each flank of a trapezoid takes this part of its full width at half maximum."""


def profile_matrix(
    n_fine: int,
    fine_spacing: float,
    n_coarse: int,
    coarse_spacing: float,
    thickness: float,
    profile: Profile = "box",
    shifts: Sequence[float] = (),
) -> Tensor:
    """Acquisition along one axis, [n_coarse, n_fine] float64: weights of the fine voxels in each sample.

    Lengths in mm. The first edges of both grids coincide; sample i is centred at (i + 1/2) coarse_spacing.
    Each weight is the exact integral of the profile over a fine voxel (the image is taken as constant
    inside it); a profile cut by the end of the fine grid is renormalised, so that every row sums to 1.
    `thickness` is the full width at half maximum (a box's width); it may be smaller
    than the spacing (a gap), larger (overlap), and no ratio need be an integer. `shifts` [n_coarse]: of the samples
    away from even centres, mm. Raises ValueError where a sample sees no fine voxel.
    """
    if min(n_fine, n_coarse) < 1 or not min(fine_spacing, coarse_spacing, thickness) > 0:
        raise ValueError("profile_matrix: sizes, spacings and thickness must be positive")
    edges = torch.arange(n_fine + 1, dtype=torch.float64) * fine_spacing
    centres = _centres(n_coarse, coarse_spacing, shifts)
    weights = profile_cumulative((edges - centres[:, None]) / thickness, profile).diff(dim=1)
    weights = weights.where(weights > 1e-12, 0.0)
    mass = weights.sum(1, keepdim=True)
    if float(mass.min()) <= 0:
        raise ValueError("profile_matrix: a sample lies outside the fine grid")
    return weights / mass


def _centres(count: int, spacing: float, shifts: Sequence[float]) -> Tensor:
    """Centres [count] of samples, mm from the first edge."""
    even = (torch.arange(count, dtype=torch.float64) + 0.5) * spacing
    return even + torch.tensor(shifts, dtype=torch.float64) if shifts else even


def profile_inside(
    n_fine: int,
    fine_spacing: float,
    n_coarse: int,
    coarse_spacing: float,
    thickness: float,
    profile: Profile = "box",
    shifts: Sequence[float] = (),
) -> Tensor:
    """The samples of `profile_matrix` with their whole profile inside the fine grid, [n_coarse] bool."""
    reach = thickness * profile_reach(profile)
    centres = _centres(n_coarse, coarse_spacing, shifts)
    slack = 1e-6 * fine_spacing
    return (centres - reach >= -slack) & (centres + reach <= n_fine * fine_spacing + slack)


def profile_kernel(spacing: float, thickness: float, profile: Profile = "box") -> Tensor:
    """The profile centred on a voxel of a fine grid, [2 r + 1] float64, summing to 1 (for `AxisBlur`)."""
    reach = thickness * profile_reach(profile)
    r = max(0, math.ceil(reach / spacing - 0.5 - 1e-9))
    edges = (torch.arange(2 * r + 2, dtype=torch.float64) - r - 0.5) * spacing
    weights = profile_cumulative(edges / thickness, profile).diff()
    return weights / weights.sum()


def profile_reach(profile: Profile) -> float:
    """The half width of the profile's support, in units of its thickness. Raises ValueError for an unknown one."""
    try:
        return {"box": 0.5, "gaussian": GAUSSIAN_REACH, "trapezoid": 0.5 * (1 + RAMP)}[profile]
    except KeyError:
        raise ValueError(f"unknown slice profile {profile!r}: box, gaussian or trapezoid") from None


def profile_cumulative(u: Tensor, profile: Profile) -> Tensor:
    """The profile's cumulative distribution at u (position over thickness), 0 to 1. Raises as `profile_reach`."""
    reach = profile_reach(profile)
    if profile == "box":
        return (u + 0.5).clamp(0, 1)
    if profile == "trapezoid":  # a box of width 1 averaged over one of width RAMP
        return (_ramp(u + 0.5) - _ramp(u - 0.5)).clamp(0, 1)
    deviations = math.sqrt(8 * math.log(2))  # FWHM in standard deviations
    tail = 0.5 * math.erfc(reach * deviations / math.sqrt(2))
    return ((torch.special.ndtr(u * deviations) - tail) / (1 - 2 * tail)).clamp(0, 1)


def _ramp(u: Tensor) -> Tensor:
    """The integral from -infinity to u of the cumulative distribution of a box of width RAMP."""
    inside = (u + RAMP / 2).square() / (2 * RAMP)
    return torch.where(u < -RAMP / 2, 0.0, torch.where(u > RAMP / 2, u, inside))


def along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Apply `matrix` [m, n] along dimension `axis` of x (size n there, m in the result)."""
    matrix, before, after = matrix.to(x), x.shape[:axis], x.shape[axis:][1:]
    if not after:
        return x @ matrix.T
    return (matrix @ x.reshape(before.numel(), x.shape[axis], -1)).reshape(*before, len(matrix), *after)


def along_axes(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix [m, n] along each of the last axes of x; None leaves an axis as it is."""
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            x = along(x, matrix, axis - len(matrices))
    return x


class Separable(nn.Module):
    """A matrix along each of an image's last axes: y = (M0 x M1 x ...) x, [..., n0, n1, ...] -> [..., m0, m1, ...].

    `matrices` holds one [m, n] per axis, or None for an axis that stays as it is.
    """

    def __init__(self, matrices: Sequence[Tensor | None]) -> None:
        super().__init__()
        for axis, matrix in enumerate(matrices):
            self.register_buffer(f"matrix{axis}", matrix, persistent=False)
        self.axes = len(matrices)

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The matrices of the axes (None: identity)."""
        return tuple(getattr(self, f"matrix{axis}") for axis in range(self.axes))

    def infinity_norm(self) -> float:
        """max over samples of the sum of |weights|: how far a bounded error of x can move a sample of y."""
        return math.prod(float(m.abs().sum(1).max()) for m in self.matrices if m is not None)

    def forward(self, x: Tensor) -> Tensor:
        return along_axes(x, self.matrices)


class SliceProfile(Separable):
    """A scanner's own acquisition, separable along the scan's axes: the downsampling f_SR of section 2.3 for volumes.

    [..., X, Y, Z] -> [..., X', Y', Z'] by `matrices` [n_coarse, n_fine] (see `profile_matrix`), or None for an axis
    that is measured as it is; `inside` holds one [n_coarse] bool per axis, or None where every sample lies inside.
    Float64.
    """

    def __init__(self, matrices: Sequence[Tensor | None], inside: Sequence[Tensor | None] = (None, None, None)) -> None:
        if len(matrices) != 3 or len(inside) != 3:
            raise ValueError("SliceProfile: three axes are needed")
        super().__init__([None if m is None else m.double() for m in matrices])
        for axis, whole in enumerate(inside):
            self.register_buffer(f"inside{axis}", whole, persistent=False)

    def inside(self, shape: Sequence[int]) -> Tensor:
        """Samples wholly inside the fine grid, [X', Y', Z'] bool, for a measurement of that `shape`."""
        mask = torch.ones(tuple(shape), dtype=torch.bool)
        for axis in range(3):
            whole: Tensor | None = getattr(self, f"inside{axis}")
            if whole is not None:
                mask &= whole.reshape([-1 if a == axis else 1 for a in range(3)]).to(mask.device)
        return mask
