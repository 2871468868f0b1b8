"""Single slices on a prior's own grid: consistent, between its two parts, and better than either starts from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import Downsample, Mask
from brgm_med.gaussian import LinearGaussian
from brgm_med.pipelines.evaluation.methods import ALONE, BLEND, reconstructions
from brgm_med.pipelines.evaluation.problems import averages
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.reconstruction import consistent, map_images, reconstruct_slices
from brgm_med.search import SLICES
from brgm_med.training.loop import train_iteration
from tests import tiny
from tests.bundles import export

INDEX = (0, 2, 4)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> PriorBundle:
    torch.manual_seed(0)
    state = tiny.state()
    for _ in range(40):
        train_iteration(state, tiny.RECIPE, tiny.stacks(), None)
    return load(str(export(state, tmp_path_factory.mktemp("priors") / "tiny")))


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.as_tensor(tiny.stacks()[1]).float()[list(INDEX)]


def test_the_measurement_is_given_back_exactly(prior: PriorBundle, truth: Tensor) -> None:
    f = Downsample(3)
    found = reconstruct_slices(prior, INDEX, f, f(truth), search=SLICES.limited_to(5))
    assert found.shape == truth.shape
    torch.testing.assert_close(f(found), f(truth), rtol=0, atol=1e-5)


def test_the_evaluation_runs_the_same_reconstruction(prior: PriorBundle, truth: Tensor) -> None:
    known = torch.ones(12, 12, dtype=torch.bool)
    known[4:8, 3:7] = False
    for f, noise in ((averages((12, 12), (3, 3)), 0.0), (averages((12, 12), (3, 1)), 0.1), (Mask(known), 0.0)):
        setting, y = Setting(prior, (1, 12, 12), INDEX, noise=noise), f(truth)
        results = reconstructions([ALONE], setting, y, f)
        assert torch.equal(results[ALONE].images, reconstruct_slices(prior, INDEX, f, y, deviation=noise))


def test_the_blend_is_three_tenths_of_the_linear_mean(prior: PriorBundle, truth: Tensor) -> None:
    f = Downsample(3)
    y = f(truth)
    generator = consistent(map_images(prior, INDEX, f, y, search=SLICES), f, y)
    linear = consistent(prior.linear.at(INDEX).estimate(f, y, SLICES.misfit), f, y)
    results = reconstructions([BLEND], Setting(prior, (1, 12, 12), INDEX), y, f)
    torch.testing.assert_close(results[BLEND].images, 0.7 * generator + 0.3 * linear, rtol=0, atol=1e-5)


def test_the_map_fits_the_measurement_better_than_its_start(prior: PriorBundle, truth: Tensor) -> None:
    f = Downsample(2)
    start, found = (map_images(prior, INDEX, f, f(truth), search=SLICES.limited_to(n)) for n in (1, 60))
    assert float((f(found) - f(truth)).square().mean()) < 0.99 * float((f(start) - f(truth)).square().mean())
    # Every slice is sought on its own.
    alone = map_images(prior, INDEX[1:2], f, f(truth[1:2]), search=SLICES.limited_to(60))
    torch.testing.assert_close(found[1:2], alone, rtol=0, atol=1e-4)


def test_the_stored_linear_prior_is_that_of_the_training_slices(prior: PriorBundle) -> None:
    fitted = LinearGaussian.fit([torch.as_tensor(s) for s in tiny.stacks()], 768)
    torch.testing.assert_close(prior.linear.mean, fitted.mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(prior.linear.deviation, fitted.deviation, rtol=1e-2, atol=1e-4)
    x = torch.randn(2, 1, 12, 12)
    size = float(fitted.covariance(x).abs().max())
    torch.testing.assert_close(prior.linear.covariance(x), fitted.covariance(x), rtol=0, atol=0.02 * size)
