"""The methods that ours is compared with do what they are named after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from brgm_med.corruptions import Mask
from brgm_med.errors import PriorError, UsageError
from brgm_med.pipelines.evaluation import principal, supervised, untrained
from brgm_med.pipelines.evaluation.interpolation import (
    cubic,
    interpolation_matrix,
    lanczos,
    nearest,
    sample_positions,
)
from brgm_med.pipelines.evaluation.problems import averages, holes
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.priors.bundle import load

SHAPE = (24, 32)


def setting(**changes: object) -> Setting:
    made = Setting(load(), (1, *SHAPE), (0, 0))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def blocks(count: int = 2) -> Tensor:
    """Pictures of a bright rectangle on a dark ground, whose edges lie within samples."""
    x = torch.full((count, 1, *SHAPE), -1.0)
    for i in range(count):
        x[i, 0, 6 : 15 + i, 9:23] = 0.5
    return x


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * ((a - b) / 2).square().mean().log10())


# Interpolation.


@pytest.mark.parametrize(("kernel", "theirs"), [("nearest", 0), ("cubic", 3), ("lanczos", 1)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_interpolation_is_that_of_pillow(kernel: str, theirs: int, factor: int) -> None:
    y = np.random.default_rng(0).random((9, 11), dtype=np.float32)
    image = np.asarray(Image.fromarray(y).resize((11 * factor, 9 * factor), Image.Resampling(theirs)))
    x = torch.from_numpy(y)[None, None]
    method = {"nearest": nearest, "cubic": cubic, "lanczos": lanczos}[kernel]
    corruption = averages(image.shape, (factor, factor))
    found = method(setting(shape=(1, *image.shape)))(x, corruption)[0, 0].numpy()
    inner = tuple(slice(3 * factor, -3 * factor) for _ in range(2))  # at edges Pillow leaves samples out, and we repeat
    np.testing.assert_allclose(found[inner], image[inner], atol=1e-5)


@pytest.mark.parametrize("kernel", ["nearest", "cubic", "lanczos"])
def test_interpolation_keeps_constants_and_samples(kernel: str) -> None:
    matrix = averages((30, 30), (5, 5)).matrices[1]
    assert matrix is not None
    positions = sample_positions(matrix)
    torch.testing.assert_close(positions, torch.arange(6, dtype=torch.float64) * 5 + 2)
    every = torch.arange(30, dtype=torch.float64)
    weights = interpolation_matrix(positions, every, kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(weights.sum(1), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(weights[positions.long()], torch.eye(6, dtype=torch.float64))


def test_interpolation_of_a_hole_is_refused() -> None:
    with pytest.raises(UsageError, match="hole"):
        cubic(setting())(blocks(), Mask(torch.ones(SHAPE, dtype=torch.bool)))


# Methods that know no images.


def test_total_variation_varies_less_than_interpolation_and_still_fits() -> None:
    def variation(x: Tensor) -> float:
        return float((x.diff(dim=2)[..., :-1].square() + x.diff(dim=3)[:, :, :-1].square()).sqrt().sum())

    f = averages(SHAPE, (4, 4))
    y = f(blocks())
    found = untrained.total_variation(setting())(y, f)
    assert variation(found) < 0.9 * variation(cubic(setting())(y, f))
    assert float((f(found) - y).square().mean().sqrt()) < 0.1


def test_the_deep_image_prior_fits_its_data_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrained, "DIP_STEPS", 60)
    monkeypatch.setattr(untrained, "DIP_CHANNELS", 16)
    monkeypatch.setattr(untrained, "DIP_RATE", 0.02)
    f = averages(SHAPE, (4, 4))
    y = f(blocks(1))
    one, two = (untrained.deep_image_prior(setting())(y, f) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert psnr(f(one), y) > 18
    other = untrained.deep_image_prior(setting(seed=1))(y, f)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("method", ["biharmonic", "telea", "navier_stokes", "total_variation"])
def test_what_fills_holes_keeps_the_rest_and_never_sees_the_hole(method: str) -> None:
    hole = holes(*SHAPE)["centre"]
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 32), indexing="ij")
    truth = (0.5 * x + 0.3 * y).expand(2, 1, -1, -1).contiguous()
    known = Mask(~hole)
    fill = getattr(untrained, method)(setting())
    found = fill(known(truth.where(~hole, torch.tensor(7.0))), known)
    torch.testing.assert_close(found[..., ~hole], truth[..., ~hole], rtol=0, atol=1e-6)
    torch.testing.assert_close(fill(truth.where(~hole, torch.tensor(5.0)), known), found, rtol=0, atol=1e-5)
    assert float((found - truth).abs().max()) < 0.25
    with pytest.raises(UsageError, match="holes") if method != "total_variation" else pytest.raises(RuntimeError):
        fill(truth, averages(SHAPE, (4, 4)))


def test_the_step_of_total_variation_is_that_of_the_corruption() -> None:
    assert untrained.largest_square(averages(SHAPE, (4, 4)), (1, *SHAPE)) == pytest.approx(1 / 16, rel=1e-4)
    assert untrained.largest_square(Mask(~holes(*SHAPE)["disc"]), (1, *SHAPE)) == pytest.approx(1, rel=1e-4)


# Methods that learn.


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    stacks = [blocks(9)[:, :, :, :].roll(shift, 3) for shift in range(6)]
    f = averages(SHAPE, (4, 4))
    for name in ("supervised-sr-4", "again"):
        supervised.train(stacks, f, (4, 4), folder / f"{name}.safetensors", images=400, seed=3)
    principal.fit(stacks, folder / principal.FILE)
    return folder


def test_a_network_learns_and_is_the_same_again(baselines: Path) -> None:
    f = averages(SHAPE, (4, 4))
    found = supervised.supervised(setting(baselines=baselines, trained_for="sr-4"))(f(blocks()), f)
    assert psnr(found, blocks()) > psnr(cubic(setting())(f(blocks()), f), blocks()) + 1
    with (
        safe_open(baselines / "supervised-sr-4.safetensors", "pt") as one,
        safe_open(baselines / "again.safetensors", "pt") as two,
    ):
        for name in one.keys():  # noqa: SIM118
            torch.testing.assert_close(one.get_tensor(name), two.get_tensor(name), rtol=0, atol=0)
        record = json.loads(one.metadata()["record"])
    assert record["images"] == 400
    assert record["slices"] == 54
    assert record["seconds"] > 0


def test_a_network_takes_what_it_was_not_trained_for(baselines: Path) -> None:
    network = supervised.supervised(setting(baselines=baselines, trained_for="sr-4"))
    trained = averages(SHAPE, (4, 4))
    for f in (averages(SHAPE, (3, 3)), averages(SHAPE, (4, 4), "gaussian"), averages(SHAPE, (8, 8)), trained):
        assert network(f(blocks()), f).shape == blocks().shape
    smooth = torch.linspace(-1, 0, 32).expand(1, 1, *SHAPE).contiguous()
    near = averages(SHAPE, (2, 2))
    assert float((network(near(smooth), near) - network(trained(smooth), trained)).abs()[..., 8:-8].max()) < 0.1


def test_an_untrained_network_is_cubic_interpolation() -> None:
    f = averages((26, 32), (4, 4))
    y = f(torch.randn(2, 1, 26, 32, generator=torch.Generator().manual_seed(0)))
    plain = cubic(setting(shape=(1, 26, 32)))(y, f)
    with torch.no_grad():
        torch.testing.assert_close(supervised.enlarged(supervised.EDSR(1, (4, 4)), y, plain), plain)


def test_the_cost_of_training_is_about_alike() -> None:
    assert min(supervised.MOST, 2 * 1 / supervised.STANDARD) == 1 / 8
    assert min(supervised.MOST, 8 * 8 / supervised.STANDARD) == supervised.MOST


def test_principal_components_know_what_they_were_fitted_to(baselines: Path) -> None:
    f = averages(SHAPE, (4, 4))
    method = principal.principal_components(setting(baselines=baselines))
    assert psnr(method(f(blocks()), f), blocks()) > 20
    hole = Mask(~holes(*SHAPE)["square"])
    assert psnr(method(hole(blocks()), hole), blocks()) > 20
    with pytest.raises(UsageError, match="grey"):
        principal.fit([blocks(1).expand(1, 3, -1, -1)], baselines / "colour.safetensors")


def test_a_missing_or_damaged_baseline_is_named(baselines: Path, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"supervised-sr-9\.safetensors: missing"):
        supervised.supervised(setting(baselines=baselines, trained_for="sr-9"))
    with pytest.raises(PriorError, match=r"pca\.safetensors: missing"):
        principal.principal_components(setting(baselines=tmp_path))
    (tmp_path / principal.FILE).write_bytes((baselines / principal.FILE).read_bytes()[:500])
    with pytest.raises(PriorError, match="damaged"):
        principal.principal_components(setting(baselines=tmp_path))


# A published network.


def test_the_published_generator_enlarges_four_times_and_nothing_else() -> None:
    from brgm_med.pipelines.evaluation.esrgan import esrgan, network

    try:
        network()
    except UsageError as error:
        pytest.skip(str(error))
    shape = (64, 96)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 96), indexing="ij")
    truth = (0.4 * torch.sin(2 * x) + 0.3 * y).expand(1, 1, -1, -1).contiguous()
    f = averages(shape, (4, 4))
    one, two = (esrgan(setting(shape=(1, *shape)))(f(truth), f) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert psnr(one, truth) > 30
    with pytest.raises(UsageError, match="4 times"):
        esrgan(setting(shape=(1, *shape)))(averages(shape, (2, 2))(truth), averages(shape, (2, 2)))
