"""Fig. 3 step by step: each step is the one before with one thing changed, and every method gives an image back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from brgm_med.corruptions import Downsample, Mask, SliceProfile
from brgm_med.corruptions.profile import profile_matrix
from brgm_med.energies import Perceptual, Uncorrelated
from brgm_med.errors import UsageError
from brgm_med.networks.condition import position_code
from brgm_med.networks.noise import join_maps, unit_maps
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation import projections
from brgm_med.pipelines.evaluation.projections import ablation, conditions, projection, pulse
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.posterior import Posterior, WStatistics, brgm_posterior
from brgm_med.priors.bundle import load
from brgm_med.projection import OneW, wander
from brgm_med.reconstruction import mapped_statistics
from brgm_med.solvers import fit_map
from brgm_med.weights import lpips_heads
from tests import tiny
from tests.bundles import export
from tests.perceptual import random_weights

INDEX = (0, 2, 4)
METHODS: dict[str, Callable[[Setting], Method]] = {"pulse": pulse} | {step: ablation(step) for step in "abcdef"}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    torch.manual_seed(0)
    bundle = load(str(export(tiny.state(), tmp_path_factory.mktemp("priors") / "tiny")))
    alex = LPIPS("alex", random_weights("alex"), lpips_heads("alex"))
    return Setting(bundle, (1, 12, 12), INDEX, features=alex)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.as_tensor(tiny.stacks()[1]).float()[list(INDEX)]


def statistics_of(setting: Setting) -> WStatistics:
    return mapped_statistics(setting.bundle, setting.index, len(setting.index))


def problem(step: str, setting: Setting, corruption: nn.Module, measured: Tensor) -> tuple[Posterior, Tensor]:
    features = projections.features_of(setting, step)
    return projection(step, setting, statistics_of(setting), features, corruption, measured)


def total(energies: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(energies.values())).sum(0).detach()


# The steps.


def test_the_last_step_is_the_papers_posterior(setting: Setting, truth: Tensor) -> None:
    f = Downsample(2)
    posterior, start = problem("f", setting, f, f(truth))
    statistics, features = statistics_of(setting), projections.features_of(setting, "f")
    paper = brgm_posterior(setting.bundle.generator, f, f(truth), statistics, features, half_range=127.5)
    paper = dataclasses.replace(paper, noise="none")
    ws = start + 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    found, expected = posterior.energies(ws), paper.energies(ws)
    assert found.keys() == expected.keys() == {"Perceptual", "Pixel", "Gaussian", "Colinear"}
    for name in found:
        assert torch.equal(found[name], expected[name])
    grey = 127.5 * (f(setting.bundle.generator.synthesis(ws, noise="none")) - f(truth))
    torch.testing.assert_close(found["Pixel"], 0.001 * grey.square().sum((1, 2, 3)))


def test_each_step_adds_the_term_that_it_says(setting: Setting, truth: Tensor) -> None:
    f = Mask(torch.arange(12) < 8)
    steps = {step: problem(step, setting, f, f(truth)) for step in "cdef"}
    ws = steps["c"][1] + 0.1 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    energies = {step: posterior.energies(ws) for step, (posterior, _) in steps.items()}
    assert list(energies["c"]) == ["Perceptual"]
    for before, after, term in (("c", "d", "Pixel"), ("d", "e", "Gaussian"), ("e", "f", "Colinear")):
        assert set(energies[after]) - set(energies[before]) == {term}
        assert all(torch.equal(energies[after][name], value) for name, value in energies[before].items())
        assert bool((energies[after][term] > 0).all())
    assert {p.noise for p, _ in steps.values()} == {"none"}
    assert all(torch.equal(start, steps["c"][1]) for _, start in steps.values())


def test_one_w_for_all_layers_is_that_w_in_every_layer(setting: Setting, truth: Tensor) -> None:
    f = Downsample(2)
    (b, start_b), (c, start_c) = (problem(step, setting, f, f(truth)) for step in "bc")
    assert start_b.shape == (3, 1, 5)
    assert torch.equal(start_b.expand(-1, 6, -1), start_c)
    w = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(1))
    assert b.energies(w).keys() == {"Perceptual"}
    assert torch.equal(b.energies(w)["Perceptual"], c.energies(w.expand(-1, 6, -1))["Perceptual"])


def test_the_first_step_searches_the_noise_maps_too(setting: Setting, truth: Tensor) -> None:
    generator = setting.bundle.generator
    for name in generator.noise_shapes:
        getattr(generator.synthesis, name).conv0.noise_strength.fill_(0.5)
    a, start = problem("a", setting, nn.Identity(), truth)
    assert start.shape == (3, 1, 5 + 36)
    energies = a.energies(start)
    assert set(energies) == {"Perceptual", "Uncorrelated"}
    assert isinstance(a.generator, OneW)
    maps = a.generator.maps(start)
    assert list(maps) == ["b6"]
    image = generator.synthesis(start[:, :, :5].expand(-1, 6, -1), noise=maps)
    assert torch.equal(a.image(start), image)
    (likelihood,) = a.likelihood
    assert torch.equal(energies["Perceptual"], likelihood(image, truth))
    moved = start.clone()
    moved[:, :, 5:] = 3 * moved[:, :, 5:] - 7  # maps enter at zero mean and unit variance
    torch.testing.assert_close(a.image(moved), image, rtol=0, atol=1e-4)
    found = fit_map(a, start, steps=10, rate=0.1)
    assert not torch.equal(found.ws[:, :, 5:], start[:, :, 5:])
    assert bool((found.history[-1] < found.history[0]).all())


def test_more_freedom_fits_better(setting: Setting) -> None:
    """From step b's answer step c goes down, as W+ holds W; what is planted in W+ it finds, and b cannot."""
    generator = setting.bundle.generator
    _, mean = problem("c", setting, nn.Identity(), torch.zeros(3, 1, 12, 12))
    planted = mean + 0.5 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(2))
    image = generator.synthesis(planted, noise="none")
    (b, start), (c, _) = (problem(step, setting, nn.Identity(), image) for step in "bc")
    one = fit_map(b, start, steps=40, rate=0.1)
    many = fit_map(c, one.ws.expand(-1, 6, -1), steps=40, rate=0.05)
    torch.testing.assert_close(many.history[0], one.history.min(0).values)
    assert bool((many.history.min(0).values < 0.5 * one.history.min(0).values).all())
    assert bool(((many.image - image).square().mean((1, 2, 3)) < (one.image - image).square().mean((1, 2, 3))).all())


