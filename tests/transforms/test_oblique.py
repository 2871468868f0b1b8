"""A scan at any angle is a linear map whose adjoint is exact, and says the same as simpler ways where there are any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation
from torch import nn

from brgm_med.corruptions import ObliqueProfile, StackAsVolume, Together, profile_matrix, profile_nodes
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile, stack_grid, turned
from brgm_med.transforms.simulate import thick_slices
from brgm_med.transforms.slices import coronal_stack
from tests.examples import PROFILES, SOURCE, posed, randn


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_matrix_of_its_points(seed: int) -> None:
    """Linear interpolation at every node by another library, summed with the nodes' weights: row by row."""
    scan, model = posed(seed)
    nodes = []
    for axis in range(3):
        places, weights = profile_nodes(model.thickness[axis], model.profile if axis == model.axis else "box", 2.0)
        nodes.append((places / scan.spacing[axis], weights))
    to_source = np.linalg.inv(SOURCE.affine) @ scan.affine
    f = ObliqueProfile(to_source, SOURCE.shape, scan.shape, nodes, "linear")
    x = randn(1, *SOURCE.shape)
    look_up = RegularGridInterpolator(
        [np.arange(n) for n in SOURCE.shape], x[0].numpy(), bounds_error=False, fill_value=0
    )
    covered = f.covered()
    assert 0 < int(covered.sum()) < covered.numel() or bool(covered.all())
    for index in covered.nonzero().tolist():
        total = 0.0
        for i, a in zip(*nodes[0], strict=True):
            for j, b in zip(*nodes[1], strict=True):
                for k, c in zip(*nodes[2], strict=True):
                    node = np.asarray([float(i), float(j), float(k)])
                    at = to_source[:3, :3] @ (node + index) + to_source[:3, 3]
                    total += float(a * b * c) * float(look_up(at)[0])
        assert float(f(x)[0][tuple(index)]) == pytest.approx(total, abs=1e-10)


def test_along_the_grid_it_is_the_separable_profile() -> None:
    """6 mm slices of 2 mm voxels, edges on edges: nodes lie on voxels, so that no interpolation differs."""
    coarse, model = thick_slices(SOURCE, "S", 6.0)
    x = randn(1, *SOURCE.shape)
    f = oblique_profile(model, coarse, SOURCE)
    assert bool(f.covered().all())
    torch.testing.assert_close(f(x), model.corruption(SOURCE, coarse)(x), rtol=0, atol=1e-12)


def test_rotation_by_90_degrees_commutes() -> None:
    """Turning head and scanner together changes nothing: A (R x) with a turned scan is A x."""
    scan, model = posed(2)
    quarter = np.eye(4)
    quarter[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    quarter[:3, 3] = [SOURCE.affine[0, 0] * (SOURCE.shape[1] - 1), 0, 0]
    x = randn(1, *SOURCE.shape)
    rotated = x.transpose(1, 2).flip(1)  # index (i, j) -> (ny - 1 - j, i)
    grid = Grid((SOURCE.shape[1], SOURCE.shape[0], SOURCE.shape[2]), SOURCE.affine)
    there = oblique_profile(model, Grid(scan.shape, quarter @ scan.affine), grid)(rotated)
    torch.testing.assert_close(there, oblique_profile(model, scan, SOURCE)(x), rtol=0, atol=1e-10)


def test_constants_stay_and_uncovered_samples_are_0() -> None:
    for seed in range(4):
        scan, model = posed(seed)
        f = oblique_profile(model, scan, SOURCE)
        y, covered = f(torch.full((1, *SOURCE.shape), 3.0, dtype=torch.float64))[0], f.covered()
        torch.testing.assert_close(y[covered], torch.full_like(y[covered], 3.0))
        assert not y[~covered].any()


def test_a_smooth_volume_is_sampled_as_it_is_defined() -> None:
    """A quadratic function is kept by cubic interpolation away from the mirrored edges; a Gaussian profile then adds
    its variance: E[(p + t)^2] = p^2 + var."""
    f = lambda p: 0.01 * (p[..., 2] - 10) ** 2 + 0.1 * p[..., 0]  # noqa: E731
    grid = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))
    index = torch.stack(torch.meshgrid(*(torch.arange(40.0, dtype=torch.float64),) * 3, indexing="ij"), -1)
    scan = Grid((3, 3, 3), np.diag([2.0, 2.0, 4.0, 1.0]))
    scan.affine[:3, 3] = [17.3, 18.1, 15.7]
    model = AcquisitionModel((1.0, 1.0, 4.0), "gaussian", 2)
    y = oblique_profile(model, scan, grid)(f(index)[None])[0]
    at = torch.stack(torch.meshgrid(*(torch.arange(3.0, dtype=torch.float64),) * 3, indexing="ij"), -1)
    at = at @ torch.from_numpy(scan.affine[:3, :3]).T + torch.from_numpy(scan.affine[:3, 3])
    places, weights = profile_nodes(4.0, "gaussian", 1.0)
    variance = float((weights * places**2).sum())
    # Half voxels are joined by lines: a parabola lies 1/32 of its curvature per voxel^2 above at most.
    torch.testing.assert_close(y, f(at) + 0.01 * variance, rtol=0, atol=0.02 / 32 + 1e-4)


