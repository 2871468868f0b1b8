"""Every corruption is its formula: a matrix, whose adjoint is the gradient, that data consistency can invert."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import BiasField, Blur, Downsample, Grey, KSpace, Mask, MotionBetweenLines, profile_kernel
from tests.contracts import adjoint
from tests.examples import COMPOSED, PIXELS, SHAPE, motion, randn, some

ALL = PIXELS | COMPOSED


def every(*without: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("f", [pytest.param(f, id=k) for k, f in ALL.items() if k not in without])


def matrix(f: nn.Module, *shape: int) -> Tensor:
    """A [samples, pixels] of one image [C, H, W]: its columns are what becomes of single pixels."""
    n = math.prod(shape)
    return f(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1).T


# What holds for every one.


@every("any kernel", "one kernel for both axes", "point spread", "mask", "bias", *COMPOSED, "lines", "lines along rows")
def test_a_constant_stays(f: nn.Module) -> None:
    y = f(torch.full(SHAPE, -0.7, dtype=torch.float64))
    torch.testing.assert_close(y, torch.full_like(y, -0.7))


@every("motion", "motion along rows", "any kernel", "one kernel for both axes", "point spread", *COMPOSED)
def test_the_projection_gives_the_measurement_back_and_approaches_the_truth(f: nn.Module) -> None:
    truth, start = randn(*SHAPE), randn(*SHAPE, seed=5)
    y = f(truth)
    found = project(start, f, y)
    torch.testing.assert_close(f(found), y, rtol=0, atol=1e-5)
    assert float((found - truth).norm()) < float((start - truth).norm())


# Downsampling and blur.


def test_an_integer_factor_is_the_box_average_to_the_last_bit() -> None:
    x = torch.randn(2, 1, 8, 12)
    assert torch.equal(Downsample(4)(x), nn.functional.avg_pool2d(x, 4))
    torch.testing.assert_close(Downsample(4, torch.full((4,), 0.25))(x), Downsample(4)(x))


@pytest.mark.parametrize(("kernel", "factor"), [((4, 5), (2, 3)), ((3, 3), (3, 1)), ((1, 2), (3, 4)), ((7, 3), (1, 1))])
def test_downsampling_is_convolution_and_every_s_th_sample(kernel: tuple[int, int], factor: tuple[int, int]) -> None:
    """(I * k)(p) = sum_q k(q) I(p - q), with p the centres of the samples, q counted from the kernel's centre."""
    x, k = randn(1, 1, 4 * factor[0], 12), randn(*kernel, seed=1)
    h, w = x.shape[2:]
    expected = torch.zeros(h // factor[0], w // factor[1], dtype=torch.float64)
    for i, j in np.ndindex(*expected.shape):
        for a, b in np.ndindex(*kernel):
            row = (i + 0.5) * factor[0] - 0.5 - (a - (kernel[0] - 1) / 2)
            column = (j + 0.5) * factor[1] - 0.5 - (b - (kernel[1] - 1) / 2)
            assert row == int(row)
            assert column == int(column)
            expected[i, j] += k[a, b] * x[0, 0, min(max(int(row), 0), h - 1), min(max(int(column), 0), w - 1)]
    torch.testing.assert_close(Downsample(factor, k)(x)[0, 0], expected)
    if factor == (1, 1):
        torch.testing.assert_close(Blur(kernel=k)(x)[0, 0], expected)


@pytest.mark.parametrize(("kernel", "name"), [("bicubic", "BICUBIC"), ("lanczos", "LANCZOS")])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_antialiased_kernels_are_those_of_pillow(kernel: str, name: str, factor: int) -> None:
    """Away from the edges, where Pillow renormalises and we repeat the last pixel."""
    x = randn(1, 1, 12 * factor, 13 * factor).float()
    picture = Image.fromarray(x[0, 0].numpy()).resize((13, 12), Image.Resampling[name])
    y = Downsample(factor, kernel)(x)[0, 0]  # type: ignore[arg-type]
    torch.testing.assert_close(y[3:-3, 3:-3], torch.tensor(np.array(picture))[3:-3, 3:-3], rtol=0, atol=1e-5)


def test_a_gaussian_sample_is_as_wide_as_its_factor() -> None:
    """A thin line half a sample away from the sample's centre counts half as much as one that is on it."""
    lines = torch.eye(360, dtype=torch.float64)[:, None, :, None]
    seen = Downsample((40, 1), "gaussian")(lines)[:, 0, 4, 0]  # centred at 180, between two lines
    centre, left, right = (float(seen[at - 1 : at + 1].mean()) for at in (180, 160, 200))
    assert left == pytest.approx(right)
    assert left == pytest.approx(centre / 2, rel=2e-3)


def test_a_gaussian_blur_is_a_normal_distribution() -> None:
    """Its variance is sigma^2, and 1/12 of the pixel it is integrated over; sigmas add in squares."""
    x = torch.zeros(1, 1, 61, 41, dtype=torch.float64)
    x[..., 30, 20] = 1
    seen = Blur((3.0, 1.5))(x)[0, 0]
    rows, columns = torch.arange(61.0) - 30, torch.arange(41.0) - 20
    assert float(seen.sum()) == pytest.approx(1)
    assert float(seen.sum(1) @ rows.double().square()) == pytest.approx(9 + 1 / 12, rel=0.01)
    assert float(seen.sum(0) @ columns.double().square()) == pytest.approx(2.25 + 1 / 12, rel=0.01)
    torch.testing.assert_close(seen, torch.outer(seen.sum(1), seen.sum(0)))


def test_one_kernel_blurs_both_axes() -> None:
    x, k = randn(2, 1, 9, 7), profile_kernel(1.0, 2.5, "gaussian")
    torch.testing.assert_close(Blur(kernel=k)(x), Blur(kernel=torch.outer(k, k))(x))
    assert torch.equal(Blur(0.0)(x), x)


# Pixels.


def test_a_bias_field_is_smooth_positive_and_multiplies() -> None:
    x = randn(2, 1, 5, 8)
    field = BiasField.smooth(torch.tensor([[0.1, 0.5, 0.0], [-0.4, 0.0, 0.0], [0.2, 0.0, 0.3]]), (5, 8))
    v, u = (2 * torch.arange(5) + 1) / 5 - 1, (2 * torch.arange(8) + 1) / 8 - 1
    v, u = v[:, None].double(), u.double()
    p2, q2 = (3 * v**2 - 1) / 2, (3 * u**2 - 1) / 2
    expected = torch.exp(0.1 + 0.5 * u - 0.4 * v + 0.2 * p2 + 0.3 * p2 * q2)
    torch.testing.assert_close(field(x), expected * x, rtol=1e-6, atol=1e-7)
    assert torch.equal(BiasField(torch.full((5, 8), 2.0))(x), 2 * x)
    torch.testing.assert_close(BiasField.smooth(torch.tensor([[math.log(3.0)]]), (5, 8))(x), 3 * x, rtol=1e-6, atol=0)


def test_legendre_polynomials_are_orthogonal() -> None:
    """Order k alone, on a fine grid: integral of P_k P_l = 2 / (2 k + 1) where k = l."""
    fields = [BiasField.smooth(torch.eye(5)[:, k : k + 1], (2000, 1)).field.log()[:, 0] for k in range(5)]
    p = torch.stack(fields)
    torch.testing.assert_close(p @ p.T / 1000, (2 / (2 * torch.arange(5.0) + 1)).diag().double(), rtol=0, atol=1e-5)


def test_grey_is_luminance() -> None:
    red, green, blue = torch.eye(3)[:, :, None, None]
    for colour, weight in zip((red, green, blue), (0.299, 0.587, 0.114), strict=True):
        assert Grey()(colour[None]).item() == pytest.approx(weight)
    x = randn(2, 1, 4, 5)
    torch.testing.assert_close(Grey()(x.expand(2, 3, 4, 5)), x)
    torch.testing.assert_close(Grey((0.0, 1.0, 0.0))(randn(*SHAPE)), randn(*SHAPE)[:, 1:2])


# k-space.


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 12])
@pytest.mark.parametrize("axis", [-1, -2])
def test_its_samples_are_orthonormal(n: int, axis: int) -> None:
    """A A' = I for every mask; the full mask is invertible: A' A = I."""
    shape = (1, 3, n) if axis == -1 else (1, n, 3)
    for mask in (some(n, share=0.3, seed=s) for s in range(6)):
        mask[-1] |= not bool(mask.any())
        a = matrix(KSpace(mask, axis), *shape)
        torch.testing.assert_close(a @ a.T, torch.eye(len(a), dtype=torch.float64))
        pairs = {min(k, (n - k) % n) for k in mask.nonzero()[:, 0].tolist()}
        assert len(a) == 3 * sum(1 if k == 0 or 2 * k == n else 2 for k in pairs)
    full = matrix(KSpace(torch.ones(n, dtype=torch.bool), axis), *shape)
    torch.testing.assert_close(full.T @ full, torch.eye(3 * n, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 8), (6, 9), (4, 4)])
