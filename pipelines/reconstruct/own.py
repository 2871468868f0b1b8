"""Reconstruction by the prior that the scans themselves teach: it needs no template and knows every contrast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.files import digest
from brgm_med.noise_level import NoiseLevel, noise_of_scan, thinned
from brgm_med.pipelines.reconstruct.consistent import measurement_of, oblique
from brgm_med.pipelines.reconstruct.measurement import LinearMeasurement, PriorWeight, Scan
from brgm_med.pipelines.reconstruct.phases import Phases, counted, silent
from brgm_med.pipelines.reconstruct.surroundings import nearest
from brgm_med.priors import SELF
from brgm_med.search import Search
from brgm_med.self_prior import Acquisition, SelfPrior, ThickScan, learn
from brgm_med.self_prior.acquisition import LEAST_STEP
from brgm_med.self_prior.prior import BLURRED
from brgm_med.self_prior.spectrum import true_pixels
from brgm_med.self_prior.weights import FILE
from brgm_med.transforms.acquire import fine_grid
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import FEWEST_VOXELS, resample_cubic

ALIKE = 0.6
"""Least correlation of two scans of one head where they overlap; scans of one contrast have more."""

UNMEASURED = 1e-6
"""Weight of the first scan where it measured nothing: others take its place."""

EDGE_MM = 6.0
"""Over this distance from the edge of its field of view a further scan gives way to the first."""


@dataclass(frozen=True, eq=False)
class Taught:
    """Images [1, X, Y, Z] of the scans on the result's grid, in the first one's units, not yet projected.

    `base`: cubic interpolation made consistent; `image`: with the gain times the detail that the scans taught.
    `measurements`: all scans, of the result. `priors`: those of the scans with thick slices, in their order,
    after so many `iterations`; `pixels`: their true pixel sizes, mm, see `detail_of`.
    """

    base: Tensor
    image: Tensor
    measurements: tuple[LinearMeasurement, ...]
    noise: tuple[NoiseLevel, ...]
    priors: tuple[SelfPrior, ...]
    pixels: tuple[tuple[float, float], ...]
    iterations: int

    @property
    def weight(self) -> PriorWeight:
        """Weight of the scans' own prior, which is the gain of the first scan with thick slices."""
        prior = self.priors[0]
        facts = {
            "iterations": self.iterations,
            "extra_blur": round(prior.extra_blur, 4),
            "slice_spacing_in_pixels": prior.acquisition.thick.step,
            "true_pixels_mm": list(self.pixels[0]),
        }
        return PriorWeight(SELF, digest(FILE), min(self.pixels[0]), prior.gain, reason(prior), facts)


def reason(prior: SelfPrior) -> str:
    """The reason for the gain of a self prior."""
    if prior.extra_blur <= BLURRED:
        return "the scan is as sharp through plane as in plane"
    return f"the scan is smoother through plane than in plane, by {prior.extra_blur**0.5:.2f} slices"


def slice_axis(scan: Scan) -> int:
    """The stated slice axis, else, and where a box's slices are no thicker than pixels, that along which a sample is
    longest."""
    model, spacing = scan.acquisition, scan.grid.spacing
    if model.axis is not None:
        pixel = min(s for a, s in enumerate(spacing) if a != model.axis)
        if model.profile != "box" or spacing[model.axis] >= LEAST_STEP * pixel:
            return model.axis
    return max(range(3), key=lambda a: model.thickness[a])


def acquisition(scan: Scan) -> Acquisition:
    """The scan as the self prior sees it. Raises InputRefusedError, which names the scan, for slices that are not
    thick."""
    axis, model = slice_axis(scan), scan.acquisition
    try:
        return Acquisition.of(scan.grid.shape, scan.grid.spacing, axis, model.thickness[axis], model.profile)
    except InputRefusedError as error:
        raise InputRefusedError(f"{scan.name}: {error}") from error


def noise_level(scan: Scan) -> NoiseLevel:
    """As stated, else estimated from the scan itself."""
    if scan.noise is not None:
        return NoiseLevel(scan.noise, "stated")
    return noise_of_scan(scan.values[0], slice_axis(scan), scan.measured)


def detail_of(scan: Scan) -> tuple[float, float]:
    """True pixel sizes (mm) of the scan's planes along both axes: larger than stored where these were interpolated."""
    axis = slice_axis(scan)
    first, second = (s for a, s in enumerate(scan.grid.spacing) if a != axis)
    x, y = true_pixels(scan.values[0].movedim(axis, 0))
    return first * x, second * y


