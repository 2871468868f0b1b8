"""Blending without a seam: an answer fills a hole in what is known, and the known values do not move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.errors import BrgmError

TOLERANCE = 1e-9
"""Relative residual, in float64, at which the correction counts as solved."""

KNOWN, BEYOND = -1, -2
"""Instead of a place in the hole: a voxel that is known, and none, beyond the image's border."""


def blend_seamless(known: Tensor, answer: Tensor, hole: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """Gradient-domain (Poisson, membrane) blending: `known` [..., *S] with its `hole` [*S] filled by `answer`.

    S are 2 or 3 spatial axes, `hole` is boolean (True = to be filled), `answer` is shaped like `known`, and `spacing`
    holds the voxel's size along each axis of S (any unit; None: 1). Outside the hole the result is `known`, bit for
    bit. Inside it is answer + u: u is harmonic, equals known - answer on the voxels just outside the hole (neighbours
    across a face), and has no flux through the image's border. So the answer keeps its own gradients and meets what
    is known without a step; a hole without a known neighbour (the whole image) is the plain answer. What `known`
    holds in the hole, NaN included, never enters. The result is a plain tensor of known's dtype. Raises ValueError
    for arguments that do not fit each other, or that are not finite in the hole (answer) or beside it (both).
    """
    known, answer, hole = (t.detach().as_subclass(Tensor) for t in (known, answer, hole))
    if hole.dtype != torch.bool or hole.ndim not in (2, 3):
        raise ValueError("blend_seamless: the hole must be boolean (True = fill) over 2 or 3 spatial axes")
    if known.shape != answer.shape or known.shape[-hole.ndim :] != hole.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (known, answer, hole))
        raise ValueError(f"blend_seamless: known, answer and hole do not fit each other: {shapes}")
    if not (known.is_floating_point() and answer.is_floating_point()):
        raise ValueError(f"blend_seamless: floating values are needed, not {known.dtype} and {answer.dtype}")
    sizes = [1.0] * hole.ndim if spacing is None else [float(s) for s in spacing]
    if len(sizes) != hole.ndim or not all(0 < s < float("inf") for s in sizes):
        raise ValueError(f"blend_seamless: spacing must be {hole.ndim} positive lengths, not {sizes}")

    result = known.clone().reshape(-1, *hole.shape)
    if not bool(hole.any()):
        return result.reshape(known.shape)
    correction = _Membrane(hole, sizes)
    for image, other in zip(result, answer.reshape(result.shape), strict=True):
        filled = other[hole].double() + correction(image.double() - other.double())
        if not bool(filled.isfinite().all()):
            raise ValueError("blend_seamless: a value in the hole (answer) or beside it is not finite")
        image[hole] = filled.to(image.dtype)
    return result.reshape(known.shape)


class _Membrane:
    """The harmonic function in a hole [*S] of n voxels, for any boundary values: (D - W) u = b.

    W holds 1 / spacing^2 for each of the 2 d face neighbours, D the sum of those inside the image, b the boundary
    values times W. The matrix is positive definite as soon as one neighbour is known; it is never formed.
    """

    def __init__(self, hole: Tensor, spacing: Sequence[float]) -> None:
        index = torch.full(hole.shape, KNOWN, device=hole.device)
        index[hole] = torch.arange(int(hole.sum()), device=hole.device)
        self.hole = hole
        self.sides = [(axis, step, 1 / spacing[axis] ** 2) for axis in range(hole.ndim) for step in (-1, 1)]
        self.neighbours = [_shifted(index, axis, step, BEYOND)[hole] for axis, step, _ in self.sides]
        self.places = [index.where(index >= 0, len(index)) for index in self.neighbours]  # the last of n + 1 is a 0
        zero = torch.zeros(len(self.places[0]), dtype=torch.float64, device=hole.device)
        self.diagonal = zero.clone()
        for (_, _, weight), neighbour in zip(self.sides, self.neighbours, strict=True):
            self.diagonal += weight * (neighbour != BEYOND)

    def __call__(self, boundary: Tensor) -> Tensor:
        """u [n] float64 for the values `boundary` [*S], of which those just outside the hole count."""
        b, mass = torch.zeros_like(self.diagonal), 0.0
        for (axis, step, weight), neighbour in zip(self.sides, self.neighbours, strict=True):
            on_rim = neighbour == KNOWN
            b += weight * _shifted(boundary, axis, step, 0)[self.hole].where(on_rim, 0.0)
            mass += weight * float(on_rim.sum())
        if mass == 0 or not bool(b.isfinite().all()):
            return b
        return self._solve(b, (b.sum() / mass).expand_as(b).clone())

    def _product(self, u: Tensor) -> Tensor:
        padded, product = nn.functional.pad(u, (0, 1)), self.diagonal * u
        for (_, _, weight), index in zip(self.sides, self.places, strict=True):
            product.sub_(padded.index_select(0, index), alpha=weight)
        return product

    def _solve(self, b: Tensor, u: Tensor) -> Tensor:
        """Conjugate gradients with the diagonal as preconditioner, from the mean boundary value `u`."""
        residual = b - self._product(u)
        direction = residual / self.diagonal
        energy = residual @ direction
        target = TOLERANCE * float(b.norm())
        for _ in range(10 * sum(self.hole.shape) + 1000):
            if float(residual.norm()) <= target:
                return u
            product = self._product(direction)
            step = energy / (direction @ product)
            u, residual = u.add(step * direction), residual.sub(step * product)
            scaled = residual / self.diagonal
            energy, previous = residual @ scaled, energy
            direction = scaled + (energy / previous) * direction
        raise BrgmError(f"the blend did not converge: residual {float(residual.norm()):.1e}, not {target:.1e}")


def _shifted(x: Tensor, axis: int, step: int, fill: int) -> Tensor:
    """x [*S] as each voxel's neighbour `step` (1 or -1) along `axis` sees it; `fill` beyond the border."""
    beyond = torch.full_like(x.narrow(axis, 0, 1), fill)
    n = x.shape[axis]
    parts = (x.narrow(axis, 1, n - 1), beyond) if step == 1 else (beyond, x.narrow(axis, 0, n - 1))
    return torch.cat(parts, axis)
