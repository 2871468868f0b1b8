"""A prior that is learned from the scan itself: its in-plane detail shows what its through-plane detail looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import Profile
from brgm_med.errors import InputRefusedError
from brgm_med.ops.precision import native_precision
from brgm_med.self_prior.acquisition import Acquisition
from brgm_med.self_prior.network import REACH, SubSliceNetwork, averaged, condition
from brgm_med.self_prior.spectrum import extra_blur
from brgm_med.self_prior.tune import Progress, tune
from brgm_med.self_prior.weights import pretrained

ITERATIONS = 300

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
class SelfPrior:
    """A network that was tuned on a scan, and the gain by which its detail is trusted.

    `noise`: the scan's noise over the mean of its tissue. `record`: what was learned, for a certificate.
    """

    network: SubSliceNetwork
    acquisition: Acquisition
    normalisation: IntensityScale
    noise: float
    gain: float
    record: dict[str, Any]

    def base(self, scan: Tensor) -> Tensor:
        """Cubic interpolation made consistent with `scan` [X', Y', Z'], [X, Y, Z]."""
        return self.acquisition.base(scan.float())

    def detail(self, scan: Tensor) -> Tensor:
        """Detail that the base lacks, [X, Y, Z] in the scan's intensities, gain 1; none of it was measured.

        Predicted in the planes of both views through the slices and under mirror images, and averaged.
        """
        axis, precision = self.acquisition.thick, native_precision(torch.device("cpu"))
        planes = self.acquisition.planes(self.normalisation(scan)).transpose(0, 1).contiguous()  # [X, P, Y]
        nx, slices, ny = planes.shape
        conditions = condition(axis, self.noise, 1.0)
        detail = torch.empty(nx, axis.thin, ny)
        rows = max(8, VOXELS // (slices * ny))
        for first in range(0, nx, rows):
            last = min(first + rows, nx)
            lower, upper = max(first - REACH[1], 0), min(last + REACH[1], nx)
            slab = planes[lower:upper]
            across = averaged(self.network, slab.permute(2, 1, 0), conditions, precision)  # [Y, K, P, X]
            across = across.permute(3, 1, 2, 0)[first - lower : last - lower]
            within = averaged(self.network, planes[first:last], conditions, precision)
            detail[first:last] = axis.expand((across + within) / 2)
        detail = (self.normalisation.scale * detail).transpose(0, 1).movedim(0, self.acquisition.axis)
        return project(detail, self.acquisition.corruption, torch.zeros_like(scan))

    def reconstruct(self, scan: Tensor, gain: float | None = None) -> Tensor:
        """base + gain * detail of `scan` [X', Y', Z'], [X, Y, Z] float32; `gain` None: the prior's own.

        Consistent with the scan for every gain.
        """
        return self.base(scan) + (self.gain if gain is None else gain) * self.detail(scan)


def learn(
    scan: Tensor,
    spacing: Sequence[float],
    axis: int,
    profile: Profile = "box",
    thickness: float | None = None,
    *,
    noise: float = 0.0,
    iterations: int = ITERATIONS,
    network: SubSliceNetwork | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelfPrior:
    """Learn a prior from the planes of a scan with thick slices.

    scan: [X, Y, Z], any intensities.
    spacing: mm along its three axes.
    axis: the slice axis, 0 to 2.
    profile, thickness: of the slices; mm, full width at half maximum; None: as thick as they lie apart.
    noise: standard deviation of the scan's white noise in its intensities, 0 where it is negligible.
    iterations: of tuning; 0 takes the network as it is.
    network: to start from, left unchanged; None: the shipped, pre-trained one.

    Raises InputRefusedError, in one line, where there is nothing to learn.
    """
    began = time.process_time()
    acquisition = Acquisition.of(scan.shape, spacing, axis, thickness, profile)
    normalisation = IntensityScale.of(scan)
    views = acquisition.views(acquisition.planes(normalisation(scan)))
    thick, relative = acquisition.thick, noise / normalisation.scale
    excess = extra_blur(views, thick.step, thick.thickness, profile, relative)
    start = pretrained() if network is None else network
    tuned = SubSliceNetwork(start.widths).to(memory_format=torch.channels_last)
    tuned.load_state_dict(start.state_dict())
    losses = tune(
        tuned,
        views,
        thick.step,
        thick.thickness,
        profile,
        plane=thick.thickness,
        noise=relative,
        blur=blur_for(excess) * thick.step,
        iterations=iterations,
        seed=seed,
        precision=native_precision(torch.device("cpu")),
        progress=progress,
    )
    gain = gain_for(excess)
    record = {
        "iterations": iterations,
        "seconds": time.process_time() - began,
        "loss": sum(losses[-50:]) / max(1, len(losses[-50:])),
        "gain": gain,
        "extra_blur": excess,
        "noise": noise,
        "step": thick.step,
        "pixel_mm": acquisition.pixel,
    }
    return SelfPrior(tuned, acquisition, normalisation, relative, gain, record)


def blur_for(excess: float) -> float:
    """Standard deviation, in slices, by which planes are blurred before they teach, for an `extra_blur`."""
    return excess**0.5 if excess > BLURRED else 0.0


def gain_for(excess: float) -> float:
    """The gain for an extra blur: the planes, means over a slice, hold less detail than the truth does."""
    return 1.1 if excess <= BLURRED else 1.0
