"""The projection theorem, optimality, and the certificate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from brgm_med.consistency import certificate, check_linear, project
from brgm_med.corruptions import AxisBlur, Downsample, Mask, Separable, SliceProfile, profile_kernel, profile_matrix
from brgm_med.errors import BrgmError
from brgm_med.separable import SeparableSystem, stationary_covariance
from tests.examples import randn

SHAPE = (4, 10, 8)
SEEDS = range(5)


def scan() -> SliceProfile:
    return SliceProfile((None, profile_matrix(10, 2.0, 4, 5.0, 5.0), profile_matrix(8, 1.0, 3, 2.5, 2.0, "gaussian")))


def dense(corruption: nn.Module, shape: tuple[int, ...]) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.stack([corruption(e.reshape(shape)).reshape(-1) for e in torch.eye(n).double()], 1)


def covariance(kernel: str = "matern") -> Separable:
    return stationary_covariance(SHAPE, (1.0, 1.5, 0.8), kernel)  # type: ignore[arg-type]


def dense_covariance(c: Separable) -> Tensor:
    eye = [torch.eye(n).double() if m is None else m for n, m in zip(SHAPE, c.matrices, strict=True)]
    return torch.kron(eye[0], torch.kron(eye[1], eye[2]))


CORRUPTIONS = [
    (scan(), SHAPE),
    (Downsample(2), (3, 1, 4, 6)),
    (nn.Sequential(AxisBlur((profile_kernel(2.0, 6.0), None, None)), Downsample(2)), (6, 1, 4, 6)),
    (Mask(torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) > 0.5), (3, 1, 4, 6)),
    (nn.Sequential(scan(), Mask(torch.tensor([True, False, True]))), SHAPE),
]


@pytest.mark.parametrize(("corruption", "shape"), CORRUPTIONS)
def test_the_projection_theorem(corruption: nn.Module, shape: tuple[int, ...]) -> None:
    """A x* = y; the projection is idempotent; no truth that gave y is farther from x* than from x."""
    for seed in SEEDS:
        x, truth = randn(*shape, seed=seed), randn(*shape, seed=seed + 100)
        y = corruption(truth)
        p = project(x, corruption, y, tol=1e-11)
        torch.testing.assert_close(corruption(p), y, rtol=0, atol=1e-8)
        torch.testing.assert_close(project(p, corruption, y, tol=1e-11), p, rtol=0, atol=1e-8)
        before, after = (x - truth).square().sum(), (p - truth).square().sum()
        assert after <= before
        torch.testing.assert_close(before - after, (p - x).square().sum(), rtol=1e-6, atol=0)  # Pythagoras


@pytest.mark.parametrize("weighted", [None, "gaussian", "matern", "exponential"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_closed_form_is_conjugate_gradients_is_dense_algebra(weighted: str | None, noise: float) -> None:
    a = scan()
    c = None if weighted is None else covariance(weighted)
    x, y = randn(*SHAPE), randn(4, 4, 3, seed=1)
    closed = project(x, a, y, c, noise)
    torch.testing.assert_close(closed, project(x, nn.Sequential(a), y, c, noise, tol=1e-10), rtol=0, atol=1e-6)
    m = dense(a, SHAPE)
    big = torch.eye(x.numel()).double() if c is None else dense_covariance(c)
    gain = big @ m.T @ torch.linalg.pinv(m @ big @ m.T + noise**2 * torch.eye(len(m)).double())
    expected = x + (gain @ (y.reshape(-1) - m @ x.reshape(-1))).reshape(SHAPE)
    torch.testing.assert_close(closed, expected, rtol=0, atol=1e-9)


def test_the_weighted_projection_is_the_most_probable_correction() -> None:
    """It minimises (p - x)' C^-1 (p - x) over {A p = y}: C^-1 (p - x) is orthogonal to A's null space."""
    a, c = scan(), covariance()
    x, y = randn(*SHAPE), randn(4, 4, 3, seed=1)
    p = project(x, a, y, c)
    torch.testing.assert_close(a(p), y, rtol=0, atol=1e-10)
    slope = torch.linalg.solve(dense_covariance(c), (p - x).reshape(-1))
    m = dense(a, SHAPE)
    free = randn(x.numel(), seed=2)
    free = free - torch.linalg.pinv(m) @ (m @ free)  # a direction that A does not see
    assert abs(float(slope @ free)) <= 1e-8 * float(slope.norm() * free.norm())


@pytest.mark.parametrize("corruption", [scan(), nn.Sequential(scan())])
def test_the_proximal_step_is_optimal(corruption: nn.Module) -> None:
    """The gradient of |y - A p|^2 / noise^2 + (p - x)' C^-1 (p - x) vanishes at p."""
    c, noise = covariance(), 0.2
    x, y = randn(*SHAPE), randn(4, 4, 3, seed=1)
    p = project(x, corruption, y, c, noise, tol=1e-11)
    m = dense(corruption, SHAPE)
    data = m.T @ (y.reshape(-1) - m @ p.reshape(-1)) / noise**2
    prior = torch.linalg.solve(dense_covariance(c), (p - x).reshape(-1))
    torch.testing.assert_close(data, prior, rtol=0, atol=1e-6 * float(prior.abs().max()))


