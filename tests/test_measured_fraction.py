"""What several scans explain, estimated by random signs, is what the closed form says where there is one."""

from __future__ import annotations

import torch
from torch import Tensor

from brgm_med.corruptions import SliceProfile, Together, profile_matrix
from brgm_med.measured_fraction import measured_fraction
from brgm_med.pipelines.reconstruct.consistent import local_fraction
from brgm_med.separable import SeparableSystem, stationary_covariance

SHAPE = (24, 20, 24)


def test_the_estimate_agrees_with_the_closed_form_within_its_error() -> None:
    a = SliceProfile((None, None, profile_matrix(24, 2.0, 8, 6.0, 6.0)))
    c = stationary_covariance(SHAPE, 0.7)
    exact = SeparableSystem.of(a, c, SHAPE).measured_fraction(0.2)
    found, error = measured_fraction(Together([a]), c, 0.2, (1, *SHAPE))
    inside = (slice(2, -2),) * 3
    smooth = torch.nn.functional.avg_pool3d(exact[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    off = (found[0] - smooth)[inside]
    assert 0 < error < 0.1
    assert float(off.square().mean().sqrt()) < 2 * error
    assert abs(float(off.mean())) < error
    assert torch.equal(found, measured_fraction(Together([a]), c, 0.2, (1, *SHAPE))[0])


def test_more_scans_explain_more() -> None:
    thick = []
    for axis, n in enumerate(SHAPE):
        matrices: list[Tensor | None] = [None, None, None]
        matrices[axis] = profile_matrix(n, 2.0, n // 4, 8.0, 8.0)
        thick.append(SliceProfile(matrices))
    c = stationary_covariance(SHAPE, 0.7)
    means = [float(measured_fraction(Together(thick[:k]), c, 0.1, (1, *SHAPE))[0].mean()) for k in (1, 2, 3)]
    assert means[0] < means[1] - 0.1 < means[2] - 0.2


def test_a_noise_that_is_the_same_everywhere_explains_what_the_closed_form_says() -> None:
    a = SliceProfile((None, None, profile_matrix(24, 2.0, 8, 6.0, 6.0)))
    system = SeparableSystem.of(a, stationary_covariance(SHAPE, 0.7), SHAPE)
    for noise in (10**-1.5, 1.0, 10**0.5):  # levels of the table: between those it is interpolated
        found = local_fraction(system, torch.full((1, *SHAPE), noise, dtype=torch.float64))
        torch.testing.assert_close(found[0], system.measured_fraction(noise), rtol=0, atol=1e-6)
    between = local_fraction(system, torch.full((1, *SHAPE), 0.5, dtype=torch.float64))[0]
    assert float((between - system.measured_fraction(0.5)).abs().max()) < 0.03
    assert not local_fraction(system, torch.full((1, *SHAPE), torch.inf, dtype=torch.float64)).any()