# Conditions and features.


def test_every_image_is_asked_at_its_own_position(setting: Setting) -> None:
    code = position_code(torch.linspace(-1, 1, 5)[list(INDEX)], 4)
    found = conditions(setting)
    assert found is not None
    assert torch.equal(found, code)
    statistics = statistics_of(setting)
    assert statistics.mean.shape == (3, 1, 5)
    assert statistics.deviation.shape == (3, 1, 1)
    for i in range(3):
        expected = setting.bundle.w_statistics(code[i : i + 1])
        assert torch.equal(statistics.mean[i, 0], expected.mean)
        assert torch.equal(statistics.deviation[i, 0, 0], expected.deviation)
    assert not torch.allclose(statistics.mean[0], statistics.mean[1])


def test_the_measurement_is_compared_at_a_multiple_of_the_clean_size(setting: Setting, truth: Tensor) -> None:
    features = projections.features_of(setting, "c")
    assert features.size == (72, 72)  # 12 x 12 six times, the first past 64
    assert projections.features_of(dataclasses.replace(setting, shape=(1, 80, 96)), "c").size == (80, 96)
    assert setting.features is not None
    assert setting.features.size is None  # the setting's own is as it was
    built = LPIPS("alex", random_weights("alex"), lpips_heads("alex"), (72, 72))
    y, other = Downsample(4)(truth), Downsample(4)(-truth)
    assert torch.equal(features(y, other), built(y, other))
    assert features.get_buffer("weight0").data_ptr() == setting.features.get_buffer("weight0").data_ptr()


def test_without_features_a_step_is_refused_in_one_line(setting: Setting) -> None:
    bare = dataclasses.replace(setting, features=None)
    for step in "abcdef":
        with pytest.raises(UsageError, match=f"step {step} .*BRGM_MED_LPIPS_WEIGHTS") as caught:
            ablation(step)(bare)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="a, b, c, d, e, f"):
        ablation("g")