@pytest.mark.parametrize("axis", [-1, -2])
def test_it_is_the_fourier_transform(shape: tuple[int, int], axis: int) -> None:
    """What a scanner measures, packed, is A x; the zero-filled image A' y has just the measured lines."""
    x, n = randn(2, 1, *shape), shape[axis]
    kspace = torch.fft.fft2(x, norm="ortho")
    for seed in range(4):
        mask = some(n, seed=seed) | (torch.arange(n) == 1)
        f = KSpace(mask, axis)
        lines = mask if axis == -1 else mask[:, None]
        missing = torch.full_like(kspace, complex(math.nan, math.nan))
        y = f.pack(kspace.where(lines, missing))
        torch.testing.assert_close(y, f(x))
        both = torch.zeros_like(mask)
        for k in mask.nonzero()[:, 0].tolist():
            both[k] = both[-k % n] = True
        zero_filled = torch.fft.fft2(adjoint(f, tuple(x.shape), y), norm="ortho")
        torch.testing.assert_close(zero_filled, kspace * (both if axis == -1 else both[:, None]))


def test_the_noise_of_its_samples_is_that_of_the_scanner() -> None:
    """Deviation s for pairs that were acquired twice, sqrt(2) s for those that were acquired once."""
    n, s = 8, 0.3
    mask = torch.tensor([True, True, False, True, False, False, False, True])  # 0; 1 and 7; 3 alone
    random = torch.Generator().manual_seed(0)
    parts = s * torch.randn(2, 400, 1, 50, n, generator=random, dtype=torch.float64)
    found = KSpace(mask).pack(torch.complex(parts[0], parts[1])).std((0, 1, 2))
    root = math.sqrt(2)
    torch.testing.assert_close(found, s * torch.tensor([1, 1, 1, root, root]).double(), rtol=0.03, atol=0)


