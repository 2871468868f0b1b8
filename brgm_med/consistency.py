"""Data consistency: the image nearest to x that the measurement y allows, and the proof of it.

    x* = x + C A' (A C A' + noise^2 I)^-1 (y - A x)

With noise 0, A x* = y for every covariance C. C = I is the orthogonal projection: it never raises the
squared error over the whole grid against any image that the measurement allows. With C the covariance of
x's own error, x* is the most probable correction (Gaussian conditioning); noise > 0 is the proximal step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brgm_med.corruptions import Separable, SliceProfile
from brgm_med.errors import BrgmError
from brgm_med.separable import SeparableSystem

ROUNDING = 1e-6
"""How far from linear a corruption may be, as a part of its largest output."""


def project(
    x: Tensor,
    corruption: nn.Module,
    y: Tensor,
    covariance: Callable[[Tensor], Tensor] | None = None,
    noise: float = 0.0,
    tol: float = 1e-7,
    max_iter: int = 1000,
) -> Tensor:
    """x* = x + C A' (A C A' + noise^2 I)^-1 (y - A x), in float64 inside, a plain tensor of x's dtype.

    `corruption` is any linear module A and `y` a measurement of its output's shape; `covariance` applies a
    symmetric positive C to an image (None: identity, the orthogonal projection); `noise` is the
    measurement's standard deviation in units of the covariance's (C with unit variance: noise over prior
    error). A SliceProfile with a Separable covariance (or None) is solved in closed form, axis by axis; all
    else by conjugate gradients with A' from autograd, to |residual| <= tol |y - mean(y)| (in float32 where `tol` is
    1e-3 or more). Raises ValueError
    when A is not linear, and BrgmError when the system is singular or the iteration does not converge.
    """
    dtype, x, y = x.dtype, _plain(x), _plain(y)
    if isinstance(corruption, SliceProfile) and isinstance(covariance, Separable | None):
        return _separable(x, corruption, y, covariance, noise).to(dtype)
    forward = copy.deepcopy(corruption).double()
    check_linear(forward, x)
    if tol >= 1e-3:
        forward, x, y = forward.float(), x.float(), y.float()
    with torch.enable_grad():
        origin = torch.zeros_like(x, requires_grad=True)
        image = forward(origin)
    if image.shape != y.shape:
        raise ValueError(f"project: y {tuple(y.shape)} is not A x {tuple(image.shape)}")

    def spread_back(r: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(image, origin, r, retain_graph=True)
        return back if covariance is None else covariance(back)

    with torch.no_grad():
        residual = y - forward(x)
        scale = float((y - y.mean()).norm()) or float(y.norm()) or 1.0
        z, direction = torch.zeros_like(y), residual.clone()
        square = residual.square().sum()
        for _ in range(max_iter):
            if float(square.sqrt()) <= tol * scale:
                return (x + spread_back(z)).to(dtype)
            product = forward(spread_back(direction)) + noise**2 * direction
            curvature = (direction * product).sum()
            if not float(curvature) > 0:
                break
            step = square / curvature
            z = z + step * direction
            residual = residual - step * product
            square, previous = residual.square().sum(), square
            direction = residual + (square / previous) * direction
    raise BrgmError(
        f"data consistency did not converge in {max_iter} steps "
        f"(residual {float(square.sqrt()) / scale:.1e}): the measurement "
        "contradicts itself or is ill-posed; state a noise level"
    )


def _plain(x: Tensor) -> Tensor:
    """Values only: float64, no gradient, no subclass."""
    return x.detach().as_subclass(Tensor).double()


def _separable(x: Tensor, corruption: SliceProfile, y: Tensor, covariance: Separable | None, noise: float) -> Tensor:
    """Projection by eigenvectors of each axis. Two passes where there is no noise: the second removes rounding."""
    if y.shape != corruption(x).shape:
        raise ValueError(f"project: y {tuple(y.shape)} is not A x {tuple(corruption(x).shape)}")
    system = SeparableSystem.of(corruption, covariance, x.shape[-3:], x.device)
    for _ in range(2 if noise == 0 else 1):
        x = x + system.correction(y - corruption(x), noise)
    return x


def check_linear(corruption: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Raise ValueError unless A(0) = 0 and A(u + 3 v) = A(u) + 3 A(v) for one random pair shaped like x.

    Up to `ROUNDING` of the largest output, or to the corruption's own `rounding`, where it has one."""
    random = torch.Generator().manual_seed(0)
    u, v = (torch.randn(x.shape, generator=random, dtype=torch.float64).to(x) for _ in range(2))
    with torch.no_grad():
        at_zero, left = corruption(torch.zeros_like(x)), corruption(u + 3 * v)
        right = corruption(u) + 3 * corruption(v)
    size = max(float(right.abs().max()), 1e-300)
    worst = max(float((left - right).abs().max()), float(at_zero.abs().max()))
    if not worst <= getattr(corruption, "rounding", ROUNDING) * size:
        raise ValueError(f"project: the corruption is not linear (off by {worst / size:.1e} of its output)")


def certificate(
    result: Tensor, corruption: nn.Module, y: Tensor, inside: Tensor | None = None, step: float | None = None
) -> dict[str, Any]:
    """Residuals of an image as stored against its measurement; a plain dict for JSON.

    `result`: the values read back from the file; `inside` (bool, broadcastable to y): the samples that lie
    wholly inside the grid, None for all. Gives `relative_residual` = |A x - y| / |y - mean(y)| and
    `max_abs_residual` over those samples. With `step`, the size of one integer step of the file in the
    image's unit, also `bound` = step / 2 times the operator's infinity norm, which max |A x - y| cannot
    exceed when A x = y held before rounding, and whether it does hold (`within_bound`, up to the
    float32 rounding of y). `step` needs a SliceProfile.
    """
    measured = _plain(y)
    with torch.no_grad():
        error = copy.deepcopy(corruption).double()(_plain(result)) - measured
    keep = torch.ones_like(measured, dtype=torch.bool) if inside is None else inside.expand(measured.shape)
    error, samples = error[keep], measured[keep]
    if samples.numel() == 0:
        raise ValueError("certificate: no sample lies inside the grid")
    size, top = float((samples - samples.mean()).norm()), float(error.abs().max())
    norm = float(error.norm())
    record: dict[str, Any] = {
        "relative_residual": norm / size if size > 0 else (0.0 if norm == 0 else math.inf),
        "max_abs_residual": top,
        "samples": measured.numel(),
        "samples_inside": samples.numel(),
    }
    if step is not None:
        if not isinstance(corruption, SliceProfile):
            raise ValueError("certificate: the bound of integer output needs a SliceProfile")
        bound = 0.5 * step * corruption.infinity_norm()
        record["bound"] = bound
        record["within_bound"] = top <= bound + 1.2e-7 * float(samples.abs().max())
    return record
