"""Training slices of several scanners: 8 bits, acquisition models, contrasts, and what the losses see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.training import contrast
from brgm_med.training.loop import train_iteration
from brgm_med.training.measure import measure_sources
from brgm_med.training.sources import TAPS, Source, Sources, acquired, acquisition_kernel, packed, unpacked
from tests import tiny

IDENTITY = acquisition_kernel(0.0, 0.0, 1.5)
COARSE = acquisition_kernel(2.0, 2.0, 1.5)
TISSUE = torch.zeros(contrast.LABELS, dtype=torch.uint8)
TISSUE[1:4] = torch.tensor([1, 2, 3], dtype=torch.uint8)


def stored() -> list[Tensor]:
    return [packed(torch.from_numpy(head[:, 0]).float(), torch.ones(5, 12, 12) > 0) for head in tiny.stacks()]


def stripped() -> list[Tensor]:
    y, x = np.mgrid[:12, :12] - 5.5
    brain = torch.from_numpy(np.hypot(x, y) < 4)
    return [torch.where(brain, stack, 0) for stack in stored()]


def labelled() -> list[Tensor]:
    labels = torch.zeros(5, 24, 24, dtype=torch.uint8)
    labels[:, 4:20, 4:20], labels[:, 7:17, 7:17], labels[:, 9:15, 9:15] = 1, 2, 3
    return [labels]


def sources() -> Sources:
    return Sources(
        [
            Source("whole", 0.4, (COARSE, COARSE), stored()),
            Source("stripped", 0.3, (COARSE, IDENTITY), stripped()),
            Source("labels", 0.3, (IDENTITY, IDENTITY), labelled(), TISSUE),
        ]
    )


def test_eight_bits_keep_a_128th_of_the_brightness_of_the_brain() -> None:
    values = torch.linspace(-1, 2.9, 500)
    known = torch.arange(500) % 7 != 0
    again, still = unpacked(packed(values, known))
    assert torch.equal(known, still)
    assert float((again - values)[known].abs().max()) <= 1 / 128 + 1e-6
    assert torch.all(again[~known] == -1)


@pytest.mark.parametrize(("true_mm", "step_mm"), [(2.0, 2.0), (1.35, 1.33), (1.0, 1.0)])
def test_a_scanner_keeps_the_mean_and_dims_fine_detail_as_its_voxels_do(true_mm: float, step_mm: float) -> None:
    kernel = acquisition_kernel(true_mm, step_mm, 1.5).double()
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(kernel, kernel.flip(0))
    offsets = torch.arange(TAPS) - TAPS // 2
    for frequency in (0.02, 0.05, 0.08):  # cycles per mm, where a cubic spline interpolates nearly exactly
        response = float((kernel * torch.cos(2 * np.pi * frequency * 1.5 * offsets)).sum())
        expected = np.sinc(true_mm * frequency) / np.sinc(1.5 * frequency)
        assert response == pytest.approx(expected, abs=0.03)


def test_nothing_is_known_of_detail_beyond_the_sampling_of_a_scanner() -> None:
    kernel = acquisition_kernel(2.0, 2.0, 1.5)
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 1, 32, 32)
    inner = acquired(stripes, IDENTITY[None], kernel[None])[..., TAPS:-TAPS]
    assert float(inner.abs().max()) < 0.3
    assert torch.equal(acquired(stripes, IDENTITY[None], IDENTITY[None]), stripes)


def test_slices_are_drawn_by_their_shares_and_nothing_is_shown_where_nothing_is_known() -> None:
    torch.manual_seed(0)
    drawn = sources().draw(300)
    assert drawn.image.shape == (300, 1, 12, 12)
    assert set(drawn.position.tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    of_labels = (drawn.kernels[0] == IDENTITY).all(1)
    of_stripped = ~of_labels & (drawn.kernels[1] == IDENTITY).all(1)
    assert 0.22 < float(of_labels.float().mean()) < 0.38
    assert 0.22 < float(of_stripped.float().mean()) < 0.38
    assert drawn.known[~of_stripped].all()
    assert 0.2 < float(drawn.known[of_stripped].float().mean()) < 0.5
    assert torch.all(drawn.image[~drawn.known] == -1)


def test_the_same_seed_draws_the_same_and_augments_image_and_mask_alike() -> None:
    first, again = (torch.manual_seed(5) and sources().draw(40) for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.known, again.known)
    ones = [torch.where(stack > 0, 65, 0).to(torch.uint8) for stack in stripped()]  # value 0 wherever it is known
    torch.manual_seed(1)
    drawn = Sources([Source("ones", 1.0, (IDENTITY, IDENTITY), ones)]).draw(200)
    inside = drawn.image[drawn.known]
    assert float((inside > -0.5).float().mean()) > 0.97  # air would be -1: it has not moved into the mask


def test_what_a_source_does_not_hold_does_not_teach() -> None:
    """The losses' gradient is nil at pixels whose neighbourhood is not known."""
    torch.manual_seed(0)
    drawn = Sources([sources().sources[1]]).spread(4)
    x = torch.zeros_like(drawn.image, requires_grad=True)
    (drawn.seen(x) - drawn.image).square().sum().backward()
    assert x.grad is not None
    far = torch.nn.functional.max_pool2d(drawn.known.float(), 2 * TAPS - 1, 1, TAPS - 1) == 0
    assert torch.all(x.grad[far] == 0)
    assert float(x.grad[drawn.known].abs().min()) > 0