@pytest.mark.parametrize("mask", [some(18, share=0.3), torch.arange(18) == 0, torch.ones(18, dtype=torch.bool)])
def test_undersampled_data_are_given_back_exactly_at_once(mask: Tensor) -> None:
    f, truth, start = KSpace(mask), randn(*SHAPE), randn(*SHAPE, seed=4)
    found = project(start, f, f(truth), max_iter=2)
    torch.testing.assert_close(f(found), f(truth), rtol=0, atol=1e-12)
    a = matrix(f, 1, *SHAPE[2:])
    expected = start.flatten(2) + (truth - start).flatten(2) @ a.T @ a
    torch.testing.assert_close(found.flatten(2), expected)


# Motion.


@pytest.mark.parametrize("shape", [(12, 18), (9, 7), (8, 15)])
@pytest.mark.parametrize("axis", [-1, -2])
def test_no_motion_is_the_identity(shape: tuple[int, int], axis: int) -> None:
    x = randn(2, 1, *shape)
    groups = torch.arange(shape[axis]) % 4
    still = MotionBetweenLines(groups, torch.zeros(4), torch.zeros(4, 2), axis)
    torch.testing.assert_close(still(x), x, rtol=0, atol=1e-13)
    turn = MotionBetweenLines(groups, torch.full((4,), 360.0), torch.zeros(4, 2), axis)
    torch.testing.assert_close(turn(x), x, rtol=0, atol=1e-11)