def test_noise_goes_from_the_measurement_to_the_image() -> None:
    a, x, y = scan(), randn(*SHAPE), randn(4, 4, 3, seed=1)
    torch.testing.assert_close(project(x, a, y, noise=1e-6), project(x, a, y), rtol=0, atol=1e-6)
    torch.testing.assert_close(project(x, a, y, noise=1e6), x, rtol=0, atol=1e-6)


def test_an_axis_measured_as_it_is_comes_out_as_measured() -> None:
    """A = I: the result is y, whatever the covariance."""
    a = SliceProfile((None, None, None))
    x, y = randn(*SHAPE), randn(*SHAPE, seed=1)
    torch.testing.assert_close(project(x, a, y, covariance()), y)


def test_a_batch_is_projected_image_by_image() -> None:
    a, c = scan(), covariance()
    x, y = randn(3, 2, *SHAPE), randn(3, 2, 4, 4, 3, seed=1)
    one = project(x[1, 0], a, y[1, 0], c, 0.1)
    torch.testing.assert_close(project(x, a, y, c, 0.1)[1, 0], one)


def test_float32_stays_float32_and_holds_to_rounding() -> None:
    a = scan()
    x, y = randn(*SHAPE).float(), a(1000 + 300 * randn(*SHAPE, seed=1)).float()
    p = project(x, a, y, covariance())
    assert p.dtype == torch.float32
    assert not p.requires_grad
    assert certificate(p, a, y)["relative_residual"] <= 1e-6


def condition_numbers(system: SeparableSystem) -> list[float]:
    return [float(values[-1] / values[0]) for values in system.values]


def test_condition_numbers_are_those_of_the_axes() -> None:
    box = SliceProfile((None, profile_matrix(12, 1.0, 4, 3.0, 3.0), None))
    assert condition_numbers(SeparableSystem.of(box, None, (4, 12, 8))) == pytest.approx([1, 1, 1])
    wide = condition_numbers(SeparableSystem.of(scan(), covariance(), SHAPE))
    big = dense(scan(), SHAPE)[:12, :80]  # one slice of the first axis
    c = dense_covariance(covariance())[:80, :80]
    assert wide[1] * wide[2] == pytest.approx(float(torch.linalg.cond(big @ c @ big.T)))


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


class Shifted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize("corruption", [Squared(), Shifted()])
def test_what_is_not_linear_is_refused(corruption: nn.Module) -> None:
    x = randn(2, 3)
    with pytest.raises(ValueError, match="not linear"):
        project(x, corruption, x)
    with pytest.raises(ValueError, match="not linear"):
        check_linear(corruption, x)


def test_no_answer_rather_than_a_wrong_one() -> None:
    x = randn(2, 3)
    with pytest.raises(BrgmError, match="did not converge"):  # y holds what the mask can never give
        project(x, Mask(torch.tensor([True, True, False])), randn(2, 3, seed=1))
    with pytest.raises(BrgmError, match="did not converge"):
        project(randn(*SHAPE), nn.Sequential(scan()), randn(4, 4, 3), max_iter=2)
    twice = torch.ones(2, 8).double() / 8  # two samples of the same thing
    with pytest.raises(BrgmError, match="repeat each other"):
        project(randn(*SHAPE), SliceProfile((None, None, twice)), randn(4, 10, 2))
    with pytest.raises(ValueError, match="is not A x"):
        project(randn(*SHAPE), scan(), randn(4, 4, 2))
    with pytest.raises(ValueError, match="is not A x"):
        project(randn(*SHAPE), nn.Sequential(scan()), randn(4, 4, 2))


