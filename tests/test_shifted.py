"""One run of conjugate gradients solves a system under all shifts."""

from __future__ import annotations

import pytest
import torch

from brgm_med.shifted import solve_shifted


def test_every_shift_is_solved() -> None:
    random = torch.Generator().manual_seed(0)
    root = torch.randn(30, 12, dtype=torch.float64, generator=random)
    system, right = root @ root.T, torch.randn(30, dtype=torch.float64, generator=random)
    shifts, residuals = [0.5, 3.0, 0.1, 40.0], list[float]()
    solutions = solve_shifted(
        lambda x: system @ x, right, shifts, tolerance=1e-10, iterations=100, progress=residuals.append
    )
    for shift, solution in zip(shifts, solutions, strict=True):
        exact = torch.linalg.solve(system + shift * torch.eye(30, dtype=torch.float64), right)
        torch.testing.assert_close(solution, exact, rtol=1e-7, atol=1e-9)
    assert residuals[-1] < 1e-10
    assert len(residuals) < 20  # 12 eigenvalues that differ, and 0


@pytest.mark.parametrize("iterations", [0, 3])
def test_it_ends_where_it_must(iterations: int) -> None:
    calls: list[float] = []
    (solution,) = solve_shifted(
        lambda x: torch.arange(50.0) * x,
        torch.ones(50),
        [1.0],
        tolerance=0,
        iterations=iterations,
        progress=calls.append,
    )
    assert len(calls) == iterations
    assert bool(solution.any()) == (iterations > 0)
    assert not solve_shifted(lambda x: x, torch.zeros(5), [1.0], tolerance=1e-3, iterations=9)[0].any()