def rigid(angle: float, row: float, column: float, n: int) -> MotionBetweenLines:
    """All lines at one pose."""
    return MotionBetweenLines(torch.zeros(n, dtype=torch.long), torch.tensor([angle]), torch.tensor([[row, column]]))


def test_one_pose_is_a_rigid_motion() -> None:
    x = randn(1, 1, 9, 11)
    torch.testing.assert_close(rigid(0, 2, -3, 11)(x)[..., 2:, :-3], x[..., :-2, 3:])
    square = randn(1, 2, 8, 8)
    torch.testing.assert_close(rigid(90, 0, 0, 8)(square), torch.rot90(square, 1, (2, 3)))  # anticlockwise
    torch.testing.assert_close(rigid(180, 0, 0, 11)(x), x.flip(2, 3))
    turned_then_moved = torch.rot90(square, 1, (2, 3))[..., :-2, :]
    torch.testing.assert_close(rigid(90, 2, 0, 8)(square)[..., 2:, :], turned_then_moved)


def test_a_turned_disc_keeps_its_angle_on_an_oblong_grid() -> None:
    """A blob at (row, column) = (0, 6) from the centre goes to (-6 sin a, 6 cos a)."""
    r, c = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(31.0) - 15, indexing="ij")
    blob = torch.exp(-(r**2 + (c - 6) ** 2) / 4)[None, None].double()
    seen = rigid(30, 0, 0, 31)(blob)[0, 0]
    mass = float(seen.sum())
    assert float((seen * r).sum()) / mass == pytest.approx(-3, abs=0.02)
    assert float((seen * c).sum()) / mass == pytest.approx(6 * math.cos(math.pi / 6), abs=0.02)


@pytest.mark.parametrize("axis", [-1, -2])
def test_each_line_comes_from_its_own_pose(axis: int) -> None:
    """y = Re F^-1 sum_g M_g F T_g x, by the complex Fourier transform."""
    f, x = motion(SHAPE[axis], axis), randn(*SHAPE)
    groups = torch.randint(3, (SHAPE[axis],), generator=torch.Generator().manual_seed(2))
    total = torch.zeros(SHAPE, dtype=torch.complex128)
    for g, (angle, row, column) in enumerate([(0, 0, 0), (4, 1.3, -0.6), (-7, -0.4, 2.2)]):
        mask = groups == g
        total += torch.fft.fft2(rigid(angle, row, column, 18)(x)) * (mask if axis == -1 else mask[:, None])
    picture = torch.fft.ifft2(total)
    torch.testing.assert_close(f(x), picture.real, rtol=1e-6, atol=1e-6)
    assert float(picture.imag.abs().max()) > 0.01


def test_pairs_at_one_pose_leave_no_imaginary_part_and_can_be_undone() -> None:
    """Here A has full rank, so that y holds the still image: the projection finds it, wherever it starts."""
    groups = torch.tensor([0, 1, 0, 1, 1, 0, 1])  # k and 7 - k alike
    f = MotionBetweenLines(groups, torch.tensor([0.0, 3.0]), torch.tensor([[0.0, 0.0], [0.0, 0.4]]))
    x = randn(1, 1, 6, 7)
    y = f(x)
    moved = rigid(3.0, 0, 0.4, 7)(x)
    total = torch.fft.fft(x) * (groups == 0) + torch.fft.fft(moved) * (groups == 1)
    assert float(torch.fft.ifft(total).imag.abs().max()) < 1e-12
    assert torch.linalg.matrix_rank(matrix(f, 1, 6, 7)) == 42
    torch.testing.assert_close(project(torch.zeros_like(x), f, y, tol=1e-10), x, rtol=0, atol=1e-6)


