"""PULSE: directions on a sphere, the Gaussian of mapped w behind them, and the angles between layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import brgm_med
from brgm_med.corruptions import Downsample
from brgm_med.energies import GeodesicCross
from brgm_med.networks.noise import Noise
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.pulse import Directions, on_sphere, pulse_posterior
from brgm_med.solvers import fit_map


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    torch.manual_seed(7)
    return StyleGAN2(z_dim=5, w_dim=6, base_shape=(4, 4), channels=(8, 6), mapping_layers=2).requires_grad_(False)


@dataclass(frozen=True)
class Rectified:
    """w = LReLU(mean + deviation z), plus the condition, whose Gaussian is known."""

    mean: Tensor
    deviation: Tensor
    num_ws: int = 2
    image_shape: tuple[int, int] = (1, 1)

    @property
    def z_dim(self) -> int:
        return len(self.mean)

    @property
    def w_dim(self) -> int:
        return len(self.mean)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return F.leaky_relu(self.mean + self.deviation * z + (0 if c is None else c), 0.2)

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        return ws[:, None]


RECTIFIED = Rectified(torch.tensor([-2.0, 0.0, 1.0, 0.3]), torch.tensor([0.5, 1.0, 2.0, 0.1]))


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Angles.


def test_geodesic_cross_is_a_sum_of_squared_angles_over_pairs() -> None:
    v = draw(2, 5, 3)
    found = GeodesicCross(0.3)(v)
    assert found.shape == (2,)
    for i in range(2):
        total = 0.0
        for a in range(5):
            for b in range(a + 1, 5):
                total += math.acos(float(v[i, a] @ v[i, b] / v[i, a].norm() / v[i, b].norm())) ** 2
        assert float(found[i]) == pytest.approx(0.3 * total)
    assert GeodesicCross().weight == 0.05


def test_geodesic_cross_of_known_angles() -> None:
    lengths = torch.tensor([0.5, 1.0, 30.0], dtype=torch.float64)[None, :, None]
    equal = (draw(1, 1, 6) * lengths).requires_grad_(True)
    energy = GeodesicCross(1.0)(equal)
    assert float(energy.detach()) == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(energy.sum(), equal)
    assert float(gradient.abs().max()) < 1e-9  # 0 is the least that it can be
    right = torch.eye(3)[None] * torch.tensor([1.0, 2.0, 3.0])
    assert float(GeodesicCross(1.0)(right)) == pytest.approx(3 * (math.pi / 2) ** 2)
    opposite = torch.tensor([[[1.0, 0.0], [-2.0, 0.0]]], requires_grad=True)
    energy = GeodesicCross(1.0)(opposite)
    assert math.sqrt(float(energy.detach())) == pytest.approx(math.pi, abs=1.1e-3)
    assert bool(torch.autograd.grad(energy.sum(), opposite)[0].isfinite().all())


# The sphere, and the Gaussian.


def test_the_gaussian_is_that_of_w_before_the_rectifier() -> None:
    found = Directions.of_mapped(RECTIFIED)
    assert found.mean.shape == found.deviation.shape == (1, 1, 4)
    z = torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0))  # the z that are mapped
    before = (RECTIFIED.mean + RECTIFIED.deviation * z).double()
    torch.testing.assert_close(found.mean[0, 0].double(), before.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.deviation[0, 0].double(), before.std(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.mean[0, 0], RECTIFIED.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(found.deviation[0, 0], RECTIFIED.deviation, rtol=0.03, atol=0)


def test_every_condition_has_its_own_gaussian() -> None:
    c = draw(3, 4).float()
    found = Directions.of_mapped(RECTIFIED, c)
    assert found.mean.shape == found.deviation.shape == (3, 1, 4)
    for i in range(3):
        alone = Directions.of_mapped(RECTIFIED, c[i : i + 1])
        assert torch.equal(found.mean[i], alone.mean[0])
        assert torch.equal(found.deviation[i], alone.deviation[0])
    torch.testing.assert_close(found.mean[:, 0] - found.mean[:1, 0], c - c[:1], rtol=0, atol=1e-4)


def test_directions_of_any_length_lie_on_the_sphere(generator: StyleGAN2) -> None:
    g = Directions.of_mapped(generator)
    assert (g.num_ws, g.w_dim, g.z_dim, g.image_shape) == (4, 6, 5, (8, 8))
    v = draw(3, 4, 6).float()
    far = v * torch.tensor([1e-3, 1.0, 50.0, 1e4])[None, :, None]
    torch.testing.assert_close(on_sphere(far).square().sum(2), torch.full((3, 4), 6.0))
    torch.testing.assert_close(on_sphere(on_sphere(far)), on_sphere(v))
    torch.testing.assert_close(g.synthesis(far), g.synthesis(v))
    before = F.leaky_relu(g.ws(far), 5.0)
    torch.testing.assert_close((before - g.mean) / g.deviation, on_sphere(v), rtol=1e-4, atol=1e-4)


def test_z_of_the_spheres_length_is_given_back() -> None:
    g = Directions(RECTIFIED, RECTIFIED.mean[None, None], RECTIFIED.deviation[None, None])
    z = on_sphere(draw(7, 4).float())
    torch.testing.assert_close(g.mapping(z), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(g.ws(g.mapping(z)[:, None])[:, 0], RECTIFIED.mapping(z))


# The posterior.


def test_the_posterior_is_the_published_loss(generator: StyleGAN2) -> None:
    f, v = Downsample(2), draw(3, 4, 6).float()
    measured = draw(3, 1, 4, 4).float()
    posterior = brgm_med.pulse_posterior(generator, f, measured)
    energies = posterior.energies(v)
    assert set(energies) == {"Pixel", "GeodesicCross"}
    w = Directions.of_mapped(generator).ws(v)
    grey, truth = (f(generator.synthesis(w)) + 1) / 2, (measured + 1) / 2
    torch.testing.assert_close(energies["Pixel"], 100 * (grey - truth).square().mean((1, 2, 3)))
    torch.testing.assert_close(energies["GeodesicCross"], GeodesicCross(0.05)(v))


def test_the_search_finds_a_planted_direction_again(generator: StyleGAN2) -> None:
    """That of an image whose layers agree has energy 0, the least there is: from near it, the search comes back."""
    v = draw(2, 1, 6, seed=3).float().expand(-1, 4, -1)
    image = Directions.of_mapped(generator).synthesis(v)
    posterior = pulse_posterior(generator, torch.nn.Identity(), image)
    zero = sum(posterior.energies(v).values(), torch.zeros(2))
    torch.testing.assert_close(zero, torch.zeros(2), rtol=0, atol=1e-8)
    near = on_sphere(on_sphere(v) + 0.2 * draw(2, 4, 6, seed=4).float())
    found = fit_map(posterior, near, steps=150, rate=0.05)
    assert bool((found.history.min(0).values < 1e-3 * found.history[0]).all())
    torch.testing.assert_close(on_sphere(found.ws), on_sphere(v), rtol=0, atol=0.1)
