"""The prior that the scan teaches: pairs by the acquisition model, the network, tuning, protection, consistency."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.errors import InputRefusedError, PriorError
from brgm_med.self_prior import Acquisition, SelfPrior, ThickScan, learn, weights
from brgm_med.self_prior.network import SubSliceNetwork, averaged, condition, mirrored
from brgm_med.self_prior.pairs import Strips, detail_loss, thick_of
from brgm_med.self_prior.spectrum import extra_blur
from brgm_med.self_prior.thick_axis import COSINES, ThickAxis, cubic_matrix
from brgm_med.self_prior.tune import smoothing
from brgm_med.transforms.acquire import AcquisitionModel, interpolate, respaced
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.simulate import degrade, thick_slices

ACQUISITIONS: list[tuple[float, float, Profile]] = [(4.0, 4.0, "box"), (3.3, 2.7, "trapezoid"), (5.6, 5.6, "gaussian")]
STEP = 4


@cache
def spheres(size: int = 72, smooth: float = 0.0) -> Tensor:
    """Random spheres, as sharp along every axis: [size, size, size], air 0."""
    random = np.random.default_rng(0)
    index = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1)
    volume = np.full((size,) * 3, 0.4)
    for _ in range(160):
        centre, radius, level = random.uniform(0, size, 3), random.uniform(3, 9), random.uniform(0.3, 1.5)
        depth = radius - np.linalg.norm(index - centre, axis=-1)
        volume += (level - volume) * np.clip(depth + 0.5, 0, 1)
    return torch.from_numpy(volume.astype(np.float32))


@cache
def thick_scan(profile: Profile = "box", noise: float = 0.0) -> Tensor:
    """The spheres as slices of `STEP` pixels along the last axis."""
    axis = ThickAxis.inside(72, STEP, STEP, profile)
    scan = spheres() @ axis.matrix.float().T
    return scan + noise * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))


def learned(scan: Tensor, iterations: int = 60, **options: Any) -> SelfPrior:
    return learned_of(scan, (1.0, 1.0, float(STEP)), 2, iterations=iterations, **options)


def learned_of(
    scan: Tensor,
    spacing: tuple[float, float, float],
    axis: int,
    profile: Profile = "box",
    thickness: float | None = None,
    noise: float = 0.0,
    **options: Any,
) -> SelfPrior:
    acquisition = Acquisition.of(scan.shape, spacing, axis, thickness, profile)
    (prior,) = learn([ThickScan(scan, acquisition, noise)], **options)
    return prior


def error(image: Tensor) -> float:
    inner = (slice(4, -4),) * 3
    return float((image - spheres())[inner].square().mean())


@pytest.mark.parametrize(("step", "thickness", "profile"), ACQUISITIONS)
def test_pairs_are_what_the_acquisition_model_says(step: float, thickness: float, profile: Profile) -> None:
    grid = Grid((5, 6, 50), np.diag([0.8, 0.8, 0.8, 1.0]))
    coarse, model = thick_slices(grid, "S", 0.8 * thickness, 0.8 * max(step - thickness, 0), profile)
    axis = ThickAxis.inside(50, step, thickness, profile)
    image = torch.rand(1, *grid.shape)
    expected = degrade(image, grid, coarse, model)[0].movedim(2, 1)
    assert axis.slices == coarse.shape[2]
    # Pixels beyond the last whole slice belong to no pair: the profile's tail of the last slices ends there.
    inner = axis.slices - 1 - int(profile == "gaussian")
    thin = image[0].movedim(2, 1)[:, : axis.thin]
    pair = thick_of(thin, axis, 0.0, 0.0, torch.Generator())
    torch.testing.assert_close(pair[:, :inner], expected[:, :inner], atol=1e-6, rtol=0)


def test_noise_of_a_pair_is_that_of_the_scan() -> None:
    axis, random = ThickAxis.inside(400, 3.3, 3.3, "box"), torch.Generator().manual_seed(0)
    planes = 0.2 * torch.randn(20, axis.thin, 50, generator=random)
    for own in (0.2, 0.0):
        thick = thick_of(planes * (own > 0), axis, 0.2, own, random)
        assert float(thick.std()) == pytest.approx(0.2, rel=0.01)


@pytest.mark.parametrize(("step", "thickness", "profile"), ACQUISITIONS)
def test_base_is_the_cubic_spline_made_consistent(step: float, thickness: float, profile: Profile) -> None:
    fine = Grid((1, 1, 61), np.eye(4))
    slices = int(61 / step)
    coarse = respaced(fine, (1.0, 1.0, step), (1, 1, slices))
    axis = ThickAxis(61, slices, step, thickness, profile)
    scan = torch.rand(1, 1, 1, slices, dtype=torch.float64)
    positions = (torch.arange(61, dtype=torch.float64) + 0.5) / step
    spline = cubic_matrix(slices, positions) @ scan[0, 0, 0]
    torch.testing.assert_close(spline, interpolate(scan, coarse, fine)[0, 0, 0])
    identity = torch.eye(slices, dtype=torch.float64)
    torch.testing.assert_close(axis.matrix @ axis.base, identity)
    assert float((axis.matrix @ axis.null).abs().max()) < 1e-12
    torch.testing.assert_close(axis.null @ axis.base, axis.null @ cubic_matrix(slices, positions))


@pytest.mark.parametrize("step", [2.0, 3.3, 4.7])
def test_cosines_describe_any_position_in_a_slice(step: float) -> None:
    axis = ThickAxis.inside(60, step, step, "box")
    coefficients = torch.zeros(1, COSINES, axis.slices, 1)
    coefficients[:, 1] = torch.arange(axis.slices)[:, None] + 1.0
    position = (torch.arange(axis.thin, dtype=torch.float64) + 0.5) / step
    index = position.floor().clamp(max=axis.slices - 1)
    expected = ((index + 1) * torch.cos(np.pi * (position - index).clamp(max=1))).float()
    torch.testing.assert_close(axis.expand(coefficients)[0, :, 0], expected, atol=1e-5, rtol=0)


def test_mirrored_coefficients_are_those_of_the_mirrored_image() -> None:
    axis = ThickAxis.inside(60, 2.4, 2.4, "box")
    coefficients = torch.randn(2, COSINES, axis.slices, 3)
    torch.testing.assert_close(axis.expand(mirrored(coefficients)), axis.expand(coefficients).flip(1))


def test_a_prediction_does_not_depend_on_orientation() -> None:
    network, axis = SubSliceNetwork((8, 8, 8, 8)), ThickAxis.inside(40, 4.0, 4.0, "box")
    torch.nn.init.normal_(network.out.weight)
    planes = torch.rand(2, axis.slices, 20)
    upright = axis.expand(averaged(network, planes, condition(axis, 0, 1), torch.float32))
    turned = axis.expand(averaged(network, planes.flip(1, 2), condition(axis, 0, 1), torch.float32))
    torch.testing.assert_close(turned.flip(1, 2), upright)


def test_strips_come_from_where_there_is_signal() -> None:
    planes = torch.zeros(4, 40, 60)
    planes[2, :, 20:40] = 1
    strips = Strips(planes, ThickAxis.inside(36, 3.0, 3.0, "box"), 8)
    drawn = strips.draw(64, torch.Generator().manual_seed(0))
    assert drawn.shape == (64, 36, 8)
    assert float(drawn.mean((1, 2)).min()) > 0.1


def test_noise_of_the_planes_does_not_teach() -> None:
    """The loss' slope at a zero prediction vanishes where planes are nothing but noise."""
    axis, random = ThickAxis.inside(48, 4.0, 4.0, "box"), torch.Generator().manual_seed(0)
    network = SubSliceNetwork((8, 8, 8, 8))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=random)
    slopes = []
    for own in (0.05, 0.0):  # white noise in the planes themselves, or only in the slices
        thin = own * torch.randn(600, axis.thin, 16, generator=random)
        thick = thick_of(thin, axis, 0.05, own, random)
        null = axis.null.float()
        with torch.no_grad():
            prediction = null @ axis.expand(network(thick, condition(axis, 0.05, 1)))
        detail = null @ (thin - axis.base.float() @ thick)
        slopes.append(float((prediction * detail).mean()) / float(prediction.square().mean()))
    assert slopes[0] == pytest.approx(slopes[1], abs=0.02)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_an_isotropic_phantom_is_reconstructed_better_than_by_the_spline(profile: Profile) -> None:
    scan = thick_scan(profile)
    prior = learned(scan, profile=profile)
    result = prior.reconstruct(scan)
    assert result.shape == (72, 72, 72)
    assert error(result) < 0.75 * error(prior.base(scan))
    assert prior.gain == 1.1


