"""What several scans explain, estimated by random signs, is what the closed form says where there is one."""

from __future__ import annotations

import torch
from torch import Tensor

from brgm_med.corruptions import SliceProfile, Together, profile_matrix
from brgm_med.explained import explained_estimate
from brgm_med.separable import SeparableSystem, stationary_covariance

SHAPE = (24, 20, 24)


def test_the_estimate_agrees_with_the_closed_form_within_its_error() -> None:
    a = SliceProfile((None, None, profile_matrix(24, 2.0, 8, 6.0, 6.0)))
    c = stationary_covariance(SHAPE, 0.7)
    exact = SeparableSystem.of(a, c, SHAPE).explained(0.2)
    found, error = explained_estimate(Together([a]), c, 0.2, (1, *SHAPE))
    inside = (slice(2, -2),) * 3
    smooth = torch.nn.functional.avg_pool3d(exact[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    off = (found[0] - smooth)[inside]
    assert 0 < error < 0.1
    assert float(off.square().mean().sqrt()) < 2 * error
    assert abs(float(off.mean())) < error
    assert torch.equal(found, explained_estimate(Together([a]), c, 0.2, (1, *SHAPE))[0])


def test_more_scans_explain_more() -> None:
    thick = []
    for axis, n in enumerate(SHAPE):
        matrices: list[Tensor | None] = [None, None, None]
        matrices[axis] = profile_matrix(n, 2.0, n // 4, 8.0, 8.0)
        thick.append(SliceProfile(matrices))
    c = stationary_covariance(SHAPE, 0.7)
    means = [float(explained_estimate(Together(thick[:k]), c, 0.1, (1, *SHAPE))[0].mean()) for k in (1, 2, 3)]
    assert means[0] < means[1] - 0.1 < means[2] - 0.2
