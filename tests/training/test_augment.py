"""Augmentation: what each operation is, how often it comes, and that it leaks nothing."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from brgm_med.training import distributed
from brgm_med.training.augment import Augmentation, adapted

DEFAULT = Augmentation()
NAMES = [f.name for f in fields(Augmentation)]
NOTHING = Augmentation(**dict.fromkeys(NAMES, 0))  # type: ignore[arg-type]


def only(**strengths: float) -> Augmentation:
    return replace(NOTHING, **strengths)  # type: ignore[arg-type]


def heads(count: int, height: int = 24, width: int = 28, **options: object) -> Tensor:
    """[count, 1, height, width]: textured ellipses in air."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    inside = (8 * (0.7 - (x.square() + 1.2 * y.square()).sqrt())).clamp(0, 1)
    return (inside * (0.6 + torch.rand(count, 1, height, width)) - 1).to(**options)  # type: ignore[call-overload]


def ramps(count: int, axis: int) -> Tensor:
    """[count, 1, 64, 96]: the coordinate along an axis in pixels, 100 at the centre, above air."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 + 99 for n in (64, 96))
    return (y[:, None] if axis == 2 else x).expand(count, 1, 64, 96)


def same(a: Tensor, b: Tensor) -> Tensor:
    """Which images [N] are equal to the last bit."""
    return (a == b).flatten(1).all(1)


def test_without_probability_or_strength_nothing_changes() -> None:
    images = heads(5)
    assert torch.equal(DEFAULT(images, 0.0), images)
    assert torch.equal(NOTHING(images), images)


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_impossible_probabilities_and_strengths_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        DEFAULT(heads(1), value)
    with pytest.raises(ValueError, match="strengths"):
        Augmentation(gain=value)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_operations_come_independently_with_the_probability_and_else_leave_the_bits(name: str) -> None:
    n, p = 1500, 0.3
    images = heads(1).expand(n, 1, 24, 28)
    # The draw itself may be the identity: half of the flips, and one shift of nine.
    rates = {other: p * {"flip": 1 / 2, "shift": 8 / 9}.get(other, 1.0) for other in NAMES}
    untouched = math.prod(1 - rate for other, rate in rates.items() if name in (other, "all"))
    augmentation = DEFAULT if name == "all" else only(**{name: getattr(DEFAULT, name)})
    found = int(same(augmentation(images, p), images).sum())
    assert abs(found - n * untouched) < 4 * math.sqrt(n * untouched * (1 - untouched))


def test_flips_and_shifts_are_exact() -> None:
    images = torch.rand(200, 1, 24, 28)
    flipped = only(flip=1)(images)
    assert (same(flipped, images) ^ same(flipped, images.flip(3))).all()
    moved = only(flip=1, shift=3)(images)
    wide = torch.nn.functional.pad(images, (3,) * 4, mode="replicate")
    windows = [wide[:, :, y : y + 24, x : x + 28] for y in range(7) for x in range(7)]
    assert torch.stack([same(moved, w) | same(moved, w.flip(3)) for w in windows]).any(0).all()


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_shifts_leak_nothing(largest: int) -> None:
    """The averaging over shifts has no negative eigenvalue, so that (1 - p) I + p A is invertible for all p < 1."""
    dot = torch.full((20_000, 1, 9, 9), -1.0)
    dot[:, :, 4, 4] = 1.0
    where = (only(shift=largest)(dot) + 1).mean(0)[0] / 2
    assert min(where[4 - largest, 4], where[4, 4 + largest]) > 0
    assert float(torch.fft.fft2(torch.fft.ifftshift(where)).real.min()) > -0.02


@pytest.mark.parametrize("axis", [2, 3])
def test_rotation_and_scaling_do_not_shear_and_are_bounded(axis: int) -> None:
    def slopes(augmentation: Augmentation) -> Tensor:
        middle = augmentation(ramps(60, axis))[:, 0, 10:-10, 10:-10]
        return torch.stack([middle.diff(dim=d).mean((1, 2)) for d in (1, 2)])

    slope = slopes(only(rotation=10.0))
    torch.testing.assert_close(slope.norm(dim=0), torch.ones(60, dtype=torch.float64), rtol=0, atol=5e-3)
    angle = torch.atan2(slope[3 - axis], slope[axis - 2]).rad2deg()
    assert float(angle.abs().max()) < 10.3
    assert float(angle.std()) == pytest.approx(10 / math.sqrt(6), rel=0.3)
    slope = slopes(only(scale=0.1))
    assert float(slope[3 - axis].abs().max()) < 5e-3
    assert float(slope[axis - 2].log().abs().max()) < 0.103
    assert float(slope[axis - 2].log().std()) == pytest.approx(0.1 / math.sqrt(6), rel=0.3)


def test_elastic_displacements_have_their_size_and_are_smooth() -> None:
    moved = [(only(elastic=1.0)(ramps(60, axis)) - ramps(60, axis))[..., 4:-4, 4:-4] for axis in (2, 3)]
    assert sum(float(m.square().mean()) for m in moved) == pytest.approx(1.0, rel=0.25)
    assert max(float(m.diff(n=2, dim=axis).abs().mean()) for m in moved for axis in (2, 3)) < 0.03


def test_air_stays_air_nothing_falls_below_it_and_channels_change_alike() -> None:
    quiet = replace(DEFAULT, noise=0.0)
    assert torch.equal(quiet(torch.full((50, 1, 12, 14), -1.0)), torch.full((50, 1, 12, 14), -1.0))
    images = heads(100).expand(100, 2, 24, 28)
    changed = quiet(images)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert float(changed.min()) == -1.0
    assert torch.equal(changed[:, :, 0, 0], images[:, :, 0, 0])
    flat = torch.full_like(images, 0.5)  # the border goes on outside
    torch.testing.assert_close(only(shift=2, rotation=9.0, scale=0.1, elastic=1.0)(flat), flat)


def test_gamma_and_gain_keep_the_order_of_brightness() -> None:
    image = torch.linspace(-1.2, 2.0, 33, dtype=torch.float64).view(1, 1, 1, 33).expand(200, 1, 1, 33)
    for augmentation in (only(gamma=0.5), only(gain=0.5), only(gamma=0.5, gain=0.5)):
        assert bool((augmentation(image).diff(dim=3) > 0).all())
    curved = only(gamma=0.5)(image)
    torch.testing.assert_close(curved[..., [2, 12]], image[..., [2, 12]], rtol=0, atol=1e-12)  # air and 0
    log_gamma = (1 + ((curved[..., 32] + 1) / 3).log() / math.log(3.05 / 1.05)).log()
    assert -0.5 < float(log_gamma.min()) < -0.3 < 0.3 < float(log_gamma.max()) < 0.5
    factor = ((only(gain=0.08)(image) + 1) / (image + 1))[..., 5:]
    torch.testing.assert_close(factor, factor[..., :1].expand_as(factor), rtol=1e-9, atol=0)
    assert 0.06 < float(factor.log().abs().max()) < 0.08


def test_bias_is_smooth_and_noise_is_white_and_both_have_their_size() -> None:
    images = heads(200, dtype=torch.float64) + 0.5
    log_field = ((only(bias=0.1)(images) + 1) / (images + 1)).log()
    assert float(log_field.square().mean().sqrt()) == pytest.approx(0.1, rel=0.15)
    assert float(log_field.std((2, 3)).mean()) > 0.05
    assert float(log_field.diff(n=2, dim=2).abs().max()) < 0.03
    noise = only(noise=0.1)(images) - images
    assert float(noise.square().mean()) == pytest.approx(0.01 / 6, rel=0.25)
    assert float(noise.flatten(1).std(1).max()) < 0.11
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())) < 0.02


def seeded(image: Tensor, probability: float = 1.0, augmentation: Augmentation = DEFAULT) -> Tensor:
    torch.manual_seed(3)
    return augmentation(image, probability)


@pytest.mark.parametrize("p", [0.4, 1.0])
def test_first_and_second_derivatives_are_right(p: float) -> None:
    image = (heads(2, 5, 6, dtype=torch.float64) + 0.05 * torch.randn(2, 1, 5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: seeded(x, p), image)
    twice = DEFAULT
    if tuple(int(v) for v in torch.__version__.split(".")[:2]) < (2, 15):  # grid_sample may lack it
        twice = replace(twice, rotation=0.0, scale=0.0, elastic=0.0)
    assert torch.autograd.gradgradcheck(lambda x: seeded(x, p, twice), image, fast_mode=True)


def test_the_seed_decides_and_images_do_not_know_of_each_other() -> None:
    images = heads(6)
    first = seeded(images, 0.5)
    assert torch.equal(seeded(images, 0.5), first)
    assert torch.equal(seeded(torch.cat([images[:1], 3 * heads(5) - 7]), 0.5)[0], first[0])


def test_processes_that_share_a_batch_change_it_as_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    images = heads(8)
    whole = seeded(images, 0.5)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with distributed.WholeBatch():
            torch.testing.assert_close(seeded(images[rank::2], 0.5), whole[rank::2], rtol=0, atol=1e-5)


def test_any_finite_values_stay_finite_in_their_precision() -> None:
    wild = torch.cat([torch.full((4, 1, 8, 8), v) for v in (-50.0, -1.0, 0.0, 50.0)]) + torch.randn(16, 1, 8, 8)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        image = wild.to(dtype, copy=True).requires_grad_()
        changed = DEFAULT(image)
        changed.sum().backward()
        assert changed.dtype == dtype
        assert bool(torch.stack([changed, image.grad]).isfinite().all())  # type: ignore[list-item]
    assert torch.equal(seeded(wild.half()), seeded(wild.half().float()).half())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = seeded(wild)
    assert torch.equal(mixed, seeded(wild))


def test_the_controller_follows_the_sign_at_its_speed() -> None:
    moved = [adapted(0.2, sign, 64, ramp=6400) for sign in (0.9, 0.6, 0.1)]
    assert moved == pytest.approx([0.21, 0.2, 0.19])
    assert adapted(0.2, 0.5, 64, target=0.4) > 0.2 > adapted(0.2, 0.5, 64, target=0.7)
    assert adapted(0.0, 1.0, 49_999, limit=1.0) == pytest.approx(49_999 / 50_000)
    assert [adapted(0.0, 0.0, 64), adapted(0.7999, 1.0, 64), adapted(0.9999, 1.0, 64, limit=1.0)] == [0.0, 0.8, 1.0]