def test_a_random_contrast_leaves_air_dark_and_the_head_at_0_on_average() -> None:
    torch.manual_seed(0)
    image, known = unpacked(torch.stack([s[2] for s in stored()] * 20)[:, None])
    chosen = torch.arange(60) % 2 == 0
    changed = contrast.remapped(image, known, chosen)
    assert torch.equal(changed[~chosen], image[~chosen])
    head = image > contrast.HEAD
    for one, inside in zip(changed[chosen], head[chosen], strict=True):
        assert float(one[inside].mean()) == pytest.approx(0, abs=0.15)  # but for the cut at the highest intensity
        assert float(one[~inside].mean()) < -0.5
    assert not torch.allclose(changed[chosen], image[chosen], atol=0.2)


def test_monotone_and_other_maps_are_both_drawn() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-0.6, 2, 144).view(1, 1, 12, 12).repeat(100, 1, 1, 1)
    changed = contrast.remapped(ramp, torch.ones_like(ramp) > 0, torch.ones(100) > 0).flatten(1)
    rising = (changed.diff(dim=1) >= -1e-5).all(1)
    assert 30 < int(rising.sum()) < 70


def test_images_of_labels_have_one_mean_a_label_and_the_order_of_t1_where_asked() -> None:
    torch.manual_seed(0)
    maps = labelled()[0][:1].repeat(50, 1, 1)
    images = contrast.coloured(maps, torch.ones(50) > 0, TISSUE, torch.arange(50))
    assert images.shape == (50, 1, 12, 12)
    assert torch.all(images[:, :, 0, 0] == -1)
    fluid, grey, white = images[:, 0, 2, 6], images[:, 0, 4, 6], images[:, 0, 6, 6]
    assert float((fluid < grey).float().mean()) > 0.9
    assert float((grey < white).float().mean()) > 0.8
    free = contrast.coloured(maps, torch.zeros(50) > 0, TISSUE, torch.arange(50))
    assert 0.2 < float((free[:, 0, 4, 6] < free[:, 0, 6, 6]).float().mean()) < 0.8
    few = torch.tensor([3, 7, 41])
    torch.manual_seed(1)
    every = contrast.coloured(maps, torch.ones(50) > 0, TISSUE, torch.arange(50))
    torch.manual_seed(1)
    assert torch.equal(contrast.coloured(maps, torch.ones(50) > 0, TISSUE, few), every[few])


def test_the_set_survives_its_file_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sources.safetensors"
    sources().save(path, spacing=1.5)
    again = Sources.load(path)
    assert len(again) == len(sources()) == 7
    torch.manual_seed(3)
    first = sources().draw(20).image
    torch.manual_seed(3)
    assert torch.equal(first, again.draw(20).image)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PriorError, match="holds no training slices"):
        Sources.load(path)


@pytest.mark.parametrize("playing", [False, True])
def test_one_update_of_every_network_on_several_sources(playing: bool) -> None:
    state = tiny.state()
    state.images = tiny.RECIPE.reconstruction_only if playing else 0
    losses = train_iteration(state, tiny.RECIPE, sources(), None)
    assert all(np.isfinite(value) for value in losses.values())
    assert ("discriminator" in losses) == playing


def test_the_measure_of_each_source_is_through_its_own_acquisition() -> None:
    state = tiny.state()
    numbers = measure_sources(state.average, state.average_encoder, sources(), None, steps=3, count=2)
    assert {"whole_encoded", "whole_wplus", "whole_inversion", "stripped_inversion", "score"} <= numbers.keys()
    assert not any(key.startswith("labels") for key in numbers)
    assert numbers["whole_inversion"] >= numbers["whole_encoded"]
