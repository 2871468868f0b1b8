"""restack(slice(v)) == v, and every voxel of the stack knows where it is."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from brgm_med.transforms.coronal import CoronalSlices, CoronalSlicesd
from brgm_med.transforms.slices import coronal_stack, restack


def volume() -> MetaTensor:
    affine = torch.tensor([[2.0, 0, 0, -9], [0, 3.0, 0, 4], [0, 0, 2.5, 7], [0, 0, 0, 1]], dtype=torch.float64)
    return MetaTensor(torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(0)), affine)


def test_restack_undoes_coronal_stack() -> None:
    v = volume().as_tensor()
    stack = coronal_stack(v)
    assert stack.shape == (4, 1, 5, 6)
    assert torch.equal(restack(stack), v)
    assert torch.equal(coronal_stack(restack(stack)), stack)


def test_superior_is_on_top_and_columns_run_to_the_right() -> None:
    v = torch.zeros(1, 6, 4, 5)
    v[0, 5, 2, 4] = 1  # rightmost, most superior, third slice
    assert coronal_stack(v)[2, 0, 0, 5] == 1


def test_stack_affine_places_every_voxel() -> None:
    v = volume()
    stack = CoronalSlices()(v)
    for x, y, z in [(0, 0, 0), (5, 3, 4), (2, 1, 3)]:
        place = v.affine @ torch.tensor([x, y, z, 1.0], dtype=torch.float64)
        row = v.shape[3] - 1 - z
        assert stack[y, 0, row, x] == v[0, x, y, z]
        assert torch.allclose(stack.affine @ torch.tensor([y, row, x, 1.0], dtype=torch.float64), place)


def test_inverse_restores_voxels_affine_and_history() -> None:
    v = volume()
    step = CoronalSlices()
    back = step.inverse(step(v))
    assert torch.equal(back.as_tensor(), v.as_tensor())
    assert torch.equal(back.affine, v.affine)
    assert back.applied_operations == v.applied_operations


def test_dictionary_form_composes_and_inverts() -> None:
    v = volume()
    chain = Compose([CoronalSlicesd(keys="image")])
    out = chain({"image": v, "name": "a"})
    assert out["image"].shape == (4, 1, 5, 6)
    assert out["name"] == "a"
    assert torch.equal(chain.inverse(out)["image"].as_tensor(), v.as_tensor())


def test_other_axes_are_refused() -> None:
    turned = volume()
    turned.affine = torch.from_numpy(np.diag([-2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="RAS"):
        CoronalSlices()(turned)
