"""A generator in parts is the same generator: values and gradients, with the memory of one part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from brgm_med.chunks import Chunked
from brgm_med.networks.noise import Noise
from brgm_med.networks.stylegan2 import StyleGAN2
from tests.ops_cases import images

N = 5
SIZES = [1, 2, 5, 8]


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    """16 x 16 pixels, with noise that counts."""
    torch.manual_seed(7)
    generator = StyleGAN2(z_dim=4, w_dim=3, base_shape=(4, 4), channels=(8, 6, 4), mapping_layers=2)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.5)
    return generator


@pytest.fixture(scope="module")
def ws(generator: StyleGAN2) -> Tensor:
    return images((N, generator.num_ws, 3), torch.float32, seed=1)


def maps(generator: StyleGAN2) -> dict[str, Tensor]:
    shapes = generator.noise_shapes.items()
    return {name: images((N, 1, *shape), torch.float32, seed=k) for k, (name, shape) in enumerate(shapes)}


def noises(generator: StyleGAN2, kind: str) -> Noise:
    return maps(generator) if kind == "maps" else kind


@pytest.mark.parametrize("kind", ["const", "none", "maps"])
@pytest.mark.parametrize("size", SIZES)
def test_values_are_those_of_one_synthesis(generator: StyleGAN2, ws: Tensor, size: int, kind: str) -> None:
    with torch.no_grad():
        whole = generator.synthesis(ws, noises(generator, kind))
        parts = Chunked(generator, size).synthesis(ws, noises(generator, kind))
    assert parts.shape == (N, 1, 16, 16)
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6 * float(whole.abs().max()))


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_one_synthesis(generator: StyleGAN2, ws: Tensor, size: int) -> None:
    """By w, by the noise maps, and by the generator's own weights; the loss joins images of different parts."""

    def gradients(g: StyleGAN2 | Chunked) -> tuple[Tensor, ...]:
        w = ws.clone().requires_grad_()
        noise = {name: m.requires_grad_() for name, m in maps(generator).items()}
        images = g.synthesis(w, noise)
        loss = (images.square().sum() + (images[1:] * images[:-1]).sum()) / N
        return torch.autograd.grad(loss, [w, *noise.values(), *generator.synthesis.parameters()], allow_unused=True)

    pairs = list(zip(gradients(Chunked(generator, size)), gradients(generator), strict=True))
    assert sum(whole is not None for _, whole in pairs) > 10
    for parts, whole in pairs:
        assert (parts is None) == (whole is None)
        if whole is not None:
            assert float((parts - whole).norm()) <= 1e-5 * float(whole.norm())
    assert all(float(whole.abs().max()) > 0 for _, whole in pairs[: 1 + len(generator.noise_shapes)])


def test_between_the_two_syntheses_only_the_inputs_are_kept(generator: StyleGAN2, ws: Tensor) -> None:
    def numbers_saved(g: StyleGAN2 | Chunked) -> int:
        saved: list[int] = []

        def pack(t: Tensor) -> Tensor:
            saved.append(t.numel())
            return t

        with saved_tensors_hooks(pack, lambda t: t):
            g.synthesis(ws.clone().requires_grad_()).sum()
        return sum(saved)

    assert numbers_saved(Chunked(generator, 1)) < numbers_saved(generator) / 20


def test_it_stands_for_its_generator(generator: StyleGAN2) -> None:
    chunked = Chunked(generator, 2)
    assert (chunked.z_dim, chunked.num_ws, chunked.w_dim) == (4, generator.num_ws, 3)
    assert chunked.image_shape == (16, 16)
    z = images((3, 4), torch.float32)
    assert torch.equal(chunked.mapping(z), generator.mapping(z))


def test_random_noise_is_refused(generator: StyleGAN2, ws: Tensor) -> None:
    with pytest.raises(ValueError, match="random noise"):
        Chunked(generator, 2).synthesis(ws, "random")
