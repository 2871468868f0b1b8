"""Conjugate gradients for one system under several shifts at the price of one: (K + shift I) u = r."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def solve_shifted(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    shifts: Sequence[float],
    *,
    tolerance: float,
    iterations: int,
    progress: Callable[[float], object] = lambda residual: None,
) -> list[Tensor]:
    """u of each of the `shifts` (positive), of the shape of `right` and in its type.

    `product` applies K, symmetric and not negative. All shifts share one Krylov space (Frommer and Maass 1999): the
    system of the smallest, which is the slowest, is iterated until its residual is below `tolerance` |right|, or so
    many `iterations`; the others, whose residuals are smaller, follow by recurrences. `progress` is called after each
    with the relative residual.
    """
    least = min(shifts)
    offsets = [shift - least for shift in shifts]
    solutions, directions = [right * 0 for _ in shifts], [right.clone() for _ in shifts]
    now, before = [1.0] * len(shifts), [1.0] * len(shifts)
    residual, direction = right.clone(), right.clone()
    square = first = squared(right)
    step, ratio = 1.0, 0.0
    for _ in range(iterations):
        if not square > tolerance**2 * first:
            break
        image = torch.add(product(direction), direction, alpha=least)
        previous, step = step, square / float((direction.double() * image.double()).sum())
        residual.sub_(image, alpha=step)
        square, last = squared(residual), square
        ratio, old = square / last, ratio
        for j, offset in enumerate(offsets):
            scale = step * old * (before[j] - now[j]) + before[j] * previous * (1 + offset * step)
            after = now[j] * before[j] * previous / scale
            solutions[j].add_(directions[j], alpha=step * after / now[j])
            directions[j].mul_(ratio * (after / now[j]) ** 2).add_(residual, alpha=after)
            before[j], now[j] = now[j], after
        direction.mul_(ratio).add_(residual)
        progress((square / first) ** 0.5)
    return solutions


def squared(x: Tensor) -> float:
    """Sum of squares, in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2