def test_nodes_have_the_profiles_mean_and_width() -> None:
    for profile in PROFILES:
        places, weights = profile_nodes(6.0, profile, 0.01)  # type: ignore[arg-type]
        assert float(weights.sum()) == pytest.approx(1)
        assert float((places * weights).sum()) == pytest.approx(0, abs=1e-12)
        density = weights / weights.max()
        wide = places[density > 0.5]
        assert float(wide.max() - wide.min()) == pytest.approx(6.0, abs=0.03)
    assert len(profile_nodes(2.0, "box", 2.0)[0]) == 1
    assert profile_nodes(6.0, "box", 2.0)[0].tolist() == [-2, 0, 2]
    with pytest.raises(ValueError, match="unknown slice profile"):
        profile_nodes(2.0, "sinc", 2.0)  # type: ignore[arg-type]


def test_a_trapezoid_lies_between_a_box_and_its_ramps() -> None:
    row = profile_matrix(3000, 0.01, 1, 30.0, 8.0, "trapezoid")[0] / 0.01 * 8
    u = ((torch.arange(3000, dtype=torch.float64) + 0.5) * 0.01 - 15).abs() / 8
    expected = ((0.5 + 0.125 - u) / 0.25).clamp(0, 1)
    torch.testing.assert_close(row, expected, rtol=0, atol=0.01)


def test_a_stack_is_the_volume_that_it_was_cut_from() -> None:
    box = Grid((12, 7, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    volume = randn(1, *box.shape)
    scan = Grid((4, 4, 4), np.diag([3.0, 2.5, 3.5, 1.0]))
    scan.affine[:3, 3] = [4.1, 2.2, 3.3]
    model = AcquisitionModel((2.0, 2.0, 3.5), "box", 2)
    f = nn.Sequential(StackAsVolume(), oblique_profile(model, scan, stack_grid(box)))
    torch.testing.assert_close(f(coronal_stack(volume)), oblique_profile(model, scan, box)(volume), rtol=0, atol=1e-10)


def test_together_is_each_of_them() -> None:
    scans = [posed(0), posed(1)]
    parts = [oblique_profile(model, scan, SOURCE) for scan, model in scans]
    x = randn(1, *SOURCE.shape)
    both = Together(parts, [1.0, 3.0])(x)
    assert both.shape == (1, sum(int(np.prod(scan.shape)) for scan, _ in scans))
    torch.testing.assert_close(both[0, : parts[0](x).numel()], parts[0](x).flatten())
    torch.testing.assert_close(both[0, parts[0](x).numel() :], 3 * parts[1](x).flatten())


def test_turned_keeps_the_middle_and_turns() -> None:
    grid = turned(SOURCE, (0.0, 0.0, 90.0))
    np.testing.assert_allclose(grid.corners().mean(0), SOURCE.corners().mean(0), atol=1e-12)
    np.testing.assert_allclose(grid.affine[:3, 0], [0, 2, 0], atol=1e-12)


def test_a_plane_is_no_volume() -> None:
    with pytest.raises(ValueError, match="one voxel"):
        ObliqueProfile(np.eye(4), (5, 1, 5), (2, 2, 2), [(torch.zeros(1), torch.ones(1))] * 3)
    f = oblique_profile(AcquisitionModel((2.0, 2.0, 2.0)), SOURCE, SOURCE)
    with pytest.raises(ValueError, match="is needed"):
        f(torch.zeros(1, 3, 3, 3))
