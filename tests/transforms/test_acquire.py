"""Sampling as a value: coarse and fine grids share their edges, and a simulated scan is what its model says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.consistency import certificate, project
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.separable import stationary_covariance
from brgm_med.transforms.acquire import (
    AcquisitionModel,
    fine_grid,
    interpolate,
)
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.simulate import coarse_in_plane, degrade, thick_slices


def oblique(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Axes P, S, R (as many scanners store sagittal scans), turned by 0.2 rad, far from the origin."""
    turn = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
    axes = np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * np.asarray(spacing)
    affine[:3, 3] = [-98.2, 139.5, -100.5]
    return affine


def head(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """A smooth positive volume [1, X, Y, Z], float32."""
    rough = torch.randn((1, 1, 6, 6, 6), generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(rough, shape, mode="trilinear", align_corners=False)
    return 500 + 200 * smooth[0]


GRID = Grid((20, 24, 18), oblique((2.0, 2.0, 2.0)))
SCANS = [
    thick_slices(GRID, "S", 6.0),
    thick_slices(GRID, "S", 5.0),
    thick_slices(GRID, "R", 4.0, 1.5, "gaussian"),
    coarse_in_plane(GRID, 4),
    coarse_in_plane(GRID, 1),
]


def test_slices_are_counted_along_the_named_world_axis() -> None:
    assert thick_slices(GRID, "S", 6.0)[0].shape == (20, 8, 18)
    assert thick_slices(GRID, "S", 5.0)[0].shape == (20, 9, 18)  # 48 mm hold nine slices, 3 mm are left
    assert thick_slices(GRID, "A", 6.0, 2.0)[0].shape == (5, 24, 18)
    assert thick_slices(GRID, "R", 6.0)[0].shape == (20, 24, 6)
    assert coarse_in_plane(GRID, 4)[0].shape == (20, 6, 4)


@pytest.mark.parametrize(("coarse", "model"), SCANS)
def test_the_fine_grid_overlays_the_scan(coarse: Grid, model: AcquisitionModel) -> None:
    fine = fine_grid(coarse, (2.0, 2.0, 2.0))
    np.testing.assert_allclose(fine.corners()[0], coarse.corners()[0], atol=1e-9)
    np.testing.assert_allclose(fine.corners()[0], GRID.corners()[0], atol=1e-9)
    np.testing.assert_allclose(fine.affine, GRID.affine, atol=1e-9)
    for n, s, m, t in zip(fine.shape, fine.spacing, coarse.shape, coarse.spacing, strict=True):
        assert m * t - 1e-6 <= n * s < m * t + s  # covers the scan, by less than a voxel more


def test_a_fine_axis_is_left_alone() -> None:
    scan = Grid((50, 60, 10), oblique((0.9, 2.0001, 5.0)))
    fine = fine_grid(scan, (2.0, 2.0, 2.0))
    assert fine.shape == (50, 60, 25)
    assert fine.spacing == pytest.approx((0.9, 2.0001, 2.0))
    matrices = AcquisitionModel.from_header(scan).corruption(fine, scan).matrices
    assert [m is None for m in matrices] == [True, True, False]


def test_degrading_by_an_integer_factor_is_mean_pooling() -> None:
    x = head(GRID.shape)
    y = degrade(x, GRID, *SCANS[0])
    torch.testing.assert_close(y, x.reshape(1, 20, 8, 3, 18).mean(3))
    assert y.dtype == torch.float32
    y = degrade(x, GRID, *SCANS[3])
    torch.testing.assert_close(y, x[..., :16].reshape(1, 20, 6, 4, 4, 4).mean((3, 5)))


@pytest.mark.parametrize(("coarse", "model"), SCANS)
def test_a_coarse_image_stays_where_it_was_in_the_world(coarse: Grid, model: AcquisitionModel) -> None:
    """An image that is a world coordinate is sampled as that coordinate, and interpolated back as it."""

    def coordinates(grid: Grid) -> Tensor:
        index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), 0).astype(float)
        world = np.tensordot(grid.affine[:3, :3], index, 1) + grid.affine[:3, 3, None, None, None]
        return torch.from_numpy(world)

    y = degrade(coordinates(GRID), GRID, coarse, model)
    exact = model.profile == "box" and all(
        (t / 2) % 1 == 0 and (s / 2) % 1 == 0 for t, s in zip(model.thickness, coarse.spacing, strict=True)
    )
    inside = model.corruption(GRID, coarse).inside(coarse.shape)
    error = (y - coordinates(coarse)).abs()[:, inside].max()
    assert error <= (1e-9 if exact else 0.51)


