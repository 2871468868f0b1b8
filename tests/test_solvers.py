"""The quasi-Newton search: closed forms are reached, images do not mix, and the best that was seen is returned."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from brgm_med.corruptions import Downsample
from brgm_med.energies import Gaussian, GaussMarkov, Pixel
from brgm_med.networks.noise import Noise
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.posterior import Posterior, Whitened
from brgm_med.solvers import fit_lbfgs
from tests import tiny


@dataclasses.dataclass(frozen=True)
class Linear:
    """x = M w, in float64: columns of very different lengths."""

    matrix: Tensor
    num_ws: int = 1
    z_dim: int = 6
    w_dim: int = 6
    image_shape: tuple[int, int] = (4, 5)

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return z

    def synthesis(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        return (ws[:, 0] @ self.matrix.T).reshape(-1, 1, 4, 5)


def linear(*, coupled: bool = False) -> tuple[Posterior, Tensor]:
    """A quadratic posterior of 4 images, and its minimum [4, 1, 6] in closed form."""
    random = torch.Generator().manual_seed(3)
    matrix = torch.randn(20, 6, generator=random).double() * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    y = torch.randn(4, 1, 4, 5, generator=random).double()
    rho = torch.tensor([0.9, 0.5, 0.0, 0.9, 0.5, 0.0]).double()
    prior = GaussMarkov(rho) if coupled else Gaussian(torch.zeros(6).double(), torch.ones(()).double(), 0.5)
    lag = (torch.arange(4)[:, None] - torch.arange(4)).abs().double()
    precision = torch.zeros(24, 24).double()
    for k in range(6):
        precision[k::6, k::6] = torch.linalg.inv(rho[k] ** lag) if coupled else torch.eye(4).double()
    whole = torch.block_diag(*[matrix] * 4)
    best = torch.linalg.solve(whole.T @ whole + precision, whole.T @ y.flatten())
    return Posterior(Linear(matrix), nn.Identity(), y, (Pixel(0.5),), (prior,), coupled=coupled), best.reshape(4, 1, 6)


def energy(posterior: Posterior, ws: Tensor) -> Tensor:
    return torch.stack(list(posterior.energies(ws).values())).sum(0)


@pytest.mark.parametrize("coupled", [False, True])
def test_a_quadratic_is_minimised_in_as_many_steps_as_it_has_dimensions_and_some(coupled: bool) -> None:
    posterior, best = linear(coupled=coupled)
    found = fit_lbfgs(posterior, torch.zeros(4, 1, 6).double(), steps=120 if coupled else 25, memory=40)
    torch.testing.assert_close(found.ws, best, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.image, posterior.image(best), rtol=0, atol=1e-4)


def test_the_true_curvature_is_the_quicker_way() -> None:
    posterior, best = linear()
    assert isinstance(posterior.generator, Linear)
    curvature = posterior.generator.matrix.square().sum(0) + 1
    start = torch.zeros(4, 1, 6).double()
    knowing, plain = (fit_lbfgs(posterior, start, steps=7, curvature=c).history[-1] for c in (curvature, None))
    least = energy(posterior, best)
    assert bool((knowing - least < 0.1 * (plain - least)).all())


def test_no_image_depends_on_its_batch_and_nothing_is_drawn() -> None:
    posterior, _ = linear()
    start = torch.zeros(4, 1, 6).double()
    together = fit_lbfgs(posterior, start, steps=15, tolerance=1e-3)
    again = fit_lbfgs(posterior, start, steps=15, tolerance=1e-3)
    assert torch.equal(together.ws, again.ws)
    wild = posterior.measured.clone()
    wild[[0, 1, 3]] *= 100  # other steps, other line searches, another end
    mixed = fit_lbfgs(dataclasses.replace(posterior, measured=wild), start, steps=15, tolerance=1e-3)
    assert torch.equal(mixed.ws[2], together.ws[2])
    alone = fit_lbfgs(dataclasses.replace(posterior, measured=wild[2:3]), start[2:3], steps=15, tolerance=1e-3)
    torch.testing.assert_close(alone.ws[0], together.ws[2])


@pytest.mark.parametrize("coupled", [False, True])
def test_the_energy_never_rises_and_is_that_of_the_answer(coupled: bool) -> None:
    posterior, _ = linear(coupled=coupled)
    seen: list[Tensor] = []

    def callback(step: int, energies: dict[str, Tensor]) -> None:
        assert step == len(seen)
        seen.append(torch.stack(list(energies.values())).sum(0))

    found = fit_lbfgs(posterior, torch.ones(4, 1, 6).double(), steps=12, callback=callback)
    assert found.history.shape == (12, 4)
    total = found.history.sum(1) if coupled else found.history
    assert bool((total.diff(dim=0) <= 0).all())
    torch.testing.assert_close(found.history[-1], energy(posterior, found.ws))
    assert torch.equal(found.history[0], seen[0])
    tried = torch.stack(seen)
    least = tried.sum(1).min() if coupled else tried.min(0).values
    torch.testing.assert_close(total[-1], least)


def test_a_settled_search_stops() -> None:
    posterior, best = linear()
    assert len(fit_lbfgs(posterior, best, steps=50, tolerance=1e-3).history) == 4
    stopped = fit_lbfgs(posterior, torch.zeros(4, 1, 6).double(), steps=50, tolerance=1e-3)
    assert len(stopped.history) < 30
    least = energy(posterior, best)
    assert bool((stopped.history[-1] - least <= 1e-2 * least).all())
    assert len(fit_lbfgs(posterior, best, steps=50).history) == 50
    assert fit_lbfgs(posterior, best, steps=0).history.shape == (0, 4)
    assert torch.equal(fit_lbfgs(posterior, best, steps=1).ws, best)


class Rough(nn.Module):
    """A measurement whose gradient is off by about one percent, always alike, as that of low precision is."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        if x.requires_grad:
            x.register_hook(lambda g: g * (1 + 0.01 * torch.randn(g.shape, generator=torch.Generator().manual_seed(1))))
        return x


def test_a_percent_of_noise_in_the_gradient_is_borne() -> None:
    posterior, best = linear()
    found = fit_lbfgs(dataclasses.replace(posterior, corruption=Rough()), torch.zeros(4, 1, 6).double(), steps=30)
    least = energy(posterior, best)
    assert bool((found.history[-1] - least < 0.01 * least).all())


@pytest.mark.parametrize("corruption", [nn.Identity(), Downsample(2)])
def test_a_known_w_is_found_again(corruption: nn.Module) -> None:
    torch.manual_seed(4)
    generator = tiny.state().average.eval().requires_grad_(False)
    assert isinstance(generator, StyleGAN2)
    size = generator.num_ws * generator.w_dim
    basis = torch.linalg.qr(torch.randn(size, 6)).Q
    deviation = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4, 0.3])
    whitened = Whitened(generator, torch.zeros(1, size), basis, deviation, torch.zeros(6))
    true = torch.randn(3, 1, 6)
    image = whitened.synthesis(true)
    normal = Gaussian(torch.zeros(6), torch.ones(()), 0.5)
    posterior = Posterior(whitened, corruption, corruption(image), (Pixel(0.5e6),), (normal,), noise="none")
    found = fit_lbfgs(posterior, torch.zeros(3, 1, 6), steps=60, curvature=whitened.curvature)
    assert float((found.ws - true).abs().max()) < 0.05
    torch.testing.assert_close(found.image, image, rtol=0, atol=5e-3)
