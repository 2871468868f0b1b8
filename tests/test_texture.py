"""Texture: what is finer than a fill comes from the places that look alike, and stays in the hole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brgm_med.texture import texture

SHAPE = (40, 36, 32)


def ball(radius: float = 6.0) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    return sum((x.square() for x in axes), torch.zeros(SHAPE)) < radius**2


def grain(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def filled(image: Tensor, hole: Tensor, value: Tensor | float) -> Tensor:
    return torch.where(hole, value, image)


def test_the_grain_of_the_hole_is_that_of_its_surroundings() -> None:
    hole = ball()
    image = filled(100 + 5 * grain(), hole, 100.0)
    added = texture(image, hole, (1.0, 1.0, 1.0), 1.5)
    assert not added[~hole].any()
    assert 0.75 < float(added[hole].std()) / float((image[~hole]).std()) < 1.0
    assert abs(float(added[hole].mean())) < 1


def test_each_part_of_a_hole_has_the_grain_of_what_looks_like_it() -> None:
    hole, left = ball(), (torch.arange(SHAPE[0]) < SHAPE[0] // 2)[:, None, None].expand(SHAPE)
    clean = torch.where(left, 50.0, 150.0)
    image = filled(clean + torch.where(left, 8.0, 0.5) * grain(), hole, clean)
    added = texture(image, hole, (1.0, 1.0, 1.0), 1.0)
    inner = torch.zeros(SHAPE, dtype=torch.bool)
    inner[SHAPE[0] // 2 - 2 : SHAPE[0] // 2 + 2] = True
    rough, even = added[hole & left & ~inner].std(), added[hole & ~left & ~inner].std()
    assert float(rough) > 4 * float(even)


@pytest.mark.parametrize(("spacing", "sigma"), [((2.0, 2.0, 2.0), 1.0), ((1.0, 1.0, 1.0), 1.5)])
def test_nothing_is_added_where_nothing_can_be(spacing: tuple[float, float, float], sigma: float) -> None:
    """Voxels that are not finer than what is asked for; no known patch."""
    hole = ball() if spacing[0] == 2 else torch.ones(SHAPE, dtype=torch.bool)
    assert not texture(grain(), hole, spacing, sigma).any()


def test_it_is_the_same_every_time_and_follows_intensities() -> None:
    hole = ball()
    image = filled(100 + 5 * grain(), hole, 100.0)
    added = texture(image, hole, (1.0, 1.0, 1.5), 1.5)
    assert torch.equal(added, texture(image, hole, (1.0, 1.0, 1.5), 1.5))
    torch.testing.assert_close(texture(2 * image, hole, (1.0, 1.0, 1.5), 1.5), 2 * added)
    assert not hole.logical_not()[added != 0].any()


def test_slices_that_are_thick_have_the_grain_of_their_planes() -> None:
    hole = ball()
    image = filled(100 + 5 * grain(), hole, 100.0)
    added = texture(image, hole, (1.0, 1.0, 5.0), 1.5)
    assert 0.6 < float(added[hole].std()) / float((image[~hole]).std()) < 1.0


def test_a_hole_at_the_border_is_filled_to_the_border() -> None:
    hole = torch.zeros(SHAPE, dtype=torch.bool)
    hole[:8, :8, :8] = True
    added = texture(filled(100 + 5 * grain(), hole, 100.0), hole, (1.0, 1.0, 1.0), 1.5)
    assert float((added[hole] != 0).float().mean()) > 0.99
