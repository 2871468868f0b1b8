"""Nothing assumes StyleGAN2: MONAI's autoencoders are priors too, as they are."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from monai.networks.nets import AutoencoderKL, VarAutoEncoder
from torch import Tensor, nn

from brgm_med.corruptions import Downsample, Mask
from brgm_med.energies import Gaussian, Pixel
from brgm_med.networks.decoder import DecoderGenerator
from brgm_med.posterior import Posterior, Whitened, brgm_posterior, w_statistics
from brgm_med.solvers import fit_map

SIZE = 16


def discs(count: int, seed: int) -> Tensor:
    """[count, 1, 16, 16]: one disc of random place, radius and brightness, air -1."""
    place = torch.rand(4, count, 1, 1, generator=torch.Generator().manual_seed(seed))
    row, column, radius, bright = 5.5 + 5 * place[0], 5.5 + 5 * place[1], 3 + 2 * place[2], 1.3 + 0.7 * place[3]
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    return (bright * (radius + 0.5 - torch.hypot(y - row, x - column)).clamp(0, 1) - 1)[:, None]


@pytest.fixture(scope="module")
def vae() -> DecoderGenerator:
    """MONAI's variational autoencoder, trained for seconds on discs (pixel noise 0.2, latent variables N(0, 1))."""
    torch.manual_seed(0)
    vae = VarAutoEncoder(2, (1, SIZE, SIZE), 1, 6, (8, 16), (2, 2), norm="BATCH", use_sigmoid=False)
    images, steps = discs(2048, seed=0), 600
    adam = torch.optim.Adam(vae.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (64,))]
        seen, mean, log_variance, _ = vae(batch)
        data = (seen - batch).square().sum((1, 2, 3)) / (2 * 0.2**2)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        adam.zero_grad()
        (data + divergence).mean().backward()
        adam.step()
        schedule.step()
    vae.eval().requires_grad_(False)
    return DecoderGenerator(lambda z: vae.decode_forward(z, use_sigmoid=False), (6,), (SIZE, SIZE))


def fitted(generator: DecoderGenerator, corruption: nn.Module, measured: Tensor) -> Tensor:
    prior = Gaussian(torch.zeros(generator.w_dim), torch.ones(()), 0.5)
    posterior = Posterior(generator, corruption, measured, (Pixel(0.5 / 0.15**2),), (prior,))
    return fit_map(posterior, torch.zeros(len(measured), 1, generator.w_dim), steps=150, rate=0.1).image


def rmse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).mean(1).sqrt()


def test_super_resolution_of_held_out_discs_beats_interpolation(vae: DecoderGenerator) -> None:
    truth, f = discs(16, seed=99), Downsample(4)
    found = fitted(vae, f, f(truth))
    cubic = nn.functional.interpolate(f(truth), scale_factor=4, mode="bicubic", align_corners=False)
    ours, theirs = rmse(found, truth), rmse(cubic, truth)
    assert float(ours.mean()) < 0.8 * float(theirs.mean())
    assert int((ours < theirs).sum()) >= 14


