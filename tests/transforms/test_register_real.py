"""Real heads in the template: the pose follows the head, coarse scans land beside fine ones, others are refused.

Only heads that the prior was trained on, and only where the development data is.
"""

from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

import brgm_med
from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import estimate
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.register import rigid_pose, scale_of
from brgm_med.transforms.template import BOX_SHAPE, Pose, Template, centred_grid
from tests import phantom

PRIOR = Path(brgm_med.__path__[0]) / "priors" / "brain-t1-coronal"


@pytest.fixture(scope="module")
def template() -> Template:
    if not (PRIOR / "template.nii.gz").is_file():
        pytest.skip("no shipped template")
    return Template.load(PRIOR, centred_grid(BOX_SHAPE, 2.0, (0, 0, 0)))


@pytest.fixture(scope="module")
def head(data_dir: Path) -> tuple[Tensor, Grid]:
    files = sorted((data_dir / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[:120]
    if not files:
        pytest.skip("no heads")
    read = nib.nifti1.load(files[33])
    x, y, z = read.shape
    return torch.from_numpy(read.get_fdata(dtype=np.float32))[None], Grid((x, y, z), read.affine.astype(np.float64))


def apart(template: Template, one: Pose, other: Pose) -> float:
    """The largest distance (mm) between where two poses put the corners of the box, 20 % inside."""
    corners = np.c_[0.8 * template.box.corners(), np.ones(8)]
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def thick(image: Tensor, grid: Grid, factors: tuple[int, int, int]) -> tuple[Tensor, Grid]:
    """Means of `factors` voxels along each index axis."""
    scale = np.eye(4)
    for axis, f in enumerate(factors):
        n = image.shape[axis + 1] // f
        image = image.narrow(axis + 1, 0, n * f).unfold(axis + 1, f, f).mean(-1)
        scale[axis, axis], scale[axis, 3] = f, (f - 1) / 2
    x, y, z = image.shape[1:]
    return image.contiguous(), Grid((x, y, z), grid.affine @ scale)


def test_pose_follows_a_moved_head(template: Template, head: tuple[Tensor, Grid]) -> None:
    image, grid = head
    still, _ = rigid_pose(image, grid, template)
    move = phantom.rigid(9.0, -6.0, 4.0, (7.0, -12.0, 15.0))
    moved, _ = rigid_pose(image, Grid(grid.shape, move @ grid.affine), template)
    assert apart(template, np.linalg.inv(move) @ moved, still) < 0.3


@pytest.mark.parametrize("factors", [(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 4, 4)])
def test_thick_slices_land_beside_thin_ones(
    template: Template, head: tuple[Tensor, Grid], factors: tuple[int, int, int]
) -> None:
    fine, _ = rigid_pose(*head, template)
    coarse, correlation = rigid_pose(*thick(*head, factors), template)
    assert correlation > 0.6
    assert apart(template, coarse, fine) < 4.0
    scales = [estimate(i, g, template, p).scale for (i, g), p in ((head, fine), (thick(*head, factors), coarse))]
    assert scales[1] == pytest.approx(scales[0], rel=0.04)


@pytest.mark.parametrize("kind", ["slab", "without skull", "T2-weighted"])
def test_other_views_and_contrasts_are_registered(template: Template, kind: str, data_dir: Path) -> None:
    """Two thirds of a brain, the template's own brain, and a T2-weighted head in slices of 5 mm are taken as life-size;
    the correlation with the T1-weighted template says which prior may be trusted."""
    move = phantom.rigid(6.0, 4.0, -5.0, (5.0, -8.0, 10.0))
    brain = template.without_skull.image
    if kind == "T2-weighted":
        path = data_dir / "heads-ds000011" / "sub-01_T2w.nii.gz"
        if not path.is_file():
            pytest.skip("no T2-weighted head")
        pose, correlation = rigid_pose(*Heads([path])[0], template)
        assert abs(correlation) < 0.5
    elif kind == "slab":
        pose, correlation = rigid_pose(*thick(template.image[..., 28:], moved(template, move, 28), (2, 2, 3)), template)
        assert apart(template, pose, move) < 3.0
    else:
        pose, correlation = rigid_pose(*thick(brain, moved(template, move), (2, 2, 2)), template)
        assert apart(template, pose, move) < 3.0
        assert correlation > 0.5
    assert scale_of(pose) == pytest.approx(1)


def moved(template: Template, move: Pose, first: int = 0) -> Grid:
    """The template's grid from plane `first` along S on, moved."""
    x, y, z = template.grid.shape
    return Grid((x, y, z - first), move @ template.grid.affine @ make_affine(np.eye(3), (0, 0, first)))


@pytest.mark.parametrize("turn", [(180, 0, 0), (0, 180, 0), (0, 0, 180), (90, 0, 0)])
def test_wrong_orientation_is_refused(
    template: Template, head: tuple[Tensor, Grid], turn: tuple[float, float, float]
) -> None:
    image, grid = head
    turned = Grid(grid.shape, phantom.rigid(*turn, (0, 0, 0)) @ grid.affine)
    with pytest.raises(InputRefusedError, match="orientation"):
        rigid_pose(image, turned, template)


def test_stacked_chest_radiograph_is_refused(template: Template, data_dir: Path) -> None:
    files = sorted((data_dir / "xray-hannover").rglob("*.png"))
    if not files:
        pytest.skip("no radiographs")
    picture = matplotlib.image.imread(files[0])
    picture = picture if picture.ndim == 2 else picture[..., 0]
    stack = torch.from_numpy(np.repeat(picture[::-2, ::2].T[:, None], 60, 1).astype(np.float32))[None]
    with pytest.raises(InputRefusedError):
        rigid_pose(stack, centred_grid((128, 60, 128), 1.8, (0, 0, 0)), template)
