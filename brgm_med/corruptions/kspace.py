"""Cartesian MRI: phase-encode lines that are missing, and lines that were acquired at different poses.

The readout is sampled wholly, so that its unitary Fourier transform can be undone, and is: what is left is hybrid
space, readout position by phase-encode line, and one small matrix along the phase-encode axis. Lines are counted as in
torch.fft.fftfreq: line 0 is the mean, lines k and n - k are a frequency and its negative (torch.fft.ifftshift brings a
centred order into this one). Images are real: a phase that the scanner left is to be removed beforehand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from brgm_med.corruptions.profile import along


class KSpace(nn.Module):
    """Undersampled k-space of a real image (not in the paper): the phase-encode lines of `mask` [n] (bool).

    [N, C, H, W] -> [N, C, H, M] with phase encoding along columns (`axis` -1, n = W), or [N, C, M, W] along rows (-2,
    n = H). The lines k and n - k of a real image are complex conjugates: a pair counts once, and is measured as soon as
    one of it is. The M samples are those of the real, unitary Fourier transform F, in order of k <= n / 2: F_0, then
    sqrt(2) Re F_k and sqrt(2) Im F_k, and F_n/2 where n is even. So nothing is said twice and A A' = I for every mask
    (data consistency converges at once); A' y is the zero-filled image, and a full mask is invertible. `pack` brings a
    scanner's complex k-space into these samples.
    """

    mask: Tensor
    matrix: Tensor

    def __init__(self, mask: Tensor, axis: int = -1) -> None:
        super().__init__()
        if mask.dtype != torch.bool or mask.ndim != 1 or not bool(mask.any()):
            raise ValueError("KSpace: the mask must be boolean, [n], with at least one line")
        _check_axis(axis)
        self.axis = axis
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("matrix", _real_fourier(mask | _mirrored(mask)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[self.axis] != len(self.mask):
            raise ValueError(f"KSpace: {len(self.mask)} lines do not fit an image of {tuple(x.shape[-2:])}")
        return along(x, self.matrix, self.axis)

    def pack(self, kspace: Tensor) -> Tensor:
        """The samples y of a measured k-space, complex [N, C, H, W], as torch.fft.fft2(image, norm="ortho") has it.

        Lines outside the mask never enter. Of a pair whose lines were both acquired the mean is taken. White noise of
        deviation s in both parts of each acquired value has deviation s in these samples, and sqrt(2) s in those of
        pairs that were acquired once.
        """
        if not kspace.is_complex() or kspace.ndim != 4 or kspace.shape[self.axis] != len(self.mask):
            raise ValueError(f"KSpace: k-space must be complex, [N, C, H, W], with {len(self.mask)} lines")
        k = torch.fft.ifft(kspace, dim=-3 - self.axis, norm="ortho").movedim(self.axis, -1)
        k = k.where(self.mask, torch.zeros((), dtype=k.dtype, device=k.device))
        times = (self.mask.to(k.real) + _mirrored(self.mask).to(k.real)).clamp(min=1)
        zero_filled = torch.fft.ifft((k + _mirrored(k).conj()) / times, norm="ortho").real
        return self(zero_filled.movedim(-1, self.axis))


class MotionBetweenLines(nn.Module):
    """Rigid motion in the image's plane while k-space was acquired (section 1 names motion): [N, C, H, W] -> same.

    Line k of the n phase-encode lines (along `axis`: -1 columns, n = W; -2 rows, n = H) was acquired at pose
    groups[k], `groups` [n] integers from 0 to G - 1. Pose g turns the image about its centre by `angles` [G] (degrees,
    anticlockwise on a screen, pixels taken as square), then moves it by `shifts` [G, 2] (pixels, rows and columns), by
    cubic interpolation, the edge pixel repeated beyond. y = Re F^-1 sum_g M_g F T_g x, linear in x: the picture that a
    scanner makes of such lines, up to the imaginary part, which vanishes where lines k and n - k share a pose. A pose
    of 0 is the identity, constants stay, and poses that are all alike are one rigid motion.
    """

    filters: Tensor
    poses: Tensor

    def __init__(self, groups: Tensor, angles: Tensor, shifts: Tensor, axis: int = -1) -> None:
        super().__init__()
        _check_axis(axis)
        if groups.ndim != 1 or len(groups) == 0 or groups.is_floating_point() or groups.dtype == torch.bool:
            raise ValueError("MotionBetweenLines: groups must hold one integer for each line")
        if angles.ndim != 1 or shifts.shape != (len(angles), 2):
            raise ValueError("MotionBetweenLines: angles [G] and shifts [G, 2] are needed")
        if not bool(angles.isfinite().all() & shifts.isfinite().all()):
            raise ValueError("MotionBetweenLines: angles and shifts must be finite")
        if not 0 <= int(groups.min()) <= int(groups.max()) < len(angles):
            raise ValueError(f"MotionBetweenLines: groups must lie between 0 and {len(angles) - 1}")
        self.axis = axis
        acquired = groups == torch.arange(len(angles), device=groups.device)[:, None]  # [G, n]
        weights = (acquired.double() + _mirrored(acquired).double()) / 2  # the real part: both lines of a pair
        fourier = _real_fourier(torch.ones_like(groups, dtype=torch.bool))
        order = (torch.arange(len(groups)) + 1) // 2  # the line k <= n / 2 of each row of `fourier`
        self.register_buffer("filters", fourier.T @ (weights[:, order, None] * fourier), persistent=False)
        poses = torch.cat([angles.double()[:, None].deg2rad(), shifts.double()], 1)
        self.register_buffer("poses", poses, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = self.filters.shape[-1]
        if x.ndim != 4 or x.shape[self.axis] != n:
            raise ValueError(f"MotionBetweenLines: {n} lines do not fit images {tuple(x.shape)}")
        return torch.stack(
            [along(_moved(x, p), f, self.axis) for p, f in zip(self.poses, self.filters, strict=True)]
        ).sum(0)


def _moved(x: Tensor, pose: Tensor) -> Tensor:
    """x [N, C, H, W] turned by pose[0] (radians) about its centre, then moved by pose[1:] pixels (rows, columns)."""
    if not bool(pose.any()):
        return x
    size = torch.tensor(x.shape[-2:], dtype=pose.dtype, device=pose.device)
    rows, columns = (torch.arange(n, dtype=pose.dtype, device=pose.device) - (n - 1) / 2 for n in x.shape[-2:])
    r, c = (rows - pose[1])[:, None], columns - pose[2]
    cos, sin = pose[0].cos(), pose[0].sin()
    source = torch.stack([c * cos - r * sin, r * cos + c * sin], -1)  # grid_sample takes columns first
    grid = (2 * source / size.flip(0)).to(x).expand(len(x), -1, -1, -1)
    return nn.functional.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)


def _real_fourier(lines: Tensor) -> Tensor:
    """Rows F_0, sqrt(2) Re F_1, sqrt(2) Im F_1, ... (F_n/2) of `lines` [n] (bool, symmetric), [M, n] float64."""
    n = len(lines)
    k = (torch.arange(n, device=lines.device) + 1) // 2
    imaginary = torch.arange(n, device=lines.device) % 2 == 0
    phase = 2 * math.pi / n * (k[:, None] * torch.arange(n, device=lines.device) % n).double()
    alone = (k == 0) | (2 * k == n)
    rows = torch.where((imaginary & ~alone)[:, None], -phase.sin(), phase.cos())
    return (rows * (2 - alone.double())[:, None].div(n).sqrt())[lines[k]]


def _mirrored(lines: Tensor) -> Tensor:
    """Line n - k in the place of line k, along the last axis."""
    return lines.flip(-1).roll(1, -1)


def _check_axis(axis: int) -> None:
    if axis not in (-1, -2):
        raise ValueError(f"the phase-encode axis must be -1 (columns) or -2 (rows), not {axis}")
