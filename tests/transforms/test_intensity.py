"""Air is -1, the brain's mean 0, thick slices do not change it, and it can be undone."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import Normalisation, estimate
from brgm_med.transforms.normalise import NormaliseIntensity
from brgm_med.transforms.template import centred_grid
from tests import phantom


def test_inverse_undoes_forward() -> None:
    values = torch.linspace(-50, 3000, 1000, dtype=torch.float64)
    norm = Normalisation(low=12.5, scale=740.0)
    assert torch.allclose(norm.inverse(norm.forward(values)), values, rtol=1e-14)


def test_air_is_minus_one_and_brain_is_zero() -> None:
    template = phantom.template()
    image = 40 + 900 * template.image
    norm = estimate(image, template.grid, template, np.eye(4))
    out = norm.forward(image)
    assert float(out[template.mask > 0].mean()) == pytest.approx(0, abs=1e-4)
    assert float(out[0, :3].mean()) == pytest.approx(-1, abs=1e-3)


def test_gain_and_offset_of_the_scanner_cancel() -> None:
    template = phantom.template()
    one = estimate(template.image, template.grid, template, np.eye(4))
    image = 3 + 250 * template.image
    other = estimate(image, template.grid, template, np.eye(4))
    assert torch.allclose(other.forward(image), one.forward(template.image), atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_hardly_change_it(axis: int) -> None:
    template = phantom.template()
    rng = torch.Generator().manual_seed(0)
    image = (template.image + 0.02 * torch.randn(template.image.shape, generator=rng)).abs()
    n = image.shape[axis + 1] // 2
    thick = image.narrow(axis + 1, 0, 2 * n).unfold(axis + 1, 2, 2).mean(-1)
    scale = np.eye(4)
    scale[axis, axis], scale[axis, 3] = 2.0, 0.5
    grid = Grid((int(thick.shape[1]), int(thick.shape[2]), int(thick.shape[3])), template.grid.affine @ scale)
    fine = estimate(image, template.grid, template, np.eye(4))
    coarse = estimate(thick, grid, template, np.eye(4))
    assert coarse.scale == pytest.approx(fine.scale, rel=0.02)
    assert coarse.low == pytest.approx(fine.low, abs=0.02 * fine.scale)


def test_dark_brain_and_missing_brain_are_refused() -> None:
    template = phantom.template()
    with pytest.raises(InputRefusedError, match="not brighter"):
        estimate(-template.image, template.grid, template, np.eye(4))
    elsewhere = centred_grid((20, 20, 20), 2.0, (500, 0, 0))
    with pytest.raises(InputRefusedError, match="whole head"):
        estimate(torch.rand(1, 20, 20, 20), elsewhere, template, np.eye(4))


def test_transform_inverts() -> None:
    template = phantom.template()
    step = NormaliseIntensity(template)
    image = MetaTensor(30 + 500 * template.image, torch.from_numpy(template.grid.affine))
    out = step(image)
    assert len(out.applied_operations) == 1
    back = step.inverse(out)
    assert torch.allclose(back.as_tensor(), image.as_tensor(), rtol=1e-5)
    assert back.applied_operations == []
