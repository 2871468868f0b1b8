"""A prior that is learned from the scan itself: its in-plane detail shows what its through-plane detail looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.errors import InputRefusedError
from brgm_med.ops.precision import native_precision
from brgm_med.search import VOLUME
from brgm_med.self_prior.acquisition import Acquisition
from brgm_med.self_prior.network import REACH, SubSliceNetwork, averaged, condition
from brgm_med.self_prior.spectrum import extra_blur
from brgm_med.self_prior.tune import Lesson, Progress, tune
from brgm_med.self_prior.weights import pretrained

BLURRED = 0.04
"""From this extra blur on, in squared slice spacings, a scan counts as smoother through plane. Chosen, as the gains
are, on validation heads of IXI, ds000011 and ds002748, with noise and with blur added."""

VOXELS = 400_000
"""Samples that are processed at once, so that memory does not grow with the scan."""


@dataclass(frozen=True)
class IntensityScale:
    """`low`: the intensity of air; `scale`: the mean of tissue above it."""

    low: float
    scale: float

    @classmethod
    def of(cls, scan: Tensor) -> IntensityScale:
        """Of a scan of any shape. Raises InputRefusedError for a constant one."""
        values = scan.flatten()[:: max(1, scan.numel() // 1_000_000)].double()
        low, high = torch.quantile(values, torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
        tissue = values[values > low + 0.15 * (high - low)]
        if not high > low:
            raise InputRefusedError("the scan is constant: nothing to learn")
        return cls(low, float(tissue.mean()) - low)

    def __call__(self, scan: Tensor) -> Tensor:
        return (scan.float() - self.low) / self.scale


@dataclass(frozen=True, eq=False)
class ThickScan:
    """A scan `values` [X, Y, Z] of parallel slices, any intensities, and its white noise's standard deviation there."""

    values: Tensor
    acquisition: Acquisition
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class SelfPrior:
    """A network that was tuned on a scan, and the gain by which its detail is trusted.

    `noise`: the scan's noise over the mean of its tissue; `extra_blur`: see `spectrum.extra_blur`.
    """

    network: SubSliceNetwork
    acquisition: Acquisition
    normalisation: IntensityScale
    noise: float
    extra_blur: float
    gain: float

    def base(self, scan: Tensor) -> Tensor:
        """Cubic interpolation made consistent with `scan` [X', Y', Z'], [X, Y, Z]."""
        return self.acquisition.base(scan.float())

    def detail(self, scan: Tensor, progress: Progress | None = None) -> Tensor:
        """Detail that the base lacks, [X, Y, Z] in the scan's intensities, gain 1; none of it was measured.

        Predicted in the planes of both views through the slices and under mirror images, and averaged.
        """
        axis, precision = self.acquisition.thick, native_precision(torch.device("cpu"))
        planes = self.acquisition.planes(self.normalisation(scan)).transpose(0, 1).contiguous()  # [X, P, Y]
        nx, slices, ny = planes.shape
        conditions = condition(axis, self.noise, 1.0)
        detail = torch.empty(nx, axis.thin, ny)
        rows = max(8, VOXELS // (slices * ny))
        starts = range(0, nx, rows)
        for number, first in enumerate(starts, 1):
            last = min(first + rows, nx)
            lower, upper = max(first - REACH[1], 0), min(last + REACH[1], nx)
            slab = planes[lower:upper]
            across = averaged(self.network, slab.permute(2, 1, 0), conditions, precision)  # [Y, K, P, X]
            across = across.permute(3, 1, 2, 0)[first - lower : last - lower]
            within = averaged(self.network, planes[first:last], conditions, precision)
            detail[first:last] = axis.expand((across + within) / 2)
            if progress is not None:
                progress(number, len(starts))
        detail = (self.normalisation.scale * detail).transpose(0, 1).movedim(0, self.acquisition.axis)
        return project(detail, self.acquisition.corruption, torch.zeros_like(scan))

    def reconstruct(self, scan: Tensor, gain: float | None = None) -> Tensor:
        """base + gain * detail of `scan` [X', Y', Z'], [X, Y, Z] float32; `gain` None: the prior's own.

        Consistent with the scan for every gain.
        """
        return self.base(scan) + (self.gain if gain is None else gain) * self.detail(scan)


def learn(
    scans: Sequence[ThickScan],
    *,
    iterations: int = VOLUME.learning,
    network: SubSliceNetwork | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SelfPrior, ...]:
    """Learn one network from the planes of all `scans`, of one object and of any orientations; a prior for each.

    `iterations`: of tuning; 0 takes the network as it is. `network`: to start from, left unchanged; None: the shipped,
    pre-trained one. Raises InputRefusedError, in one line, for a scan that is constant.
    """
    start = pretrained() if network is None else network
    tuned = SubSliceNetwork(start.widths).to(memory_format=torch.channels_last)
    tuned.load_state_dict(start.state_dict())
    lessons, priors = [], []
    for scan in scans:
        thick, normalisation = scan.acquisition.thick, IntensityScale.of(scan.values)
        views = scan.acquisition.views(scan.acquisition.planes(normalisation(scan.values)))
        noise, slices = scan.noise / normalisation.scale, (thick.step, thick.thickness, thick.profile)
        excess = extra_blur(views, *slices, noise)
        blur = blur_for(excess) * thick.step
        lessons += [Lesson.of(v, *slices, plane=thick.thickness, noise=noise, blur=blur) for v in views]
        priors.append(SelfPrior(tuned, scan.acquisition, normalisation, noise, excess, gain_for(excess)))
    precision = native_precision(torch.device("cpu"))
    tune(tuned, lessons, iterations=iterations, seed=seed, precision=precision, progress=progress)
    return tuple(priors)


def blur_for(excess: float) -> float:
    """Standard deviation, in slices, by which planes are blurred before they teach, for an `extra_blur`."""
    return excess**0.5 if excess > BLURRED else 0.0


def gain_for(excess: float) -> float:
    """The gain for an extra blur: the planes, means over a slice, hold less detail than the truth does."""
    return 1.1 if excess <= BLURRED else 1.0