# The methods.


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_deterministic_and_treat_every_image_alone(
    name: str, setting: Setting, truth: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "STEPS", 3)
    monkeypatch.setattr(projections, "PULSE_STEPS", 3)
    thick = profile_matrix(12, 1.0, 4, 3.0, 3.0)
    for corruption in (Downsample(3), Mask(torch.arange(12) < 8), SliceProfile([None, thick, None])):
        y = corruption(truth)
        found = METHODS[name](setting)(y, corruption)
        assert found.shape == truth.shape
        assert bool(found.isfinite().all())
        assert not found.requires_grad
    torch.manual_seed(99)
    assert torch.equal(METHODS[name](setting)(y, corruption), found)
    alone = METHODS[name](dataclasses.replace(setting, index=INDEX[1:2]))(y[1:2], corruption)
    torch.testing.assert_close(alone, found[1:2], rtol=0, atol=1e-3)
    other = METHODS[name](dataclasses.replace(setting, seed=1))(y, corruption)
    assert not torch.equal(other, found)


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_a_prior_without_condition(
    name: str, setting: Setting, truth: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "STEPS", 2)
    monkeypatch.setattr(projections, "PULSE_STEPS", 2)
    torch.manual_seed(0)
    bundle = dataclasses.replace(setting.bundle)
    arguments = dataclasses.replace(tiny.ARCHITECTURE, c_dim=0).generator_arguments()
    generator = StyleGAN2(**arguments).eval().requires_grad_(False)
    monkeypatch.setitem(bundle.__dict__, "generator", generator)
    plain = dataclasses.replace(setting, bundle=bundle)
    assert conditions(plain) is None
    y = Downsample(3)(truth)
    assert METHODS[name](plain)(y, Downsample(3)).shape == truth.shape
    with pytest.raises(ValueError, match="2 images were measured, and positions given of 3"):
        METHODS[name](plain)(y[:2], Downsample(3))


# What the projection of StyleGAN2 brings.


def test_uncorrelated_is_its_formula() -> None:
    shapes = {"b16": (16, 20), "b9": (9, 8)}
    random = torch.Generator().manual_seed(1)
    maps = {name: torch.randn(2, 1, *shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
    ws = torch.cat([torch.randn(2, 1, 3), join_maps(maps)[:, None]], 2)
    found = Uncorrelated(shapes, 2.0)(ws)
    expected = torch.zeros(2, dtype=torch.float64)
    halved = unit_maps(maps)["b16"].reshape(2, 1, 8, 2, 10, 2).sum((3, 5)) / 2
    for m in (*unit_maps(maps).values(), halved):  # both sides of 16 x 20 are at least 8 when halved, once
        height, width = m.shape[2:]
        for i in range(2):
            n = m[i, 0]
            across = sum(float(n[r, k] * n[r, k - 1]) for r in range(height) for k in range(width))
            down = sum(float(n[r, k] * n[r - 1, k]) for r in range(height) for k in range(width))
            expected[i] += 2 * ((across / n.numel()) ** 2 + (down / n.numel()) ** 2)
    torch.testing.assert_close(found, expected)


def test_unit_maps_have_zero_mean_and_unit_variance() -> None:
    n = unit_maps({"b8": 3 + 5 * torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(1))})["b8"]
    torch.testing.assert_close(n.mean((2, 3)), torch.zeros(2, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(n.square().mean((2, 3)), torch.ones(2, 1))
    board = torch.ones(8, 8)
    board[::2, ::2] = board[1::2, 1::2] = -1
    assert float(Uncorrelated({"b8": (8, 8)}, 1.0)(board.reshape(1, 1, 64))) == pytest.approx(2)


def test_wandering_dies_out_and_leaves_the_maps_alone() -> None:
    statistics = WStatistics(torch.zeros(2, 1, 400), torch.tensor([2.0, 6.0])[:, None, None])
    steps = list(wander(statistics, (3, 410), 100, seed=1))
    assert len(steps) == 100
    for i, step in enumerate(steps):
        assert step.shape == (2, 3, 410)
        assert not step[:, :, 400:].any()
        expected = 0.05 * 2 * max(0.0, 1 - i / 75) ** 2
        assert float(step[0, :, :400].std()) == pytest.approx(expected, rel=0.1)
        torch.testing.assert_close(step[1], 3 * step[0])
    assert math.isclose(float(steps[75].abs().sum()), 0.0)
    assert not torch.equal(steps[0], next(wander(statistics, (3, 410), 100, seed=2)))


def test_a_search_that_wanders_returns_what_it_tried(setting: Setting, truth: Tensor) -> None:
    posterior, start = problem("d", setting, nn.Identity(), truth)
    offsets = [torch.full_like(start, 0.3), torch.zeros_like(start)]
    found = fit_map(posterior, start, steps=1, wander=offsets)
    torch.testing.assert_close(found.ws, start + 0.3)
    torch.testing.assert_close(found.history[0], total(posterior.energies(start + 0.3)))
    longer = fit_map(posterior, start, steps=12, rate=0.1, wander=offsets)
    torch.testing.assert_close(total(posterior.energies(longer.ws)), longer.history.min(0).values, rtol=1e-4, atol=0)
    assert torch.equal(fit_map(posterior, start, steps=5).ws, fit_map(posterior, start, steps=5, wander=[]).ws)
    assert isinstance(posterior.likelihood[0], Perceptual)
