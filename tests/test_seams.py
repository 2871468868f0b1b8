"""The correction in a hole is the harmonic function of its boundary values; outside nothing moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from brgm_med.seams import blend_seamless

SHAPES = [(17, 23), (9, 11, 8)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ball(*shape: int, radius: float = 2.9) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    return sum((x.square() for x in axes), torch.zeros(shape)) < radius**2


def grid(*shape: int) -> tuple[Tensor, ...]:
    return torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")


def neighbours(at: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """(axis, index) of the face neighbours inside the image."""
    moved = [(a, (*at[:a], at[a] + s, *at[a + 1 :])) for a in range(len(shape)) for s in (-1, 1)]
    return [(a, i) for a, i in moved if 0 <= i[a] < shape[a]]


def dense(jump: Tensor, hole: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """The definition, as one dense system: for each voxel of the hole, sum over neighbours of (u - u_j) / h^2 = 0."""
    matrix, right = torch.eye(hole.numel(), dtype=torch.float64), jump.clone()
    flat = torch.arange(hole.numel()).reshape(hole.shape)
    for place in hole.nonzero().tolist():
        row, right[tuple(place)] = int(flat[tuple(place)]), 0
        matrix[row, row] = 0
        for axis, j in neighbours(tuple(place), tuple(hole.shape)):
            matrix[row, row] += 1 / spacing[axis] ** 2
            matrix[row, int(flat[j])] -= 1 / spacing[axis] ** 2
    return torch.linalg.solve(matrix, right.reshape(-1)).reshape(hole.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_solution_of_the_laplace_equation(shape: tuple[int, ...]) -> None:
    """Random holes: several components, many on the border; voxels that are not cubes."""
    spacing = (1.0, 2.0, 0.5)[: len(shape)]
    hole = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.6
    known, answer = randn(*shape), randn(*shape, seed=1)
    expected = (answer + dense(known - answer, hole, spacing)).where(hole, known)
    found = blend_seamless(known, answer, hole, spacing)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert torch.equal(found[~hole], known[~hole])
    assert not torch.allclose(blend_seamless(known, answer, hole), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("constant", [0.0, -3.7, 1e6])
def test_an_answer_that_is_off_by_a_constant_becomes_what_is_known(shape: tuple[int, ...], constant: float) -> None:
    known = randn(*shape)
    found = blend_seamless(known, known + constant, ball(*shape))
    torch.testing.assert_close(found, known, rtol=0, atol=1e-9 * max(1.0, abs(constant)))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_is_off_by_a_plane_becomes_what_is_known(shape: tuple[int, ...]) -> None:
    """A linear function is harmonic whatever the spacing, so the correction is exactly minus the plane."""
    known = randn(*shape)
    plane = sum((c * x for c, x in zip((0.3, -0.2, 0.7), grid(*shape), strict=False)), torch.ones(shape))
    found = blend_seamless(known, known + plane, ball(*shape), (1.0, 3.0, 0.4)[: len(shape)])
    torch.testing.assert_close(found, known, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_correction_lies_between_the_jumps_on_the_rim(shape: tuple[int, ...]) -> None:
    """The maximum principle; strictly between, once the jumps are not all equal."""
    hole, known, answer = ball(*shape), randn(*shape), randn(*shape, seed=1)
    rim = {j for p in hole.nonzero().tolist() for _, j in neighbours(tuple(p), shape) if not hole[j]}
    jumps = torch.stack([(known - answer)[j] for j in rim])
    correction = (blend_seamless(known, answer, hole) - answer)[hole]
    assert float(jumps.min()) < float(correction.min())
    assert float(correction.max()) < float(jumps.max())


def test_a_border_lets_nothing_through() -> None:
    """A strip with known values at its left end alone: the jump there reaches to the other end, undiminished."""
    hole = torch.ones(6, 40, dtype=torch.bool)
    hole[:, 0] = False
    known, answer = torch.full((6, 40), 2.0), torch.zeros(6, 40)
    torch.testing.assert_close(blend_seamless(known, answer, hole), known, rtol=0, atol=1e-6)
    hole[:, -1] = False  # 0 at the right end: a straight line between the two
    known = 2 * (39 - torch.arange(40.0).expand(6, 40)) / 39
    found = blend_seamless(known.where(~hole, math.nan), answer, hole)
    torch.testing.assert_close(found, known, rtol=0, atol=1e-6)


def test_every_component_has_its_own_rim() -> None:
    hole = torch.zeros(20, 20, dtype=torch.bool)
    hole[2:6, 3:8] = hole[12:18, 10:] = True
    known = torch.where(torch.arange(20) < 9, 1.0, -5.0)[:, None].expand(20, 20)
    found = blend_seamless(known, torch.zeros(20, 20), hole)
    torch.testing.assert_close(found, known, rtol=0, atol=1e-6)


def test_a_hole_without_a_known_neighbour_is_the_plain_answer() -> None:
    known, answer = randn(2, 7, 9), randn(2, 7, 9, seed=1)
    whole = torch.ones(7, 9, dtype=torch.bool)
    assert torch.equal(blend_seamless(torch.full_like(known, math.nan), answer, whole), answer)


def test_what_is_in_the_hole_and_the_answer_far_from_it_never_enter() -> None:
    known, answer, hole = randn(9, 12), randn(9, 12, seed=1), ball(9, 12)
    beside = hole.clone()
    for place in hole.nonzero().tolist():
        for _, j in neighbours(tuple(place), (9, 12)):
            beside[j] = True
    found = blend_seamless(known.where(~hole, math.nan), answer.where(beside, math.inf), hole)
    assert torch.equal(found, blend_seamless(known, answer, hole))
    known[0, 0] = math.nan  # known, far from the hole: kept as it is
    torch.testing.assert_close(blend_seamless(known, answer, hole)[0, 0], known[0, 0], equal_nan=True)


@pytest.mark.parametrize("at", [(3, 4), (0, 0), (6, 2)])
def test_one_pixel_takes_the_mean_jump_of_its_neighbours(at: tuple[int, int]) -> None:
    known, answer, hole = randn(7, 9), randn(7, 9, seed=1), torch.zeros(7, 9, dtype=torch.bool)
    hole[at] = True
    jumps = torch.stack([(known - answer)[j] for _, j in neighbours(at, (7, 9))])
    torch.testing.assert_close(blend_seamless(known, answer, hole)[at], answer[at] + jumps.mean())


def test_no_hole_returns_what_is_known() -> None:
    known = torch.randn(2, 1, 5, 6)
    found = blend_seamless(known, torch.full_like(known, math.nan), torch.zeros(5, 6, dtype=torch.bool))
    assert torch.equal(found, known)
    assert found.data_ptr() != known.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_images_of_a_batch_share_a_hole_and_nothing_else(dtype: torch.dtype) -> None:
    known, answer = randn(2, 3, 9, 11, 8).to(dtype), randn(2, 3, 9, 11, 8, seed=1).to(dtype)
    hole, before = ball(9, 11, 8), known.clone()
    found = blend_seamless(known, answer, hole)
    assert found.dtype == dtype
    assert torch.equal(known, before)
    assert torch.equal(found[..., ~hole], known[..., ~hole])
    assert torch.equal(found[1, 2], blend_seamless(known[1, 2], answer[1, 2], hole))


def test_a_large_hole_is_solved() -> None:
    """50,000 voxels, most of them far from the rim: u = x^2 - y^2 is harmonic in the discrete sense too."""
    x, y, _ = grid(50, 48, 46)
    u = (x - 25).square() - (y - 24).square()
    found = blend_seamless(u, torch.zeros_like(u), ball(50, 48, 46, radius=22.7))
    torch.testing.assert_close(found, u, rtol=0, atol=1e-5)


def test_wrong_arguments_are_refused() -> None:
    x, hole = torch.zeros(2, 5, 6), torch.zeros(5, 6, dtype=torch.bool)
    hole[2, 2] = True
    bad = x.clone()
    bad[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="must be boolean"):
        blend_seamless(x, x, hole.float())
    with pytest.raises(ValueError, match="2 or 3 spatial"):
        blend_seamless(x, x, hole[0])
    with pytest.raises(ValueError, match="do not fit"):
        blend_seamless(x, x[:1], hole)
    with pytest.raises(ValueError, match="do not fit"):
        blend_seamless(x, x, hole.T)
    with pytest.raises(ValueError, match="floating"):
        blend_seamless(x.long(), x, hole)
    with pytest.raises(ValueError, match="positive lengths"):
        blend_seamless(x, x, hole, (1.0, 0.0))
    with pytest.raises(ValueError, match="positive lengths"):
        blend_seamless(x, x, hole, (1.0, 1.0, 1.0))
    for known, answer in ((bad, x), (x, bad), (x, x.where(~hole, math.inf))):
        with pytest.raises(ValueError, match="not finite"):
            blend_seamless(known, answer, hole)