# Composition and refusals.


def test_composition_is_the_product_of_matrices() -> None:
    blur, coarse, mask = Blur(0.6), Downsample((2, 3), "bicubic"), Mask(some(3, 3))
    product = matrix(mask, 1, 3, 3) @ matrix(coarse, 1, 6, 9) @ matrix(blur, 1, 6, 9)
    torch.testing.assert_close(matrix(nn.Sequential(blur, coarse, mask), 1, 6, 9), product)


def test_wrong_downsampling_and_blur_are_refused() -> None:
    for factor in (0, -2, (2, 0), (2, 2, 2), 1.5):
        with pytest.raises(ValueError, match="positive integers"):
            Downsample(factor)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not divide"):
        Downsample((2, 3), "gaussian")(torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match="no centre"):
        Downsample(2, torch.ones(3))
    with pytest.raises(ValueError, match="unknown kernel"):
        Downsample(2, "sinc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no centre"):
        Blur(kernel=torch.ones(3, 4))
    for kernel in (torch.ones(1, 3, 3), torch.ones(0), torch.tensor([1.0, math.nan, 1.0])):
        with pytest.raises(ValueError, match="must be finite"):
            Blur(kernel=kernel)
    for sigma in (None, -1.0, math.nan, math.inf, (1.0, 2.0, 3.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="either a kernel or a sigma"):
            Blur(sigma)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either a kernel or a sigma"):
        Blur(1.0, kernel=torch.ones(3))


def test_wrong_fields_and_colours_are_refused() -> None:
    for field in (torch.ones(3), torch.zeros(2, 2), torch.full((2, 2), math.inf)):
        with pytest.raises(ValueError, match="positive and finite"):
            BiasField(field)
    with pytest.raises(ValueError, match="coefficients"):
        BiasField.smooth(torch.zeros(3), (4, 4))
    with pytest.raises(ValueError, match="an image of"):
        BiasField(torch.ones(4, 5))(torch.zeros(1, 1, 5, 4))
    with pytest.raises(ValueError, match="sum to 1"):
        Grey((0.3, 0.3, 0.3))
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        Grey()(torch.zeros(1, 1, 4, 4))


def test_wrong_lines_are_refused() -> None:
    for mask in (torch.ones(4), torch.zeros(4, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="at least one line"):
            KSpace(mask)
    lines = torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="axis"):
        KSpace(lines, 0)
    with pytest.raises(ValueError, match="do not fit"):
        KSpace(lines)(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match="complex"):
        KSpace(lines).pack(torch.zeros(1, 1, 4, 4))
    zero, shift = torch.zeros(2), torch.zeros(2, 2)
    for groups in (torch.zeros(4), torch.zeros(0, dtype=torch.long), lines):
        with pytest.raises(ValueError, match="one integer for each line"):
            MotionBetweenLines(groups, zero, shift)
    with pytest.raises(ValueError, match="between 0 and 1"):
        MotionBetweenLines(torch.tensor([0, 2]), zero, shift)
    with pytest.raises(ValueError, match=r"shifts \[G, 2\]"):
        MotionBetweenLines(torch.tensor([0, 1]), zero, zero)
    with pytest.raises(ValueError, match="finite"):
        MotionBetweenLines(torch.tensor([0, 1]), zero + math.nan, shift)
    with pytest.raises(ValueError, match="axis"):
        MotionBetweenLines(torch.tensor([0, 1]), zero, shift, 1)
    with pytest.raises(ValueError, match="do not fit"):
        MotionBetweenLines(torch.tensor([0, 1]), zero, shift)(torch.zeros(1, 1, 2, 3))