def teach(
    scans: Sequence[Scan],
    grid: Grid,
    search: Search,
    *,
    seed: int = 0,
    message: Callable[[str], object] = lambda line: None,
    phases: Phases = silent,
) -> Taught:
    """Learn from the planes of every scan with thick slices, and apply it to each of them.

    `grid`: of the result, with the first scan's axes and first edges. Raises InputRefusedError, which names the scan,
    where none has thick slices, and for a further scan that does not look like the first where they overlap.
    """
    noise = tuple(noise_level(scan) for scan in scans)
    thick: list[tuple[int, ThickScan]] = []
    refusal: InputRefusedError | None = None
    for number, scan in enumerate(scans):
        try:
            thick.append((number, ThickScan(scan.values[0], acquisition(scan), noise[number].deviation)))
        except InputRefusedError as error:
            refusal = refusal or error
    if refusal is not None and not thick:
        raise refusal
    with counted(phases, "learning from the scan's planes") as step:
        priors = learn([scan for _, scan in thick], iterations=search.learning, seed=seed, progress=step)
    of = {number: prior for (number, _), prior in zip(thick, priors, strict=True)}
    pixels = {number: detail_of(scans[number]) for number in of}
    for number, prior in of.items():
        message(f"{scans[number].name}: {learned(scans[number], prior, pixels[number], noise[number])}")
    images = [_images(scan, of.get(number), grid, phases) for number, scan in enumerate(scans)]
    first, (base, image) = scans[0], images[0]
    operator = first.acquisition.corruption(grid, first.grid)
    measurements = [measurement_of(first, operator, noise[0].deviation)]
    weights = torch.where(nearest(first.measured, first.grid, grid), 1.0, UNMEASURED).to(base)
    totals = [weights * base, weights * image]
    for scan, level, pair in zip(scans[1:], noise[1:], images[1:], strict=True):
        weight = field_of_view(scan.grid, grid) * nearest(scan.measured, scan.grid, grid)
        slope, offset = match(scan, pair[1], image, weight)
        totals = [t + weight * (slope * x + offset) for t, x in zip(totals, pair, strict=True)]
        weights = weights + weight
        measurements.append(oblique(scan, grid, slope * scan.values + offset, slope * level.deviation))
    base, image = (t / weights for t in totals)
    return Taught(base, image, tuple(measurements), noise, priors, tuple(pixels.values()), search.learning)


def learned(scan: Scan, prior: SelfPrior, pixels: tuple[float, float], noise: NoiseLevel) -> str:
    """Account of what a scan taught, for the log: scales, gain, noise."""
    stored = [s for a, s in enumerate(scan.grid.spacing) if a != slice_axis(scan)]
    apart = prior.acquisition.thick.step * prior.acquisition.pixel
    line = (
        f"detail of {min(pixels):.3g} mm learned from its planes for slices {apart:.3g} mm apart, gain {prior.gain:g} "
    )
    line += f"({reason(prior)}), noise {noise.deviation:.3g} ({noise.kind})"
    if any(true > 1.001 * size for true, size in zip(pixels, stored, strict=True)):
        line += f"; its pixels are interpolated from {pixels[0]:.3g} x {pixels[1]:.3g} mm"
    return line


def _images(scan: Scan, prior: SelfPrior | None, grid: Grid, phases: Phases) -> tuple[Tensor, Tensor]:
    """Base and reconstruction of one scan on `grid`, [1, X, Y, Z]."""
    if prior is None:
        base = resampled(scan.values.float(), scan.grid, grid)
        return base, base
    own, values = fine_grid(scan.grid, (prior.acquisition.pixel,) * 3), scan.values[0].float()
    base = prior.base(values)[None]
    with counted(phases, "inferring detail between slices") as step:
        detail = prior.detail(values, step)[None]
    return resampled(base, own, grid), resampled(base + prior.gain * detail, own, grid)


def resampled(image: Tensor, source: Grid, grid: Grid) -> Tensor:
    """An image [1, X, Y, Z] on another grid by cubic B-splines; beyond its edges it goes on as there."""
    if source.shape == grid.shape and np.allclose(source.affine, grid.affine, rtol=0, atol=1e-4):
        return image
    cubic = resample_cubic(image, source, grid, outside=math.nan)
    return torch.where(cubic.isnan(), resample(image, source, grid, padding="border"), cubic)


def field_of_view(source: Grid, grid: Grid) -> Tensor:
    """Weight of a further scan on `grid`, [1, X, Y, Z]: 1 inside its box, falling to 0 over `EDGE_MM` at its edge."""
    weight = torch.ones(1, *source.shape)
    for axis, (n, s) in enumerate(zip(source.shape, source.spacing, strict=True)):
        depth = torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) * s
        ramp = (depth / EDGE_MM).clamp(max=1.0)
        weight = weight * ramp.reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    return resample(weight, source, grid)


def match(scan: Scan, image: Tensor, first: Tensor, weight: Tensor) -> tuple[float, float]:
    """Slope and offset that bring the intensities of a further scan's `image` to those of the `first`, by mean and
    standard deviation where they overlap. Raises InputRefusedError where they do not, or are not `ALIKE` there."""
    inside = weight > 0.5
    if int(inside.sum()) < FEWEST_VOXELS:
        raise InputRefusedError(f"{scan.name}: does not overlap with the first scan; reconstruct each alone")
    a, b = (thinned(x[inside]).double() for x in (image, first))
    correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    if not correlation >= ALIKE:
        raise InputRefusedError(
            f"{scan.name}: does not look like the first scan where they overlap (correlation {correlation:.2f}, at "
            f"least {ALIKE} needed); register it to the first, or reconstruct each alone"
        )
    slope = float(b.std() / a.std())
    return slope, float(b.mean()) - slope * float(a.mean())