@pytest.mark.parametrize("step", [0.01, 0.5, 3.0])
def test_rounding_to_integers_stays_within_the_bound(step: float) -> None:
    a = scan()
    truth = 500 + 200 * randn(*SHAPE)
    y = a(truth)
    stored = (project(torch.zeros(SHAPE).double(), a, y) / step).round() * step
    found = certificate(stored, a, y, step=step)
    assert found["bound"] == pytest.approx(step / 2)
    assert found["max_abs_residual"] <= found["bound"]
    assert found["within_bound"]
    assert not certificate(stored + step, a, y, step=step)["within_bound"]


def test_the_certificate_counts_only_samples_inside() -> None:
    a = SliceProfile((None, None, profile_matrix(8, 1.0, 4, 2.0, 4.0)))
    x = randn(*SHAPE)
    y = a(x)
    y[..., 0] += 1
    inside = torch.tensor([False, True, True, False])
    found = certificate(x, a, y, inside)
    assert found["relative_residual"] == pytest.approx(0, abs=1e-15)
    assert found["samples"] == 160
    assert found["samples_inside"] == 80
    whole = certificate(x, a, y)
    assert whole["max_abs_residual"] == pytest.approx(1)
    assert whole["relative_residual"] == pytest.approx(float(40**0.5 / (y - y.mean()).norm()))
    with pytest.raises(ValueError, match="no sample"):
        certificate(x, a, y, torch.zeros(4, dtype=torch.bool))


def test_far_correlations_are_0_and_not_subnormal() -> None:
    """Products with subnormal numbers take many times as long; what is left out is beyond float64's rounding."""
    for kernel in ("gaussian", "matern", "exponential"):
        matrix = stationary_covariance((256,), 1.0, kernel).matrices[0]  # type: ignore[arg-type]
        assert matrix is not None
        row = matrix.float()[0].abs()
        assert row[row > 0].min() > 1e-30
        u = torch.arange(256, dtype=torch.float64)
        exact = {"gaussian": torch.exp(-u * u / 2), "matern": (1 + u) * torch.exp(-u), "exponential": torch.exp(-u)}
        assert float((matrix[0, 1:] - (1 - 1e-3) * exact[kernel][1:]).abs().sum()) < 1e-16


def test_a_stationary_covariance_is_one() -> None:
    for kernel in ("gaussian", "matern", "exponential"):
        c = stationary_covariance((6, 40), 2.0, kernel)  # type: ignore[arg-type]
        for m in c.matrices:
            assert m is not None
            torch.testing.assert_close(m.diagonal(), torch.ones(len(m)).double())
            assert float(torch.linalg.eigvalsh(m)[0]) >= 0.9e-3
    x = randn(3, 6, 40)
    torch.testing.assert_close(c(x), torch.einsum("ij,kl,njl->nik", c.matrices[0], c.matrices[1], x))
    assert stationary_covariance((6, 40), (0, 2.0)).matrices[0] is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_explained_part_is_that_of_dense_algebra(weighted: bool, noise: float) -> None:
    a, c = scan(), covariance() if weighted else None
    m = dense(a, SHAPE)
    big = torch.eye(m.shape[1]).double() if c is None else dense_covariance(c)
    gain = big @ m.T @ torch.linalg.inv(m @ big @ m.T + noise**2 * torch.eye(len(m)).double())
    expected = (gain @ m @ big).diagonal() / big.diagonal()
    found = SeparableSystem.of(a, c, SHAPE).measured_fraction(noise)
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-9)
    assert 0 < float(found.min()) < float(found.max()) <= 1


def test_what_is_measured_as_it_is_is_explained_and_a_slice_of_three_voxels_by_a_third() -> None:
    as_it_is = SliceProfile((None, None, None))
    assert float(SeparableSystem.of(as_it_is, covariance(), SHAPE).measured_fraction(0.0).min()) == 1
    thick = SliceProfile((None, profile_matrix(9, 2.0, 3, 6.0, 6.0), None))
    part = SeparableSystem.of(thick, None, (4, 9, 8)).measured_fraction(0.0)
    torch.testing.assert_close(part, torch.full_like(part, 1 / 3))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_correction_by_the_discrepancy_leaves_what_it_was_asked_to(weighted: bool) -> None:
    a, c = scan(), covariance() if weighted else None
    x, y = randn(*SHAPE), randn(4, 4, 3, seed=1)
    before = float((y - a(x)).square().mean().sqrt())
    system = SeparableSystem.of(a, c, SHAPE)
    for deviation in (0.1 * before, 0.5 * before):
        noise = system.noise_for((y - a(x))[None], deviation)
        p = project(x, a, y, c, noise)
        assert float((y - a(p)).square().mean().sqrt()) == pytest.approx(deviation, rel=1e-6)
    assert system.noise_for((y - a(x))[None], 1.01 * before) == float("inf")
