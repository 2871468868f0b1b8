"""The width of a slice profile is estimated from the scan alone, with an interval; what is not told is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import Profile, along, profile_matrix
from brgm_med.slice_width import slice_width
from tests.textures import texture

SIZE = 96


def acquired(thickness: float, gap: float, profile: Profile, axis: int = 2) -> tuple[Tensor, list[float]]:
    """The texture in slices along `axis`, and the spacing of that scan."""
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = thickness + gap
    slices = int(SIZE / spacing[axis])
    return along(texture(SIZE), profile_matrix(SIZE, 1.0, slices, spacing[axis], thickness, profile), axis), spacing


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(("thickness", "gap"), [(4.0, 0.0), (6.0, 0.0), (5.0, 1.0)])
def test_a_gaussian_profile_is_identified_within_a_tenth(thickness: float, gap: float, axis: int) -> None:
    scan, spacing = acquired(thickness, gap, "gaussian", axis)
    estimate = slice_width(scan, axis, spacing, "gaussian")
    assert estimate is not None
    assert estimate.width == pytest.approx(thickness, rel=0.1)
    assert estimate.interval[0] < thickness < estimate.interval[1]
    assert estimate.identified
    assert not estimate.contradicts(thickness)


@pytest.mark.parametrize(("thickness", "gap"), [(6.0, 0.0), (6.0, 2.0), (4.0, 1.0)])
def test_a_box_lies_in_its_interval_and_is_not_said_to_be_sure(thickness: float, gap: float) -> None:
    """Heads differ between their axes by more than a box does from a narrower one, which the interval says."""
    scan, spacing = acquired(thickness, gap, "box")
    estimate = slice_width(scan, 2, spacing, "box")
    assert estimate is not None
    assert estimate.wide[0] < estimate.interval[0] < thickness < estimate.interval[1] < estimate.wide[1]
    assert not estimate.identified
    assert not estimate.contradicts(thickness)


def test_slices_that_overlap_by_far_contradict_a_header_that_denies_it() -> None:
    spacing = [1.0, 1.0, 4.0]
    scan = along(texture(SIZE), profile_matrix(SIZE, 1.0, SIZE // 4, 4.0, 7.0, "gaussian"), 2)
    estimate = slice_width(scan, 2, spacing, "gaussian")
    assert estimate is not None
    assert estimate.width == pytest.approx(7.0, rel=0.15)
    assert estimate.contradicts(4.0)
    assert not estimate.contradicts(7.0)


def test_brightness_does_not_matter_and_noise_widens_the_interval() -> None:
    scan, spacing = acquired(5.0, 0.0, "gaussian")
    plain = slice_width(scan, 2, spacing, "gaussian")
    scaled = slice_width(700 * scan, 2, spacing, "gaussian")
    noise = 0.1 * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))
    noisy = slice_width(scan + noise, 2, spacing, "gaussian")
    assert plain is not None
    assert scaled is not None
    assert noisy is not None
    assert scaled.width == pytest.approx(plain.width, rel=1e-3)
    assert noisy.interval[1] - noisy.interval[0] > plain.interval[1] - plain.interval[0]


@pytest.mark.parametrize(
    ("scan", "spacing"),
    [
        (torch.full((64, 64, 20), 7.0), (1.0, 1.0, 5.0)),
        (torch.rand(64, 64, 20), (1.0, 1.0, 1.0)),
        (torch.rand(64, 64, 6), (1.0, 1.0, 5.0)),
        (torch.rand(20, 20, 20), (1.0, 1.0, 5.0)),
    ],
    ids=["constant", "isotropic", "six slices", "small planes"],
)
def test_scans_that_tell_nothing(scan: Tensor, spacing: tuple[float, float, float]) -> None:
    assert slice_width(scan, 2, spacing) is None