def test_a_fresh_network_learns_from_the_scan_alone() -> None:
    scan = thick_scan()
    torch.manual_seed(0)
    prior = learned(scan, 80, network=SubSliceNetwork((16, 16, 16, 16)))
    assert error(prior.reconstruct(scan)) < 0.9 * error(prior.base(scan))


@pytest.mark.parametrize("gain", [0.0, 1.0, 1.7])
def test_detail_changes_nothing_that_was_measured(gain: float) -> None:
    scan = torch.rand(40, 36, 14, generator=torch.Generator().manual_seed(0))
    prior = learned_of(scan, (1.0, 1.25, 4.6), 2, "trapezoid", 4.0, iterations=2)
    result = prior.reconstruct(scan, gain)
    assert result.shape == (40, 45, 65)
    model = AcquisitionModel((1.0, 1.25, 4.0), "trapezoid", 2, True)
    coarse = Grid((40, 36, 14), np.diag([1.0, 1.25, 4.6, 1.0]))
    corruption = model.corruption(respaced(coarse, (1.0, 1.0, 1.0), (40, 45, 65)), coarse)
    torch.testing.assert_close(corruption(result[None].double())[0].float(), scan, atol=1e-5, rtol=0)


def test_a_scan_that_is_smoother_through_plane_is_trusted_less() -> None:
    blur = smoothing(72, 1.6)
    assert blur is not None
    smooth = spheres() @ blur.T
    scan = smooth @ ThickAxis.inside(72, STEP, STEP, "box").matrix.float().T
    prior, sharp = learned(scan, 40), learned(thick_scan(), 1)
    assert prior.extra_blur == pytest.approx(0.16, abs=0.04)
    assert sharp.extra_blur < 0.04
    assert prior.gain < sharp.gain
    inner = (slice(4, -4),) * 3
    left = [float((x - smooth)[inner].square().mean()) for x in (prior.reconstruct(scan), prior.base(scan))]
    assert left[0] < 0.8 * left[1]


