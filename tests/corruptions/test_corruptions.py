"""Corruptions are linear maps whose rows are averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from brgm_med.corruptions import (
    AxisBlur,
    Downsample,
    Mask,
    SliceProfile,
    profile_inside,
    profile_kernel,
    profile_matrix,
)
from tests.examples import blur, randn, scan

PROFILES = [
    (30, 2.0, 10, 6.0, 6.0, "box"),  # integer factor
    (30, 2.0, 12, 5.0, 5.0, "box"),  # non-integer factor
    (31, 0.9, 8, 3.4, 2.0, "box"),  # gaps
    (30, 2.0, 15, 4.0, 7.0, "box"),  # overlap, the first and last slice cut
    (30, 2.0, 10, 6.0, 5.0, "gaussian"),
    (30, 1.0, 10, 3.0, 0.5, "gaussian"),
]


@pytest.mark.parametrize("spec", PROFILES)
def test_rows_are_averages(spec: tuple) -> None:
    m = profile_matrix(*spec)
    assert m.shape == (spec[2], spec[0])
    assert m.dtype == torch.float64
    assert bool((m >= 0).all())
    torch.testing.assert_close(m.sum(1), torch.ones(spec[2], dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("spec", PROFILES)
def test_a_linear_ramp_is_sampled_at_the_sample_centres(spec: tuple) -> None:
    """A symmetric profile has its centre of mass at (i + 1/2) spacing: the grids' first edges coincide.

    Exact where the profile's edges fall on voxel edges; else the piecewise constant image differs from the
    ramp by at most half a voxel's worth.
    """
    n, s, m, coarse, _, _ = spec
    inside = profile_inside(*spec)
    positions = (torch.arange(n, dtype=torch.float64) + 0.5) * s
    centres = (torch.arange(m, dtype=torch.float64) + 0.5) * coarse
    error = (profile_matrix(*spec) @ positions - centres)[inside].abs().max()
    assert error <= (1e-12 if spec == PROFILES[0] else s / 2)


def test_a_thick_box_is_mean_pooling() -> None:
    x = randn(1, 1, 24)
    m = profile_matrix(24, 2.0, 8, 6.0, 6.0)
    torch.testing.assert_close(x @ m.T, nn.functional.avg_pool1d(x, 3), rtol=0, atol=1e-14)


def test_a_box_weighs_voxels_by_overlap() -> None:
    """5 mm slices of 2 mm voxels: slice 0 is voxels 0, 1 and half of 2."""
    expected = torch.tensor([[2, 2, 1, 0, 0], [0, 0, 1, 2, 2]], dtype=torch.float64) / 5
    torch.testing.assert_close(profile_matrix(5, 2.0, 2, 5.0, 5.0), expected)


def test_a_gaussian_has_its_full_width_at_half_maximum() -> None:
    """On voxels of 0.01 mm the profile is the density: half its top at +-thickness / 2, exp(-4 ln 2 u^2) between."""
    row = profile_matrix(3000, 0.01, 1, 30.0, 6.0, "gaussian")[0]
    u = ((torch.arange(3000, dtype=torch.float64) + 0.5) * 0.01 - 15) / 6
    density = torch.exp(-4 * math.log(2) * u**2) * (u.abs() <= 1.5)
    torch.testing.assert_close(row, density / density.sum(), rtol=1e-3, atol=1e-9)


def test_inside_is_where_nothing_is_cut() -> None:
    assert bool(profile_inside(30, 2.0, 12, 5.0, 5.0).all())
    assert profile_inside(30, 2.0, 10, 6.0, 8.0).tolist() == [False] + 8 * [True] + [False]
    assert profile_inside(30, 2.0, 10, 6.0, 6.0, "gaussian").tolist() == [False] + 8 * [True] + [False]


def test_a_sample_outside_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        profile_matrix(10, 1.0, 6, 2.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        profile_matrix(10, 1.0, 5, 2.0, 0.0)
    with pytest.raises(ValueError, match="unknown slice profile"):
        profile_matrix(10, 1.0, 5, 2.0, 2.0, "sinc")  # type: ignore[arg-type]


AVERAGES = [
    (scan(), (2, 9, 10, 8)),
    (Downsample(4), (2, 1, 8, 12)),
    (blur(), (7, 1, 8, 6)),
    (nn.Sequential(blur(), Downsample(2)), (5, 1, 8, 6)),
]


@pytest.mark.parametrize(("corruption", "shape"), AVERAGES)
def test_a_constant_stays(corruption: nn.Module, shape: tuple[int, ...]) -> None:
    y = corruption(torch.full(shape, 0.7, dtype=torch.float64))
    torch.testing.assert_close(y, torch.full_like(y, 0.7))


def test_slice_profile_is_a_kronecker_product() -> None:
    a = scan((3, 10, 8))
    _, m1, m2 = a.matrices
    assert m1 is not None
    assert m2 is not None
    dense = torch.kron(torch.eye(3, dtype=torch.float64), torch.kron(m1, m2))
    x = randn(3, 10, 8)
    torch.testing.assert_close(a(x).reshape(-1), dense @ x.reshape(-1))
    assert a.infinity_norm() == pytest.approx(float(dense.abs().sum(1).max()))
    assert a(x.float()).dtype == torch.float32


def test_inside_of_a_volume_is_where_all_axes_are() -> None:
    inside = scan().inside((9, 4, 3))
    assert inside.shape == (9, 4, 3)
    assert inside[0, 0].tolist() == profile_inside(8, 1.0, 3, 2.5, 2.0, "gaussian").tolist()
    assert bool((inside == inside[:1, :1]).all())


def test_the_blur_of_a_stack_is_a_profile_on_every_axis() -> None:
    """Away from the edges: the profile matrix with coarse spacing = fine spacing."""
    x = randn(11, 1, 9, 5)
    y = AxisBlur((profile_kernel(2.0, 6.0), None, None))(x)
    torch.testing.assert_close(y[1:-1], (x[:-2] + x[1:-1] + x[2:]) / 3)
    kernel = profile_kernel(2.0, 7.0, "gaussian")
    r = len(kernel) // 2
    m = profile_matrix(9, 2.0, 9, 2.0, 7.0, "gaussian")
    y = AxisBlur((None, kernel, None))(x).movedim(2, -1)
    torch.testing.assert_close(y[..., r : 9 - r], (x.movedim(2, -1) @ m.T)[..., r : 9 - r])


def test_an_asymmetric_kernel_is_convolved() -> None:
    delta = torch.zeros(1, 1, 1, 5, dtype=torch.float64)
    delta[..., 2] = 1
    kernel = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert AxisBlur((None, None, kernel))(delta).flatten().tolist() == [0, 1, 2, 3, 0]


def test_kernel_of_an_even_box_is_shared_by_both_ends() -> None:
    torch.testing.assert_close(profile_kernel(2.0, 8.0), torch.tensor([1, 2, 2, 2, 1], dtype=torch.float64) / 8)
    assert profile_kernel(2.0, 2.0).tolist() == [1.0]


def test_what_a_mask_hides_never_enters() -> None:
    mask = torch.tensor([[True, False]])
    x = torch.tensor([[1.0, math.nan]], requires_grad=True)
    y = Mask(mask)(x)
    assert y.tolist() == [[1.0, 0.0]]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [[1.0, 0.0]]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        Downsample(3)(torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match="boolean"):
        Mask(torch.ones(2))
    with pytest.raises(ValueError, match="odd length"):
        AxisBlur((None, None, torch.ones(4)))
    with pytest.raises(ValueError, match="three axes"):
        SliceProfile((None, None))
