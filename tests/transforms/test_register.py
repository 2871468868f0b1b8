"""A head that was moved is found again; what is no head is refused; nothing moves in a round trip."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.coronal import CoronalSlicesd
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.normalise import NormaliseIntensityd
from brgm_med.transforms.orientation import LEAST_INFORMATION, agreement
from brgm_med.transforms.register import resample_cubic, rigid_pose, scale_of
from brgm_med.transforms.rigid import RegisterRigid, RegisterRigidd
from brgm_med.transforms.template import centred_grid
from tests import phantom

POSE = phantom.rigid(9.0, -6.0, 4.0, (7.0, -12.0, 15.0))
CENTRE = (7.0, -12.0, 5.0)


def scan_grid(spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> Grid:
    """A field of view of about 208 x 232 x 208 mm, as a scanner may store it: axes P, S, R."""
    shape = (round(232 / spacing[1]), round(208 / spacing[2]), round(208 / spacing[0]))
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -spacing[1], spacing[2], spacing[0], 1
    affine[:3, 3] = np.asarray(CENTRE) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def displacement(found: np.ndarray, true: np.ndarray) -> float:
    """The largest distance (mm) between where two poses put the corners of the box."""
    corners = np.c_[phantom.template().box.corners(), np.ones(8)]
    return float(np.linalg.norm(corners @ (found - true).T, axis=1).max())


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (2.0, 2.0, 8.0), (8.0, 2.0, 8.0)])
def test_moved_head_is_found(spacing: tuple[float, float, float]) -> None:
    grid = scan_grid(spacing)
    image = 20 + 700 * phantom.head(grid, POSE, edge=3)
    pose, correlation = rigid_pose(image, grid, phantom.template())
    assert displacement(pose, POSE) < 3.0
    assert correlation > 0.8
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


def test_same_scan_same_pose() -> None:
    grid = scan_grid()
    image = phantom.head(grid, POSE)
    first, second = (rigid_pose(image, grid, phantom.template())[0] for _ in range(2))
    assert np.array_equal(first, second)


def sphere(grid: Grid) -> torch.Tensor:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    radius = np.linalg.norm(index @ grid.affine[:3, :3].T + grid.affine[:3, 3] - CENTRE, axis=-1)
    return torch.from_numpy((radius < 80).astype(np.float32))[None]


def t2_weighted(values: torch.Tensor) -> torch.Tensor:
    """The phantom with dark white matter, grey cortex and bright fluid; skull dark, air 0."""
    levels = torch.tensor([0.0, 0.1, 0.3, 0.75, 0.9, 1.15])
    seen = torch.tensor([0.0, 0.1, 1.3, 0.7, 0.5, 0.35])
    upper = torch.bucketize(values.clamp(1e-6, 1.149), levels)
    part = (values - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    return seen[upper - 1] + part * (seen[upper] - seen[upper - 1])


@pytest.mark.parametrize("kind", ["T2-weighted", "slab"])
def test_head_of_another_contrast_or_view_is_found(kind: str) -> None:
    grid = scan_grid((4.0, 4.0, 4.0))
    image = phantom.head(grid, POSE, edge=3)
    if kind == "T2-weighted":
        image = t2_weighted(image)
    else:  # a third of the field of view is missing at the top
        image, grid = (
            image[:, :, : 2 * grid.shape[1] // 3].contiguous(),
            Grid.of(image[0, :, : 2 * grid.shape[1] // 3], grid.affine),
        )
    pose, correlation = rigid_pose(100 * image, grid, phantom.template())
    assert displacement(pose, POSE) < (12.0 if kind == "T2-weighted" else 6.0)
    assert kind != "T2-weighted" or correlation < 0.5
    assert scale_of(pose) == pytest.approx(1)


@pytest.mark.parametrize("size", [0.78, 1.14])
def test_size_is_found(size: float) -> None:
    grid = scan_grid()
    resized = np.diag([size, size, size, 1.0]) @ POSE
    pose, correlation = rigid_pose(phantom.head(grid, resized), grid, phantom.template())
    assert scale_of(pose) == pytest.approx(size, rel=0.03)
    assert correlation > 0.8


def test_wrong_orientation_is_named() -> None:
    """The header calls superior what is anterior."""
    grid = scan_grid()
    turned = Grid(grid.shape, phantom.rigid(90, 0, 0, (0, 0, 0)) @ grid.affine)
    with pytest.raises(InputRefusedError, match="R, A, S of the header point to R, I, A"):
        rigid_pose(phantom.head(grid, POSE), turned, phantom.template())


def test_a_pose_agrees_only_near_the_head() -> None:
    grid = scan_grid()
    values = t2_weighted(phantom.head(grid, POSE))[0].numpy()
    there = agreement(values, grid, phantom.template(), POSE)
    moved = agreement(values, grid, phantom.template(), phantom.rigid(0, 0, 0, (0, 30, 0)) @ POSE)
    assert there[0] > LEAST_INFORMATION
    assert there[1] > 1.05
    assert moved[1] < 0.95


@pytest.mark.parametrize("kind", ["noise", "sphere", "upside down", "gradient"])
def test_what_is_no_head_is_refused(kind: str) -> None:
    grid = scan_grid()
    image = {
        "noise": lambda: torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(0)),
        "sphere": lambda: sphere(grid),
        "upside down": lambda: phantom.head(grid, phantom.rigid(180, 0, 0, (7, -12, 5))),
        "gradient": lambda: torch.linspace(0, 1, grid.shape[1]).expand(grid.shape[2], -1).T.expand(1, *grid.shape),
    }[kind]()
    with pytest.raises(InputRefusedError) as refusal:
        rigid_pose(image.contiguous(), grid, phantom.template())
    assert "\n" not in str(refusal.value)


def test_a_slab_is_refused() -> None:
    grid = centred_grid((50, 60, 10), 4.0, (0, 0, -50))
    with pytest.raises(InputRefusedError, match="whole head"):
        rigid_pose(phantom.head(grid), grid, phantom.template())


def test_cubic_resampling_on_the_same_grid_changes_nothing() -> None:
    grid = scan_grid()
    image = phantom.head(grid, POSE)
    assert torch.allclose(resample_cubic(image, grid, grid), image, atol=1e-5)


def test_round_trip_keeps_corners_voxels_and_history() -> None:
    """Register, normalise, slice, restack, undo, un-register: the grid returns exactly, the content nearly."""
    grid = scan_grid((3.0, 3.0, 3.0))
    smooth = phantom.head(grid, POSE, edge=12) * 500 + 30
    scan = MetaTensor(smooth, torch.from_numpy(grid.affine), {"name": "phantom"})
    template = phantom.template()
    chain = Compose(
        [RegisterRigidd("image", template), NormaliseIntensityd("image", template), CoronalSlicesd("image")]
    )
    there = chain({"image": scan})
    assert there["image"].shape == (61, 1, 80, 96)
    back = chain.inverse(there)["image"]
    returned = Grid(tuple(back.shape[1:]), back.affine.numpy())
    assert np.abs(returned.corners() - grid.corners()).max() < 1e-3
    assert back.applied_operations == []
    assert back.meta["name"] == "phantom"
    # Where the box covers the scan, with two voxels to spare for the interpolation's support.
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    pose = there["image"].meta["pose"].numpy()
    to_box = np.linalg.inv(pose @ template.box.affine) @ grid.affine
    place = index @ to_box[:3, :3].T + to_box[:3, 3]
    inside = ((place > 4) & (place < np.asarray(template.box.shape) - 5)).all(-1)
    error = (back - smooth)[0].as_tensor().abs().numpy()[inside]
    assert inside.sum() > 10000
    assert error.max() < 0.02 * 500


def test_landmark_stays_where_it_was() -> None:
    """The centre of mass of a small blob, through the box and back, moves by less than 0.01 mm."""
    grid = scan_grid((2.0, 2.0, 2.0))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    blob = np.exp(-0.5 * (np.linalg.norm(world - [12.0, -20.0, 15.0], axis=-1) / 6) ** 2)
    template = phantom.template()
    source = torch.from_numpy(blob.astype(np.float32))[None]
    there = resample_cubic(source, grid, template.box, POSE)
    back = resample_cubic(there, template.box, grid, np.linalg.inv(POSE))[0].numpy()
    centre = (world * back[..., None]).sum((0, 1, 2)) / back.sum()
    assert np.abs(centre - (world * blob[..., None]).sum((0, 1, 2)) / blob.sum()).max() < 1e-2


def test_given_pose_is_used() -> None:
    grid = scan_grid()
    scan = MetaTensor(phantom.head(grid, POSE), torch.from_numpy(grid.affine))
    out = RegisterRigid(phantom.template())(scan, POSE)
    expected = phantom.head(phantom.template().box)
    assert float((out.as_tensor() - expected).abs().mean()) < 0.03
    assert np.allclose(out.affine.numpy(), phantom.template().box.affine)