def test_inpainting_of_held_out_discs_beats_the_mean(vae: DecoderGenerator) -> None:
    truth, seen = discs(16, seed=99), torch.ones(SIZE, SIZE, dtype=torch.bool)
    seen[:, SIZE // 2 :] = False
    found = fitted(vae, Mask(seen), Mask(seen)(truth.where(seen, math.nan)))
    mean = discs(2048, seed=0).mean(0).expand_as(truth)
    ours, theirs = (rmse(image[..., ~seen], truth[..., ~seen]) for image in (found, mean))
    assert float(ours.mean()) < 0.8 * float(theirs.mean())
    assert int((ours < theirs).sum()) >= 13


def test_a_spatial_latent_variable_is_searched_and_the_network_is_not_changed() -> None:
    """MONAI's AutoencoderKL, with random weights (no convex problem): the search goes far towards the image."""
    torch.manual_seed(1)
    net = AutoencoderKL(
        2,
        channels=(8, 8),
        num_res_blocks=1,
        attention_levels=(False, False),
        norm_num_groups=4,
        with_encoder_nonlocal_attn=False,  # attention needs einops
        with_decoder_nonlocal_attn=False,
    ).eval()
    before = copy.deepcopy(net.state_dict())
    generator = DecoderGenerator(net.decode, (3, 8, 8), (SIZE, SIZE))
    with torch.no_grad():
        truth = generator.synthesis(generator.mapping(torch.randn(2, generator.z_dim))[:, None])
    posterior = Posterior(generator, nn.Identity(), truth, (Pixel(1.0),), ())
    start = torch.zeros(2, 1, generator.w_dim)
    found = fit_map(posterior, start, steps=100, rate=0.1)
    assert bool((rmse(found.image, truth) < 0.5 * rmse(generator.synthesis(start), truth)).all())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


class Linear(nn.Module):
    """z [N, 2, 3] -> images [N, 1, 4, 5], linear."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 20))

    def forward(self, z: Tensor) -> Tensor:
        assert z.shape[1:] == (2, 3)
        return (z.flatten(1) @ self.matrix).reshape(-1, 1, 4, 5)


def test_the_map_of_a_linear_decoder_is_ridge_regression() -> None:
    """w* = (A A' / s^2 + I)^-1 A y / s^2 for x = A' w and a prior N(0, I)."""
    net, s = Linear(), 0.5
    measured = torch.randn(3, 1, 4, 5)
    generator = DecoderGenerator(net, (2, 3), (4, 5))
    prior = Gaussian(torch.zeros(6), torch.ones(()), 0.5)
    posterior = Posterior(generator, nn.Identity(), measured, (Pixel(0.5 / s**2),), (prior,))
    found = fit_map(posterior, torch.zeros(3, 1, 6), steps=500, rate=0.05).ws[:, 0]
    a = net.matrix.detach()
    expected = torch.linalg.solve(a @ a.T / s**2 + torch.eye(6), a @ measured.flatten(1).T / s**2).T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_its_statistics_are_those_of_a_normal_distribution_and_it_has_nothing_to_be_colinear_with() -> None:
    generator = DecoderGenerator(Linear(), (2, 3), (4, 5))
    assert (generator.num_ws, generator.w_dim, generator.z_dim) == (1, 6, 6)
    statistics = w_statistics(generator, samples=4000)
    torch.testing.assert_close(statistics.mean, torch.zeros(6), rtol=0, atol=0.06)
    assert float(statistics.deviation) == pytest.approx(math.sqrt(6), rel=0.02)
    ws = torch.randn(3, 1, 6)
    energies = brgm_posterior(generator, nn.Identity(), torch.zeros(3, 1, 4, 5), statistics, None).energies(ws)
    assert set(energies) == {"Pixel", "Gaussian", "Colinear"}
    torch.testing.assert_close(energies["Colinear"], torch.zeros(3), rtol=0, atol=1e-5)


def test_it_can_be_whitened() -> None:
    generator = DecoderGenerator(Linear(), (2, 3), (4, 5))
    whitened = Whitened(generator, torch.ones(1, 6), torch.eye(6)[:, :2], torch.tensor([2.0, 3.0]), torch.zeros(2))
    ws = torch.tensor([[[3.0, 4.0, 1, 1, 1, 1]]])
    torch.testing.assert_close(whitened.synthesis(torch.ones(1, 1, 2)), generator.synthesis(ws))


def test_what_a_decoder_has_not_is_refused() -> None:
    net = Linear()
    generator = DecoderGenerator(net, (2, 3), (4, 5))
    z, ws = torch.randn(2, 6), torch.randn(2, 1, 6)
    assert torch.equal(generator.mapping(z), z)
    for noise in ("const", "none"):
        torch.testing.assert_close(generator.synthesis(ws, noise=noise), net(ws.reshape(2, 2, 3)))
    with pytest.raises(ValueError, match="no condition"):
        generator.mapping(z, torch.zeros(1, 2))
    for noise in ("random", {"b8": torch.zeros(2, 1, 8, 8)}):
        with pytest.raises(ValueError, match="no noise"):
            generator.synthesis(ws, noise=noise)
    with pytest.raises(ValueError, match=r"\[N, 1, 6\]"):
        generator.synthesis(torch.randn(2, 2, 3))
    with pytest.raises(ValueError, match="not images of"):
        DecoderGenerator(net, (2, 3), (5, 4)).synthesis(ws)
