"""A second hole lies in the mirror, or where there is room for it, and measures a weight there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.pipelines.reconstruct.decoy import APART_MM, decoy_of, explained
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import Pose, centred_grid

GRID = centred_grid((60, 64, 56), 2.0, (0.0, 0.0, 0.0))


def ball(centre: tuple[float, float, float], radius: float = 10.0, grid: Grid = GRID) -> Tensor:
    index = np.argwhere(np.ones(grid.shape, bool))
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return torch.from_numpy((np.linalg.norm(world - centre, axis=1) < radius).reshape(grid.shape))


def turned() -> Pose:
    """A head 5 mm to the right, turned by a quarter about the vertical: its left lies in front."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    pose[0, 3] = 5.0
    return pose


def test_it_lies_in_the_mirror_of_the_head() -> None:
    hole = ball((31.0, 5.0, -9.0))
    decoy = decoy_of(hole, GRID, np.eye(4))
    assert decoy is not None
    assert torch.equal(decoy, ball((-31.0, 5.0, -9.0)))
    pose = turned()
    centre, mirrored = ((pose @ [x, 4.0, 0.0, 1.0])[:3] for x in (30.0, -30.0))
    decoy = decoy_of(ball(tuple(centre)), GRID, pose)
    assert decoy is not None
    assert float((decoy & ball(tuple(mirrored))).sum()) > 0.9 * float(decoy.sum())


def test_a_hole_at_the_middle_is_moved_forwards() -> None:
    hole = ball((0.0, -10.0, 0.0))
    decoy = decoy_of(hole, GRID, np.eye(4))
    assert decoy is not None
    where, was = (m.nonzero().double().mean(0) @ torch.from_numpy(GRID.affine[:3, :3].T) for m in (decoy, hole))
    assert float(where[1] - was[1]) > 20
    assert abs(float(where[0] - was[0])) < 1
    gap = torch.cdist(decoy.nonzero().double(), hole.nonzero().double()).min() * 2
    assert float(gap) > APART_MM


@pytest.mark.parametrize("radius", [35.0, 60.0])
def test_beside_a_large_hole_there_is_none(radius: float) -> None:
    assert decoy_of(ball((0.0, 0.0, 0.0), radius), GRID, np.eye(4)) is None
    assert decoy_of(torch.zeros(GRID.shape, dtype=torch.bool), GRID, np.eye(4)) is None


def test_the_weight_is_the_best_one_between_nothing_and_all() -> None:
    generator = torch.Generator().manual_seed(1)
    base, step, noise = (torch.randn(9, 9, 9, generator=generator, dtype=torch.float64) for _ in range(3))
    where = torch.rand(9, 9, 9, generator=generator) < 0.5
    step_in = step[where]
    noise[where] -= (noise[where] @ step_in) / (step_in @ step_in) * step_in
    for b, expected in ((0.3, 0.3), (1.7, 1.0), (-0.4, 0.0)):
        truth = base + b * step + 0.1 * noise
        assert explained(truth, base, base + step, where) == pytest.approx(expected)
    assert explained(base, base, base, where) == 0.0
