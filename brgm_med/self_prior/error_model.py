"""The error of a self prior, measured on the scan's own planes: they are made thick, reconstructed, and compared with
the truths that they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from brgm_med.noise_level import thinned
from brgm_med.ops.precision import native_precision
from brgm_med.self_prior.network import averaged, condition
from brgm_med.self_prior.prior import IntensityScale, SelfPrior, blur_for
from brgm_med.self_prior.thick_axis import ThickAxis
from brgm_med.self_prior.tune import smoothing

WIDTH = 0.5
"""Standard deviation, in slices, of the Gaussian by which local averages are taken."""

TISSUE = 0.15
"""Errors count where the local mean exceeds this part of the mean of tissue: in air there is nothing to infer."""

PIXELS = 600_000
"""Pixels of a view, about, whose errors are measured."""

CERTAIN = 0.12
"""Extra blur (see `spectrum.extra_blur`) from which a scan is taken to be smoother through plane. One validation brain,
blurred by 1 voxel of 1 mm, has 0.06 and is covered by 98 % for 90; so has the head of the demo (0.06), which is not
smoother: its planes, blurred, would cover 73 % where they cover 90."""

LEVELS = torch.linspace(0, 0.995, 200, dtype=torch.float64)
"""Coverages whose quantiles are kept."""


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """Size and correlation of the error of base + gain * detail, as it is on the scan's own planes.

    The error's variance at a pixel is (`weights` @ `features`) * (1 + `phase` * cos(2 pi p)) + that of noise: `weights`
    [3] not negative, p the position in the slice, 0 to 1. `quantiles` [200]: of |error| / deviation at `LEVELS`.
    `along`, `across`: autocorrelation of error / deviation along the thick axis and along a sharp one, at lags of 0, 1,
    2 ... pixels. `rms`: of the error, normalised intensities. `count`: so many pixels were compared.

    Planes are means over a slice's thickness and hold less detail than the truth, and the network was tuned on them:
    `search.HEADS` says by how much their errors are too small.
    """

    weights: Tensor
    phase: float
    quantiles: Tensor
    along: Tensor
    across: Tensor
    rms: float
    count: int
    normalisation: IntensityScale

    @classmethod
    def of(cls, prior: SelfPrior, scan: Tensor) -> ErrorModel:
        """Of a prior and the scan [X', Y', Z'] that taught it."""
        step = prior.acquisition.thick.step
        views = prior.acquisition.views(prior.acquisition.planes(prior.normalisation(scan)))
        compared = [_compared(prior, view[:: max(1, round(view.numel() / PIXELS))]) for view in views]
        error, local, floor = (torch.cat([c[n][..., c[3]] for c in compared], -1) for n in range(3))
        wave = torch.cat([_wave(c[0], step)[c[3]] for c in compared])
        weights = fitted(error, local, floor)
        ratio = (error.square() - floor) / (weights @ local)
        ratio = ratio.clamp(max=float(torch.quantile(thinned(ratio), 0.99)))
        line = ((wave - wave.mean()) * ratio).mean() / (wave - wave.mean()).square().mean()
        phase = float((line / ratio.mean()).clamp(-0.9, 0.9))
        sized = [
            (e / (torch.einsum("k,knhw->nhw", weights, f) * (1 + phase * _wave(e, step)) + n).sqrt(), where)
            for e, f, n, where in compared
        ]
        scores = torch.cat([z[where] for z, where in sized]).abs().double().sort().values
        quantiles = scores[(LEVELS * (len(scores) - 1)).long()]
        lags = 2 * math.ceil(step)
        along, across = (torch.stack([autocovariance(z, w, lags, d) for z, w in sized]).mean(0) for d in (1, 2))
        rms, parts = float(error.square().mean().sqrt()), (along / along[0], across / across[0])
        return cls(weights, phase, quantiles, *parts, rms, len(scores), prior.normalisation)

    def quantile(self, level: float) -> float:
        """Of |error| / deviation, for a `level` in (0, 0.995]."""
        position = level / float(LEVELS[1])
        below = min(int(position), len(LEVELS) - 2)
        return float(torch.lerp(self.quantiles[below], self.quantiles[below + 1], position - below))

    def deviation(self, base: Tensor, detail: Tensor, axis: int, step: float) -> Tensor:
        """Standard deviation of the error but for noise, [X, Y, Z], in the units of `base` and `detail` [X, Y, Z];
        slices lie along `axis`, `step` voxels apart, the first from the first edge on."""
        scale = self.normalisation.scale
        base, detail = self.normalisation(base), detail.float() / scale
        first, second = (a for a in range(3) if a != axis)
        variance = torch.zeros_like(base)
        for order in ((first, axis, second), (second, axis, first)):
            turned = variance.permute(order)
            local = features(base.permute(order), detail.permute(order), step)
            for weight, part in zip(self.weights.tolist(), local, strict=True):
                turned += weight / 2 * part
        turned *= 1 + self.phase * _wave(turned, step)
        return scale * variance.sqrt()


def _compared(prior: SelfPrior, thin: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Error, `features`, the noise's part of its variance, and where there is tissue: of planes [P, H, W] that are made
    thick along H and reconstructed, without a slice at each end.

    A scan that looks smoother through plane taught from planes that were blurred. Here they are blurred only from
    `CERTAIN` on: below it heads look alike that are smoother and that are not, whose errors would be too small.
    """
    thick, noise = prior.acquisition.thick, prior.noise
    if prior.extra_blur > CERTAIN:
        smooth = smoothing(thin.shape[1], blur_for(prior.extra_blur) * thick.step)
        assert smooth is not None
        thin = smooth @ thin
    axis = ThickAxis.inside(thin.shape[1], thick.step, thick.thickness, thick.profile)
    thin = thin[:, : axis.thin]
    slices, conditions = axis.matrix.float() @ thin, condition(axis, noise, thick.thickness)
    coefficients = averaged(prior.network, slices, conditions, native_precision(torch.device("cpu")))
    base, detail = axis.base.float() @ slices, axis.null.float() @ axis.expand(coefficients)
    error, local = thin - base - prior.gain * detail, torch.stack(list(features(base, detail, thick.step)))
    residual = torch.eye(axis.thin) - (axis.base @ axis.matrix).float()
    floor = (noise**2 * residual.square().sum(1))[None, :, None].expand_as(error)
    margin = torch.arange(axis.thin)
    tissue = smoothed(base, thick.step) > TISSUE
    tissue &= ((margin >= thick.step) & (margin < axis.thin - thick.step))[None, :, None]
    return error, local, floor, tissue


def smoothed(x: Tensor, step: float) -> Tensor:
    """Local means of [P, H, W], under a Gaussian of `WIDTH` slices along H and W."""
    low, high = (smoothing(n, WIDTH * step) for n in x.shape[1:])
    assert low is not None
    assert high is not None
    return low @ x @ high.T


def features(base: Tensor, detail: Tensor, step: float) -> Iterator[Tensor]:
    """Local variances that size the error, three of [P, H, W]: of images whose slices lie `step` pixels apart along H.

    A constant; of the detail; of what varies in the base along H over less than a slice. Intensities normalised.
    """
    low = smoothing(base.shape[1], WIDTH * step)
    assert low is not None
    yield torch.full_like(base, 1e-3)
    yield smoothed(detail.square(), step)
    yield smoothed((base - low @ base).square(), step)


def _wave(x: Tensor, step: float) -> Tensor:
    """cos(2 pi p) at the position p in its slice of every pixel of [P, H, W], slices along H."""
    return torch.cos(2 * math.pi * (torch.arange(x.shape[1]) + 0.5) / step)[None, :, None].expand_as(x)


def fitted(error: Tensor, local: Tensor, floor: Tensor, count: int = 200_000) -> Tensor:
    """Weights [K], not negative, for which a Laplace distribution of variance weights @ local + floor makes `error` [N]
    most likely; `local` [K, N]. Evenly taken `count` of the errors are used."""
    every = max(1, len(error) // count)
    error, local, floor = error[::every].double().abs(), local[:, ::every].double(), floor[::every].double()
    scale = local.mean(1).clamp(min=1e-12)
    start = float(error.square().mean()) / len(local)
    logarithms = torch.full((len(local),), math.log(max(start, 1e-12)), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithms], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        deviation = ((logarithms.exp() / scale) @ local + floor).sqrt()
        loss = (deviation.log() + math.sqrt(2) * error / deviation).mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return (logarithms.detach().exp() / scale).float()


def autocovariance(z: Tensor, where: Tensor, lags: int, dim: int) -> Tensor:
    """Mean of z(i) z(i + lag) along a dimension for lags 0 to `lags`, over pairs that both lie in `where`."""
    n = z.shape[dim]
    values = []
    for lag in range(lags + 1):
        if lag >= n:
            values.append(0.0)
            continue
        a, b = z.narrow(dim, 0, n - lag), z.narrow(dim, lag, n - lag)
        both = where.narrow(dim, 0, n - lag) & where.narrow(dim, lag, n - lag)
        values.append(float((a * b)[both].double().mean()) if bool(both.any()) else 0.0)
    return torch.tensor(values)
