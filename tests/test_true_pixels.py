"""In-plane pixels that are interpolated show in the spectrum; images that are merely smooth, or noisy, do not."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.self_prior.spectrum import true_pixels
from brgm_med.self_prior.tune import smoothing

PIXELS = 96
DATA = Path(os.environ.get("BRGM_MED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@cache
def planes() -> Tensor:
    """Discs on a grey ground, [12, PIXELS, PIXELS]: each pixel is the mean of 16 points."""
    size = 4 * PIXELS
    x, y = torch.meshgrid(torch.arange(size) / 4.0, torch.arange(size) / 4.0, indexing="ij")
    draw = torch.rand(12, 30, 4, generator=torch.Generator().manual_seed(0))
    drawn = []
    for discs in draw:
        plane = torch.full((size, size), 100.0)
        for a, b, radius, level in discs.tolist():
            distance = ((x - 16 - 64 * a).square() + (y - 16 - 64 * b).square()).sqrt()
            plane[distance < 2 + 8 * radius] = 300 + 2000 * level
        drawn.append(torch.nn.functional.avg_pool2d(plane[None], 4)[0])
    return torch.stack(drawn)


def zero_filled(scan: Tensor, pixels: int, axis: int) -> Tensor:
    """The magnitude after `pixels` stored pixels were made of k-space along `axis`, in whole numbers."""
    n = scan.shape[axis]
    acquired = torch.fft.fftshift(torch.fft.fft(scan.double(), dim=axis), dim=axis).movedim(axis, -1)
    before = pixels // 2 - n // 2
    padded = torch.nn.functional.pad(acquired, (before, pixels - n - before)).movedim(-1, axis)
    return (torch.fft.ifft(torch.fft.ifftshift(padded, dim=axis), dim=axis).abs() * pixels / n).float().round()


def noisy(scan: Tensor, deviation: float) -> Tensor:
    return scan + deviation * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("noise", [0.0, 10.0])
@pytest.mark.parametrize("pixels", [PIXELS, 144, 192])
def test_a_zero_filled_matrix_is_recognised(pixels: int, noise: float) -> None:
    """Noise of the scanner is in what was acquired: zero-filling leaves it no more frequencies than the head."""
    scan = noisy(planes(), noise)
    assert true_pixels(zero_filled(scan, pixels, 1)) == (pytest.approx(pixels / PIXELS, rel=0.06), 1.0)
    assert true_pixels(zero_filled(scan, pixels, 2)) == (1.0, pytest.approx(pixels / PIXELS, rel=0.06))


@pytest.mark.parametrize("pixels", [144, 192])
def test_both_axes_are_looked_at_apart(pixels: int) -> None:
    scan = zero_filled(zero_filled(planes(), pixels, 1), 120, 2)
    assert true_pixels(scan) == (pytest.approx(pixels / PIXELS, rel=0.06), pytest.approx(1.25, rel=0.06))


@pytest.mark.parametrize("pixels", [144, 192])
def test_linear_interpolation_is_recognised(pixels: int) -> None:
    scan = torch.nn.functional.interpolate(planes()[:, None], (pixels, PIXELS), mode="bilinear", align_corners=True)
    assert true_pixels(scan[:, 0].round()) == (pytest.approx(pixels / PIXELS, rel=0.03), 1.0)


@pytest.mark.parametrize("noise", [0.0, 10.0, 50.0, 200.0])
@pytest.mark.parametrize("deviation", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_a_smooth_or_noisy_image_is_not_taken_for_an_interpolated_one(deviation: float, noise: float) -> None:
    scan, blur = planes(), smoothing(PIXELS, deviation)
    if blur is not None:
        scan = blur @ scan @ blur.T
    assert true_pixels(noisy(scan, noise).round()) == (1.0, 1.0)


@pytest.mark.parametrize("scan", [torch.zeros(4, 64, 64), torch.full((4, 64, 64), 3.0), torch.rand(4, 20, 20)])
def test_planes_that_tell_nothing(scan: Tensor) -> None:
    assert true_pixels(scan) == (1.0, 1.0)


@pytest.mark.skipif(not (DATA / "thick-openms").is_dir(), reason="real scans are beside the project")
def test_real_scans() -> None:
    """The FLAIR's rows were interpolated by its source; a head of IXI was not."""

    def ratios(path: Path) -> tuple[float, float]:
        values = np.asarray(nib.load(path).dataobj, np.float32)  # type: ignore[attr-defined]
        return true_pixels(torch.from_numpy(values).movedim(2, 0))

    assert ratios(DATA / "thick-openms" / "patient12_FLAIR.nii.gz") == (pytest.approx(1.5, abs=0.05), 1.0)
    assert ratios(sorted((DATA / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[120]) == (1.0, 1.0)
