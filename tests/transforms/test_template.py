"""A template is where it should be, looks the same in the mirror, and survives its files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brgm_med.errors import InputRefusedError, PriorError
from brgm_med.transforms.average import build_template
from brgm_med.transforms.register import find_pose
from brgm_med.transforms.template import BOX_SHAPE, Template, centred, centred_grid, vertex_index
from tests import phantom


def test_built_from_moved_heads_it_is_sharp_symmetric_and_placed() -> None:
    turns = [(4.0, 5.0, -3.0, (5.0, 4.0, -6.0)), (0.0, -4.0, 4.0, (-6.0, 0.0, 3.0)), (-4.0, 2.0, 3.0, (0.0, -5.0, 4.0))]
    grid = centred_grid((56, 62, 56), 4.0, (0.0, 0.0, 0.0))
    moves = [phantom.rigid(*turn) for turn in turns]
    heads = [(100 * phantom.head(grid, move), grid) for move in moves]
    template, poses = build_template(heads, rounds=1)
    image = template.image[0].numpy()
    # Every head agrees on where the template is, in the phantom's own world.
    places = [np.linalg.inv(move) @ pose for move, pose in zip(moves, poses, strict=True)]
    corners = np.c_[template.box.corners() * 0.8, np.ones(8)]
    for other in places[1:]:
        assert np.linalg.norm(corners @ (other - places[0]).T, axis=1).max() < 5.0
    # The phantom's plane of symmetry is x = 0, and so is the template's.
    assert np.abs(np.mean(places, 0)[0] - [1, 0, 0, 0])[:3].max() < 0.03
    assert abs(np.mean(places, 0)[0, 3]) < 1.5
    # The box: 2 mm, centred on world zero, the vertex 8 mm below its upper edge.
    assert template.box.shape == BOX_SHAPE
    assert np.allclose(template.box.corners().mean(0), 0)
    top = template.grid.affine[2, 3] + 2 * (vertex_index(image) + 0.5)
    assert template.box.corners()[:, 2].max() - top == pytest.approx(8.0, abs=1e-9)
    assert float(template.image[template.mask > 0].mean()) == pytest.approx(1.0, abs=1e-5)


def test_mask_is_brain_and_neither_scalp_nor_neck() -> None:
    grid = centred_grid((104, 120, 100), 2.0, (0.0, 0.0, -10.0))
    template, _ = centred(phantom.head(grid), grid)
    brain = phantom.inside_brain(grid)
    mask = template.mask[0].numpy() > 0
    assert (mask & ~brain).sum() < 0.02 * mask.sum()
    assert (mask & brain).sum() > 0.7 * brain.sum()


def test_files_hold_it(tmp_path: Path) -> None:
    template = phantom.template()
    template.save(tmp_path)
    read = Template.load(tmp_path, template.box)
    assert torch.equal(read.mask, template.mask)
    assert float((read.image - template.image).abs().max()) <= float(template.image.max()) / 255 / 2 * 1.001
    assert np.allclose(read.grid.affine, template.grid.affine)
    again = Template.load(tmp_path, template.box)
    grid = centred_grid((50, 56, 50), 4.0, (0, 0, 0))
    assert np.array_equal(find_pose(phantom.head(grid), grid, read), find_pose(phantom.head(grid), grid, again))


def test_damaged_file_is_a_prior_error(tmp_path: Path) -> None:
    phantom.template().save(tmp_path)
    (tmp_path / "mask.nii.gz").write_bytes(b"no image")
    with pytest.raises(PriorError, match=r"mask\.nii\.gz"):
        Template.load(tmp_path, phantom.template().box)


def test_two_heads_are_too_few() -> None:
    grid = phantom.template().grid
    with pytest.raises(InputRefusedError, match="at least 3"):
        build_template([(phantom.template().image, grid)] * 2)