@pytest.mark.parametrize(("coarse", "model"), SCANS)
def test_the_consistent_image_gives_the_scan_back(coarse: Grid, model: AcquisitionModel) -> None:
    """What the command promises: cubic, projected, stored as float32, reproduces the scan to 1e-5."""
    truth = head(GRID.shape)
    y = degrade(truth, GRID, coarse, model)
    fine = fine_grid(coarse, (2.0, 2.0, 2.0))
    a = model.corruption(fine, coarse)
    cubic = interpolate(y, coarse, fine)
    assert cubic.shape[1:] == fine.shape
    for c in (None, stationary_covariance(fine.shape, 1.0)):
        found = certificate(project(cubic, a, y, c), a, y, a.inside(coarse.shape))
        assert found["relative_residual"] <= 1e-6
        assert found["samples_inside"] > 0


@pytest.mark.parametrize(("coarse", "model"), SCANS[:1] + SCANS[3:])
def test_projection_never_leads_away_from_the_truth(coarse: Grid, model: AcquisitionModel) -> None:
    fine = fine_grid(coarse, (2.0, 2.0, 2.0))
    truth = head(fine.shape).double()
    a = model.corruption(fine, coarse)
    y = a(truth)
    cubic = interpolate(y, coarse, fine)
    assert (project(cubic, a, y) - truth).square().sum() <= (cubic - truth).square().sum()


def test_a_real_head_is_certified(data_dir: Path) -> None:
    """One of the validation heads: float32 and 16-bit output, slices of 5 mm and factor 4."""
    import nibabel as nib

    path = sorted((data_dir / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[120]
    image = nib.load(path)
    truth = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))[None]
    grid = Grid(tuple(image.shape), image.affine)
    for coarse, model in (thick_slices(grid, "S", 5.0), coarse_in_plane(grid, 4)):
        y = degrade(truth, grid, coarse, model)
        fine = fine_grid(coarse, (2.0, 2.0, 2.0))
        a = model.corruption(fine, coarse)
        p = project(interpolate(y, coarse, fine).double(), a, y, stationary_covariance(fine.shape, 1.0))
        assert certificate(p.float(), a, y, a.inside(coarse.shape))["relative_residual"] <= 1e-6
        step = float((p.max() - p.min()) / 65535)
        stored = ((p - p.min()) / step).round() * step + p.min()
        assert certificate(stored, a, y, a.inside(coarse.shape), step)["within_bound"]


def test_a_meta_tensor_goes_in_and_values_come_out() -> None:
    from monai.data import MetaTensor

    coarse, model = SCANS[0]
    x = head(GRID.shape)
    meta = MetaTensor(x, affine=torch.from_numpy(GRID.affine))
    y = degrade(meta, GRID, coarse, model)
    assert type(y) is Tensor
    assert y.equal(degrade(x, GRID, coarse, model))
    assert type(project(meta, model.corruption(GRID, coarse), y)) is Tensor
    assert type(interpolate(MetaTensor(y), coarse, GRID)) is Tensor


def test_interpolation_keeps_constants_and_is_exact_at_samples() -> None:
    coarse = Grid((7, 8, 9), oblique((3.0, 3.0, 3.0)))
    fine = fine_grid(coarse, (1.0, 1.0, 1.0))
    y = head(coarse.shape)
    torch.testing.assert_close(interpolate(y, coarse, fine)[:, 1::3, 1::3, 1::3], y)
    torch.testing.assert_close(interpolate(torch.ones_like(y), coarse, fine), torch.ones(1, *fine.shape))
    assert interpolate(y, coarse, coarse).equal(y)


