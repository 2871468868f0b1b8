"""The search finds what is to be found, each image on its own; the measures say what they claim to."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from brgm_med.energies import Gaussian, Pixel
from brgm_med.metrics import psnr
from brgm_med.networks.discriminator import DiscriminatorFeatures
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.perceptual import LPIPS
from brgm_med.posterior import Posterior
from brgm_med.solvers import fit_lbfgs, fit_map
from brgm_med.training.measure import all_latents, invert, mean_ws, measure, sample, score, spread
from brgm_med.training.state import TrainState
from brgm_med.weights import CONVOLUTIONS, lpips_heads
from tests import tiny


class Linear:
    """A generator that is a matrix: w [N, 2, 3] -> image [N, 1, 4, 5], as badly conditioned as is asked for."""

    z_dim, num_ws, w_dim, image_shape = 6, 2, 3, (4, 5)

    def __init__(self, smallest: float = 0.05) -> None:
        random = torch.Generator().manual_seed(3)
        left = torch.linalg.qr(torch.randn(20, 6, generator=random)).Q
        right = torch.linalg.qr(torch.randn(6, 6, generator=random)).Q
        self.matrix = left @ torch.diag(torch.logspace(0, math.log10(smallest), 6)) @ right

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z[:, :3]

    def synthesis(self, ws: Tensor, noise: str = "const") -> Tensor:
        return (ws.flatten(1) @ self.matrix.T).reshape(-1, 1, 4, 5)


@pytest.fixture(scope="module")
def state() -> TrainState:
    return tiny.state()


@pytest.fixture(scope="module")
def generator(state: TrainState) -> StyleGAN2:
    return state.average


def slices() -> tuple[Tensor, Tensor]:
    """Fifteen pictures of three heads, and their positions."""
    stacks = torch.from_numpy(tiny.stacks()).float()
    return stacks.flatten(0, 1), torch.linspace(-1, 1, stacks.shape[1]).repeat(len(stacks))


def some_ws(generator: StyleGAN2, count: int, seed: int = 5) -> Tensor:
    return 0.5 * torch.randn(count, generator.num_ws, 5, generator=torch.Generator().manual_seed(seed))


# The search.


def test_a_linear_generator_reaches_the_least_squares_answer() -> None:
    g, images = Linear(), torch.randn(4, 1, 4, 5)
    found = invert(g, images, start=torch.zeros(4, 2, 3), steps=60)
    best = torch.linalg.lstsq(g.matrix, images.flatten(1).T).solution.T.reshape(4, 2, 3)
    torch.testing.assert_close(found.image, g.synthesis(best), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.ws, best, atol=2e-3, rtol=1e-3)


def test_a_gaussian_prior_gives_the_ridge_answer() -> None:
    g, images = Linear(0.3), torch.randn(2, 1, 4, 5)
    prior = Gaussian(torch.zeros(3), torch.tensor(1.0), 0.1)
    found = fit_lbfgs(Posterior(g, nn.Identity(), images, (Pixel(1.0),), (prior,)), torch.zeros(2, 2, 3), steps=40)
    ridge = torch.linalg.solve(g.matrix.T @ g.matrix + 0.1 * torch.eye(6), g.matrix.T @ images.flatten(1).T).T
    torch.testing.assert_close(found.ws.flatten(1), ridge, atol=1e-4, rtol=1e-3)


def test_images_that_the_generator_made_are_found_again(generator: StyleGAN2) -> None:
    with torch.no_grad():
        images = generator.synthesis(some_ws(generator, 3), noise="none")
    start = torch.zeros(3, generator.num_ws, 5)
    found = invert(generator, images, start=start, steps=100)
    before = psnr(generator.synthesis(start, noise="none").detach(), images, 2.0)
    after = psnr(found.image, images, 2.0)
    assert (after > before + 20).all()
    assert (after > 40).all()


def test_it_beats_adam_at_the_same_number_of_evaluations(generator: StyleGAN2) -> None:
    images, _ = slices()
    start = torch.zeros(len(images), generator.num_ws, 5)
    posterior = Posterior(generator, nn.Identity(), images, (Pixel(1.0),), (), noise="none")
    ours = fit_lbfgs(posterior, start, steps=40).history[-1]
    for rate in (0.02, 0.1, 0.3):
        adam = fit_map(posterior, start, steps=40, rate=rate).history.min(0).values
        assert float(ours.sum()) < float(adam.sum())


def test_the_energy_never_rises_and_is_that_of_the_answer(generator: StyleGAN2) -> None:
    images, _ = slices()
    start = some_ws(generator, len(images))
    found = invert(generator, images, start=start, steps=30)
    assert found.history.shape == (30, len(images))
    assert (found.history.diff(dim=0) <= 0).all()
    assert (found.history[-1] < found.history[0]).all()
    energy = (found.image - images).square().flatten(1).sum(1)
    torch.testing.assert_close(energy, found.history[-1])
    torch.testing.assert_close(generator.synthesis(found.ws, noise="none"), found.image)
    first = (generator.synthesis(start, noise="none") - images).square().flatten(1).sum(1)
    torch.testing.assert_close(found.history[0], first)


def test_an_image_is_found_alike_alone_and_in_a_batch() -> None:
    """In float64, as the search amplifies the rounding of differently shaped products."""
    g = Linear()
    g.matrix = g.matrix.double()
    images, start = torch.randn(5, 1, 4, 5).double(), torch.randn(5, 2, 3).double()
    images[1] *= 100  # so that steps and line searches differ
    together = invert(g, images, start=start, steps=12)
    torch.testing.assert_close(invert(g, images, start=start, steps=12, batch=2).ws, together.ws)
    alone = invert(g, images[3:4], start=start[3:4], steps=12)
    torch.testing.assert_close(alone.ws, together.ws[3:4])
    torch.testing.assert_close(alone.history, together.history[:, 3:4])


def test_it_starts_where_it_is_told_and_changes_nothing(generator: StyleGAN2) -> None:
    images, _ = slices()
    start = some_ws(generator, len(images))
    kept, weights = start.clone(), {k: v.clone() for k, v in generator.state_dict().items()}
    one = invert(generator, images, start=start, steps=1)
    assert torch.equal(one.ws, start)
    invert(generator, images, start=start, steps=5)
    assert torch.equal(start, kept)
    assert all(torch.equal(weights[k], v) for k, v in generator.state_dict().items())


def test_an_exact_start_stays() -> None:
    g, ws = Linear(), torch.randn(2, 2, 3)
    found = invert(g, g.synthesis(ws), start=ws, steps=5)
    assert torch.equal(found.ws, ws)
    assert float(found.history.abs().max()) == 0


def with_grain(generator: StyleGAN2) -> StyleGAN2:
    """A copy whose noise maps matter, as training would have it."""
    noisy = copy.deepcopy(generator)
    for block in noisy.noise_shapes:
        getattr(noisy.synthesis, block).conv0.noise_strength.data.fill_(0.5)
    return noisy


def test_w_and_noise_maps_are_one_variable(state: TrainState, generator: StyleGAN2) -> None:
    """Coordinates stand for the encoder's answer, and from there each latent input is searched."""
    images, _ = slices()
    noisy = with_grain(generator)
    with torch.no_grad():
        ws, maps = state.average_encoder(images)
        joint, start = all_latents(noisy, ws, maps)
        assert maps
        assert start.shape == (len(images), 1, ws[0].numel() + sum(m[0].numel() for m in maps.values()))
        torch.testing.assert_close(joint.synthesis(start), noisy.synthesis(ws, maps))
        torch.testing.assert_close(joint.ws(start), ws)
    found = invert(joint, images, start=start, steps=15)
    alone = invert(noisy, images, start=ws, steps=15)
    assert float(found.history[-1].sum()) < float(alone.history[-1].sum())
    for name, m in joint.maps(found.ws).items():
        assert not torch.equal(m, maps[name])


