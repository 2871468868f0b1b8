"""Spectra of a scan's planes: its extra blur through plane against in plane; in-plane pixels that are interpolated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.self_prior.thick_axis import ThickAxis

BAND = (0.1, 0.45)
"""Frequencies that are compared, cycles per slice."""

DROP, BEFORE, AFTER = 0.8, -1.65, -3.3
"""Cut-off of a spectrum: decades that it falls below its trend; log-log slopes before it and after it, at the least."""

PERIODIC = 0.25
"""Amplitude, relative to their mean, with which second differences of linearly interpolated pixels rise and fall."""

LINES = 20_000
"""Lines of pixels, evenly taken, that a spectrum is the mean of."""


def power(lines: Tensor, frequencies: Tensor, noise: float) -> Tensor:
    """Mean power of `lines` [N, n] at `frequencies` [F] (cycles per sample), under a Hann window, less white noise."""
    n = lines.shape[1]
    window = torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]
    window = window / window.square().sum().sqrt()
    mean = (lines.double() @ window.square())[:, None]
    angles = 2 * math.pi * frequencies[:, None] * torch.arange(n, dtype=torch.float64)
    parts = [(lines.double() - mean) @ (window * wave(angles)).T for wave in (torch.cos, torch.sin)]
    return sum(part.square().mean(0) for part in parts) - noise**2  # type: ignore[return-value]


def extra_blur(views: Sequence[Tensor], step: float, thickness: float, profile: Profile, noise: float = 0.0) -> float:
    """Variance of the Gaussian blur that the scan has through plane and not in plane, in squared slice spacings.

    `views`: the scan's planes [P, H, W], P along the slices, H one in-plane axis or the other; `step`, `thickness` in
    pixels. Made thick along H by the scan's own profile, the data are sampled alike along P and H; were the head as
    sharp along both, their spectra would agree. The slope of the log ratio over (2 pi f)^2 is the variance. Anatomy
    is not the same along both axes: +-0.05 mean nothing, and the result may be negative.
    """
    frequencies = torch.linspace(*BAND, 15, dtype=torch.float64)
    abscissa = (2 * math.pi * frequencies).square()
    slopes = []
    for planes in views:
        axis = ThickAxis.inside(planes.shape[1], step, thickness, profile)
        doubly = axis.matrix.to(planes) @ planes[:, : axis.thin]  # [P, slices, W]
        left = noise * math.sqrt(float(axis.matrix.square().sum(1).mean()))
        through = power(doubly.permute(1, 2, 0).flatten(0, 1), frequencies, left)
        within = power(doubly.transpose(1, 2).flatten(0, 1), frequencies, left)
        floor = 1e-3 * torch.maximum(through, within).max() + left**2 * 0.1
        usable = (through > floor) & (within > floor)
        if int(usable.sum()) < 4:
            continue
        x, y = abscissa[usable], (within / through)[usable].log()
        slopes.append(_line(x, y)[0])
    return sum(slopes) / len(slopes) if slopes else 0.0


def true_pixels(planes: Tensor) -> tuple[float, float]:
    """True over stored pixel size along both axes of a scan's planes [P, X, Y], P along the slices; 1 if not larger.

    `planes` as stored, not resampled. A matrix that was zero-filled in k-space has a spectrum that falls, at the edge
    of what was acquired, from its gentle slope to a floor. Pixels from linear interpolation lie on straight lines
    between the acquired ones, which shows in their second differences (Gallagher 2005). Smoothness alone is no sign.
    Not seen: zero-filling by less than 1.15, or under noise of 2 % of the brightest that came after it; linear
    interpolation other than by 1.2 to 2, or by 2 to positions between the acquired ones; most cubic interpolation; axes
    of fewer than 48 pixels.

    Measured on validation scans, in 8 bits: no false alarm along 180 axes of IXI, ds000011 and ds002748, nor on 16 of
    them blurred by 0.5 to 3 pixels. Zero-filled by 1.25 to 3: found, but once, in IXI and ds000011 and along the sharp
    axes of ds002748 (there every second time with noise of 0.5 %), within 4 %. Linear interpolation by 1.5 and 2: all
    found, within 2 %. Scans of thick-openms, which were seen before the thresholds were set: 1.5 (FLAIR), 1.3 (T1) and
    1.4 (T2) along x; dicom-papaya-pd: none.
    """
    ratios = []
    for view in (planes.transpose(1, 2), planes):
        lines = view.flatten(0, 1)
        lines = lines[:: -(-len(lines) // LINES)].double()
        lines = lines[lines.amax(1) > lines.amin(1)]
        ratios.append(max(_zero_filled(lines), _linear(lines)) if len(lines) and lines.shape[1] >= 48 else 1.0)
    return ratios[0], ratios[1]


def _zero_filled(lines: Tensor) -> float:
    """Ratio of pixels that is seen in the mean spectrum of `lines` [N, n] as a cut-off; 1 without one."""
    n = lines.shape[1]
    index = torch.arange(1, n // 2 + 1, dtype=torch.float64)
    spectrum = power(lines, index / n, 0.0).clamp(min=0)
    decades, nyquist = (spectrum / spectrum.max() + 1e-14).log10(), index / (n / 2)
    best, ratio = DROP, 1.0
    for cut in torch.linspace(0.3, 0.88, 59, dtype=torch.float64):
        left = (nyquist > 0.55 * cut) & (nyquist < 0.89 * cut)
        right = (nyquist > 1.12 * cut) & (nyquist <= 1.4 * cut)
        if int(left.sum()) < 5 or int(right.sum()) < 3:
            continue
        before, at = _line(nyquist[left].log(), decades[left])
        after, _ = _line(nyquist[right].log(), decades[right])
        trend, floor = at + before * nyquist.log(), float(decades[right].mean())
        drop = float(trend[right].mean()) - floor
        if drop > best and before > BEFORE and after > AFTER:
            near = (nyquist > 0.75 * cut) & (nyquist < 1.25 * cut)
            below = near & (decades < (trend + floor) / 2)
            best, ratio = drop, 1 / float(nyquist[below].min()) if bool(below.any()) else 1 / float(cut)
    return ratio


def _linear(lines: Tensor) -> float:
    """Ratio of pixels that is seen in the second differences of `lines` [N, n] as a period; 1 without one."""
    bends = lines.diff(n=2, dim=1).abs().mean(0)
    bends = bends[len(bends) // 8 : -(len(bends) // 8)]
    n = len(bends)
    around = F.avg_pool1d(F.pad(bends[None], (4, 4), mode="replicate"), 9, 1)[0]
    waves = (bends / around.clamp(min=1e-9 * float(bends.max())) - 1) * torch.hann_window(n, dtype=torch.float64)
    spectrum = torch.fft.rfft(waves, n=4 * n).abs() * 4 / n
    spectrum[: int(0.15 * 4 * n)] = 0
    # A period of two pixels is its own mirror image: its amplitude counts twice.
    spectrum[-int(0.02 * 4 * n) :] *= 2
    peak = int(spectrum.argmax())
    return 1 / (1 - peak / (4 * n)) if float(spectrum[peak]) > PERIODIC else 1.0


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and value at 0 of the line through points, by least squares."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return slope, float(y.mean() - slope * x.mean())