def test_noise_is_not_taken_for_detail() -> None:
    scan = thick_scan(noise=0.08)
    prior = learned(scan, noise=0.08)
    assert error(prior.reconstruct(scan)) < error(prior.base(scan))
    assert prior.noise == pytest.approx(0.08 / prior.normalisation.scale)


def test_the_same_seed_gives_the_same_prior() -> None:
    scan, calls = thick_scan(), []
    first, again = (learned(scan, 4, progress=lambda *now: calls.append(now)) for _ in range(2))
    other = learned(scan, 4, seed=1)
    assert torch.equal(first.reconstruct(scan), again.reconstruct(scan))
    assert not torch.equal(first.reconstruct(scan), other.reconstruct(scan))
    assert calls == 2 * [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_any_slice_axis_gives_the_same_image() -> None:
    scan = thick_scan()
    upright = learned(scan, 3)
    turned = learned_of(scan.movedim(2, 0).contiguous(), (4.0, 1.0, 1.0), 0, iterations=3)
    expected = upright.reconstruct(scan).movedim(2, 0)
    torch.testing.assert_close(turned.reconstruct(scan.movedim(2, 0).contiguous()), expected, atol=1e-4, rtol=0)


def test_a_large_scan_is_processed_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = thick_scan()
    prior = learned(scan, 3)
    whole = prior.detail(scan)
    monkeypatch.setattr("brgm_med.self_prior.prior.VOXELS", 72 * 18 * 10)
    torch.testing.assert_close(prior.detail(scan), whole, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [((64, 64, 64), (1.0, 1.0, 1.0), "no thick slices"), ((16, 16, 10), (1.0, 1.0, 4.0), "too small")],
)
def test_a_scan_that_teaches_nothing_is_refused(
    shape: tuple[int, ...], spacing: tuple[float, ...], message: str
) -> None:
    with pytest.raises(InputRefusedError, match=message) as refused:
        Acquisition.of(shape, spacing, 2)
    assert "\n" not in str(refused.value)


def test_a_constant_scan_is_refused() -> None:
    with pytest.raises(InputRefusedError, match="constant"):
        learned_of(torch.ones(64, 64, 16), (1.0, 1.0, 4.0), 2)


@pytest.mark.parametrize("deviation", [0.0, 1.0, 2.0])
def test_blur_through_plane_shows_in_the_spectra(deviation: float) -> None:
    volume = spheres()
    blur = smoothing(72, deviation)
    if blur is not None:
        volume = volume @ blur.T
    axis = ThickAxis.inside(72, 3.0, 3.0, "box")
    planes = (volume @ axis.matrix.float().T).movedim(2, 0)
    assert extra_blur([planes, planes.transpose(1, 2)], 3.0, 3.0, "box") == pytest.approx(
        (deviation / 3) ** 2, abs=0.06
    )


def test_weights_are_small_and_survive_a_round_trip(tmp_path: Path) -> None:
    assert weights.FILE.stat().st_size < 1_000_000
    assert weights.FILE.with_suffix(".json").is_file()
    network = SubSliceNetwork((8, 4, 4, 4))
    weights.save(network, tmp_path / "w.safetensors", {"iterations": 0})
    back = weights.load(tmp_path / "w.safetensors")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    with pytest.raises(PriorError, match="no weights") as refused:
        weights.load(tmp_path / "w.safetensors")
    assert "\n" not in str(refused.value)


def test_learning_leaves_the_shipped_network_alone() -> None:
    before = {name: value.clone() for name, value in weights.pretrained().state_dict().items()}
    learned(thick_scan(), 2)
    assert all(torch.equal(value, before[name]) for name, value in weights.pretrained().state_dict().items())


def test_loss_of_a_perfect_prediction_is_zero() -> None:
    axis = ThickAxis.inside(48, 4.0, 4.0, "box")
    scan = torch.rand(3, axis.slices, 8)
    thin = axis.base.float() @ scan
    network = SubSliceNetwork((8, 8, 8, 8))  # fresh: it predicts nothing
    loss = detail_loss(network, thin, scan, axis, condition(axis, 0.0, 1.0), torch.float32)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_geometry_of_the_reconstruction() -> None:
    acquisition = Acquisition.of((100, 90, 20), (0.8, 1.0, 5.0), 2)
    assert acquisition.pixel == 0.8
    assert acquisition.base(torch.rand(100, 90, 20)).shape == (100, 113, 125)
    planes = acquisition.planes(torch.rand(100, 90, 20))
    assert planes.shape == (20, 100, 113)
    assert [view.shape for view in acquisition.views(planes)] == [(20, 100, 113), (20, 113, 100)]


def test_long_pixels_do_not_teach() -> None:
    acquisition = Acquisition.of((100, 50, 20), (1.0, 2.0, 5.0), 2)
    planes = acquisition.planes(torch.rand(100, 50, 20))
    assert [view.shape for view in acquisition.views(planes)] == [(20, 100, 100)]
    assert torch.equal(acquisition.views(planes)[0], planes)