def test_the_header_is_an_assumption_and_flags_are_a_statement() -> None:
    scan = Grid((20, 24, 9), oblique((2.0, 2.0, 5.0)))
    assumed = AcquisitionModel.from_header(scan)
    assert assumed.thickness == pytest.approx((2, 2, 5))
    assert not assumed.stated
    stated = AcquisitionModel.from_flags(scan, thickness=4.0, profile="gaussian")
    assert stated == AcquisitionModel((*scan.spacing[:2], 4.0), "gaussian", 2, True)
    assert AcquisitionModel.from_flags(scan, gap=1.0).thickness[2] == pytest.approx(4)
    assert AcquisitionModel.from_flags(scan, thickness=4.0, gap=1.0).thickness[2] == 4.0
    assert AcquisitionModel.from_flags(scan, thickness=4.0, world="A").axis == 0


@pytest.mark.parametrize(("coarse", "model"), SCANS)
def test_a_sidecar_says_what_was_done(coarse: Grid, model: AcquisitionModel) -> None:
    sidecar = json.loads(json.dumps(model.to_sidecar(coarse)))
    assert AcquisitionModel.from_sidecar(sidecar, coarse) == model
    turned = Grid(coarse.shape[::-1], coarse.affine[:, [2, 1, 0, 3]])  # the same scan, its axes in another order
    again = AcquisitionModel.from_sidecar(sidecar, turned)
    assert again is not None
    assert again.thickness == model.thickness[::-1]
    assert again.axis == (None if model.axis is None else 2 - model.axis)


def test_a_sidecar_of_something_else_is_none_and_a_wrong_one_is_refused() -> None:
    coarse, model = SCANS[0]
    assert AcquisitionModel.from_sidecar({"RepetitionTime": 2.3}, coarse) is None
    good = model.to_sidecar(coarse)["BrgmMedAcquisition"]
    for damage in ({"Profile": "sinc"}, {"Thickness": 3}, {"SliceAxis": "X"}, {"Thickness": {"R": 1}}):
        with pytest.raises(InputRefusedError, match=r"a\.json: BrgmMedAcquisition is damaged"):
            AcquisitionModel.from_sidecar({"BrgmMedAcquisition": good | damage}, coarse, "a.json")
    with pytest.raises(InputRefusedError, match=r"a\.json: its spacing"):
        AcquisitionModel.from_sidecar({"BrgmMedAcquisition": good}, GRID, "a.json")


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="use R, A or S"):
        thick_slices(GRID, "Z", 6.0)
    with pytest.raises(UsageError, match="finer"):
        thick_slices(GRID, "S", 1.0)
    with pytest.raises(UsageError, match="no slice"):
        thick_slices(GRID, "S", 600.0)
    with pytest.raises(UsageError, match="positive"):
        thick_slices(GRID, "S", -6.0)
    with pytest.raises(UsageError, match="factor"):
        coarse_in_plane(GRID, 40)
    with pytest.raises(UsageError, match="factor"):
        coarse_in_plane(GRID, 0)
    with pytest.raises(UsageError, match="state the slice axis"):
        AcquisitionModel.from_flags(GRID, thickness=4.0)
    with pytest.raises(UsageError, match="is not the scan's spacing"):
        AcquisitionModel.from_flags(SCANS[0][0], thickness=4.0, gap=4.0)
    with pytest.raises(UsageError, match="positive"):
        AcquisitionModel.from_flags(SCANS[0][0], gap=7.0)
    with pytest.raises(UsageError, match="unknown slice profile"):
        AcquisitionModel((1, 1, 1), "sinc")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a slice axis"):
        AcquisitionModel((1, 1, 1), "gaussian")
    with pytest.raises(ValueError, match="share their axes"):
        SCANS[0][1].corruption(Grid(GRID.shape, GRID.affine + np.eye(4)), SCANS[0][0])