# What is measured, and on what.


def test_slices_are_spread_evenly_over_positions() -> None:
    positions = torch.linspace(-1, 1, 61).repeat(15)
    for count in (5, 16, 24, 61):  # 16 of 915 in the order given would all be about one position
        chosen = positions[spread(positions, count)]
        assert len(chosen.unique()) == count
        torch.testing.assert_close(chosen, torch.linspace(-1, 1, count), atol=0.04, rtol=0)
    assert sorted(spread(positions, 2000).tolist()) == list(range(915))
    assert len((spread(positions, 24) // 61).unique()) > 8  # and over heads


def test_samples_are_of_their_seed_and_position(generator: StyleGAN2) -> None:
    positions = torch.tensor([-1.0, 0.0, 0.0, 1.0])
    before = torch.get_rng_state()
    one = sample(generator, positions, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.shape == (4, 1, 12, 12)
    assert torch.equal(sample(generator, positions, seed=1), one)
    assert not torch.equal(sample(generator, positions, seed=2), one)
    assert not torch.equal(sample(generator, -positions, seed=1)[0], one[0])
    assert torch.equal(sample(generator, -positions, seed=1)[1], one[1])


def test_the_mean_w_is_that_of_mapped_z_at_a_position(generator: StyleGAN2) -> None:
    positions = torch.tensor([-0.5, 0.5])
    found = mean_ws(generator, positions, seed=0, samples=40)
    assert found.shape == (2, generator.num_ws, 5)
    assert torch.equal(found[:, 0], found[:, -1])
    assert not torch.allclose(found[0], found[1])
    plain = StyleGAN2(z_dim=3, w_dim=2, base_shape=(2, 2), channels=(4, 4), mapping_layers=1)
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    expected = plain.mapping(z).mean(0).detach().expand(2, plain.num_ws, 2)
    torch.testing.assert_close(mean_ws(plain, positions, seed=0, samples=40), expected)


def critic(state: TrainState) -> DiscriminatorFeatures:
    return DiscriminatorFeatures(state.discriminator)


def test_measures_of_a_tiny_prior(state: TrainState) -> None:
    images, positions = slices()
    average = with_grain(state.average)
    found = measure(average, state.average_encoder, images, positions, critic(state), steps=20, inverted=4, samples=12)
    names = {"inversion_psnr", "wplus_psnr", "encoded_psnr", "frechet", "kernel", "precision", "recall"}
    assert found.keys() == names  # no LPIPS without LPIPS
    assert found["inversion_psnr"] > found["encoded_psnr"] + 1
    assert all(math.isfinite(v) for v in found.values())
    again = measure(
        average, state.average_encoder, images.half(), positions, critic(state), steps=20, inverted=4, samples=12
    )
    assert again == found  # the pictures were half precision to begin with
    chosen = spread(positions, 4)
    truth = images[chosen]
    with torch.no_grad():
        start, maps = state.average_encoder(truth)
        encoded = average.synthesis(start, maps)
    assert found["encoded_psnr"] == pytest.approx(float(psnr(encoded, truth, 2.0).mean()))
    best = invert(average, truth, start=start, steps=20)
    assert found["wplus_psnr"] == pytest.approx(float((10 * (4 * 144 / best.history[-1]).log10()).mean()), abs=1e-3)
    assert found["inversion_psnr"] > found["wplus_psnr"]  # noise maps add to the reach


def test_without_an_encoder_it_starts_at_the_mean(state: TrainState) -> None:
    images, positions = slices()
    found = measure(state.average, None, images, positions, critic(state), steps=1, inverted=3, samples=8)
    assert "encoded_psnr" not in found
    chosen = spread(positions, 3)
    at_mean = state.average.synthesis(mean_ws(state.average, positions[chosen], seed=0), noise="none").detach()
    assert found["inversion_psnr"] == found["wplus_psnr"]  # and there are no maps to search
    assert found["inversion_psnr"] == pytest.approx(float(psnr(at_mean, images[chosen], 2.0).mean()))


def test_a_prior_is_judged_better_on_its_own_pictures(state: TrainState) -> None:
    """Held-out slices that the generator itself drew: nearer in distribution, better covered, better reached."""
    images, positions = slices()
    own = sample(state.average, positions, seed=77)
    arguments = {"steps": 40, "inverted": 4, "samples": 30}
    native = measure(state.average, None, own, positions, critic(state), **arguments)
    foreign = measure(state.average, None, images, positions, critic(state), **arguments)
    for name in ("inversion_psnr", "precision", "recall"):
        assert native[name] > foreign[name]
    for name in ("frechet", "kernel"):
        assert native[name] < foreign[name]


def test_with_lpips_it_is_in_the_record_and_in_the_score() -> None:
    spreads = {i: math.sqrt(2 / math.prod(shape[1:])) for i, shape in CONVOLUTIONS["alex"].items()}
    weights = {f"features.{i}.weight": torch.randn(shape) * spreads[i] for i, shape in CONVOLUTIONS["alex"].items()}
    weights |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in CONVOLUTIONS["alex"].items()}
    alex = LPIPS("alex", weights, lpips_heads("alex"))
    g = StyleGAN2(z_dim=4, w_dim=4, base_shape=(4, 4), channels=(6, 5, 4, 4), mapping_layers=1)
    images = torch.rand(6, 1, 32, 32) * 2 - 1
    found = measure(g, None, images, torch.linspace(-1, 1, 6), alex, steps=3, inverted=2, samples=5)
    chosen = images[spread(torch.linspace(-1, 1, 6), 2)]
    best = invert(g, chosen, start=mean_ws(g, torch.zeros(2), seed=0), steps=3).image
    expected = float(alex(best.clamp(-1, 1), chosen).mean())
    assert found["inversion_lpips"] == pytest.approx(expected, rel=1e-4)
    assert score(found) == pytest.approx(found["inversion_psnr"] - 10 * math.log10(expected), rel=1e-4)


def test_the_score_prefers_what_is_reached_better() -> None:
    base = {"inversion_psnr": 25.0, "inversion_lpips": 0.1}
    assert score(base) == pytest.approx(35.0)
    assert score(base | {"inversion_psnr": 26.0}) > score(base)
    assert score(base | {"inversion_lpips": 0.05}) == pytest.approx(score(base) + 10 * math.log10(2))
    assert score({"inversion_psnr": 25.0}) == 25.0


def test_too_few_slices_are_refused(state: TrainState) -> None:
    images, positions = slices()
    with pytest.raises(ValueError, match="at least 4 vectors"):
        measure(state.average, None, images[:3], positions[:3], critic(state), steps=1, inverted=1, samples=8)
