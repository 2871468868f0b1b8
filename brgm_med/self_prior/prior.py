"""A prior that is learned from the scan itself: its in-plane detail shows what its through-plane detail looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.corruptions import Profile, SliceProfile, along
from brgm_med.errors import InputRefusedError
from brgm_med.ops.precision import native_precision
from brgm_med.self_prior.network import REACH, SubSliceNetwork, averaged, condition
from brgm_med.self_prior.spectrum import extra_blur
from brgm_med.self_prior.thick_axis import ThickAxis
from brgm_med.self_prior.tune import Progress, tune
from brgm_med.self_prior.weights import pretrained

LEAST_STEP = 1.3
"""Slices must lie this many pixels apart, or the scan has nothing to teach."""

FEWEST_PIXELS = 32
"""Shortest side of a plane from which pairs are made."""

SHARP = 1.5
"""Pixels that are longer than the shortest by more than this factor have no fine detail to teach along that side."""

ITERATIONS = 300

BLURRED = 0.04
"""From this extra blur on, in squared slice spacings, a scan counts as smoother through plane. Chosen, as the gains
are, on validation heads of IXI, ds000011 and ds002748, with noise and with blur added."""

VOXELS = 400_000
"""Samples that are processed at once, so that memory does not grow with the scan."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """A scan of parallel slices: how each of its axes samples the isotropic grid of the reconstruction.

    The grid has the scan's axes and first edges and the finest in-plane spacing, `pixel` (mm). `axes`: one `ThickAxis`
    per axis of the scan, None where both grids agree; `axis`: the number of the slice axis.
    """

    axes: tuple[ThickAxis | None, ...]
    axis: int
    pixel: float

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float],
        axis: int,
        thickness: float | None = None,
        profile: Profile = "box",
    ) -> Acquisition:
        """Of a scan of that `shape` [X, Y, Z] and `spacing` (mm), slices along `axis` of `thickness` mm (None: the
        spacing). In plane, each pixel averages its own width. Raises InputRefusedError where the slices are no thicker
        than pixels or the planes are too small to learn from."""
        plane = [a for a in range(3) if a != axis]
        pixel = min(spacing[a] for a in plane)
        step = spacing[axis] / pixel
        if step < LEAST_STEP:
            raise InputRefusedError(
                f"slices every {spacing[axis]:g} mm and pixels of {pixel:g} mm: no thick slices, nothing to learn"
            )
        if min(shape[a] * spacing[a] / pixel for a in plane) < max(FEWEST_PIXELS, 4 * step):
            raise InputRefusedError(
                f"planes of {shape[plane[0]]} x {shape[plane[1]]} pixels are too small to learn from"
            )
        widths = [s / pixel for s in spacing]
        if thickness is not None:
            widths[axis] = thickness / pixel
        axes: list[ThickAxis | None] = []
        for a in range(3):
            ratio = spacing[a] / pixel
            if ratio <= 1 + 1e-3:
                axes.append(None)
                continue
            thin = int(-(-(shape[a] * ratio - 1e-6) // 1))
            axes.append(ThickAxis(thin, shape[a], ratio, widths[a], profile if a == axis else "box"))
        return cls(tuple(axes), axis, pixel)

    @property
    def thick(self) -> ThickAxis:
        """The slice axis."""
        thick = self.axes[self.axis]
        assert thick is not None
        return thick

    @property
    def corruption(self) -> SliceProfile:
        """A: images on the isotropic grid -> the scan."""
        return SliceProfile([None if a is None else a.matrix for a in self.axes])

    def base(self, scan: Tensor) -> Tensor:
        """Cubic interpolation made consistent, axis by axis: a scan [X', Y', Z'] on the isotropic grid, [X, Y, Z]."""
        for number, axis in enumerate(self.axes):
            if axis is not None:
                scan = along(scan, axis.base, number)
        return scan

    def planes(self, scan: Tensor) -> Tensor:
        """The scan's planes with isotropic pixels, [P, X, Y], P along the slices."""
        for number, axis in enumerate(self.axes):
            if axis is not None and number != self.axis:
                scan = along(scan, axis.base, number)
        return scan.movedim(self.axis, 0).contiguous()

    def views(self, planes: Tensor) -> list[Tensor]:
        """`planes` [P, X, Y] turned so that each sharp in-plane axis comes second once: what may be made thick."""
        ratios = [1.0 if axis is None else axis.step for number, axis in enumerate(self.axes) if number != self.axis]
        turned = (planes, planes.transpose(1, 2))
        return [view for view, ratio in zip(turned, ratios, strict=True) if ratio <= SHARP]


@dataclass(frozen=True)
class Normalisation:
    """`low`: the intensity of air; `scale`: the mean of tissue above it."""

    low: float
    scale: float

    @classmethod
    def of(cls, scan: Tensor) -> Normalisation:
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
    normalisation: Normalisation
    noise: float
    gain: float
    record: dict[str, Any]

    def base(self, scan: Tensor) -> Tensor:
        """Cubic interpolation made consistent with `scan` [X', Y', Z'], [X, Y, Z]."""
        return self.acquisition.base(scan.float())

    def detail(self, scan: Tensor) -> Tensor:
        """What the base lacks, [X, Y, Z] in the scan's intensities, gain 1: nothing of it is in what was measured.

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
    normalisation = Normalisation.of(scan)
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
