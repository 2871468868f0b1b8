"""Networks and their ops against slow explicit formulas (for agreement with published numbers see test_parity)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.networks.condition import position_code
from brgm_med.networks.discriminator import Discriminator, DiscriminatorFeatures, Encoder, minibatch_deviation
from brgm_med.networks.layers import (
    Convolution,
    FullyConnected,
    Kernel,
    Scaled,
    SynthesisLayer,
    ToImage,
    channels_last,
    demodulation,
    modulated_convolution,
    unit_second_moment,
)
from brgm_med.networks.noise import join_maps, split_maps
from brgm_med.networks.stylegan2 import StyleGAN2, mix_styles, upsample2
from brgm_med.ops import bias_act, fir_filter, upfirdn2d
from tests.contracts import derivatives

FORMULAS = {
    "linear": (lambda v: v, 1.0),
    "relu": (lambda v: max(v, 0.0), math.sqrt(2)),
    "lrelu": (lambda v: v if v > 0 else 0.2 * v, math.sqrt(2)),
    "tanh": (math.tanh, 1.0),
    "sigmoid": (lambda v: 1 / (1 + math.exp(-v)), 1.0),
    "elu": (lambda v: v if v > 0 else math.expm1(v), 1.0),
    "selu": (
        lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * math.expm1(v)),
        1.0,
    ),
    "softplus": (lambda v: math.log1p(math.exp(v)), 1.0),
    "swish": (lambda v: v / (1 + math.exp(-v)), math.sqrt(2)),
}


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def tiny(**changes: object) -> StyleGAN2:
    sizes: dict = {"z_dim": 6, "w_dim": 5, "base_shape": (3, 3), "channels": (8, 6, 4), "mapping_layers": 2}
    return StyleGAN2(**(sizes | changes))


# Ops.


@pytest.mark.parametrize("act", sorted(FORMULAS))
def test_bias_act_is_its_formula(act: str) -> None:
    x, b = double(2, 3, 4, 5), double(3)
    function, gain = FORMULAS[act]
    for given, clamp in ((None, None), (0.7, 0.5)):
        y = bias_act(x, b, act=act, gain=given, clamp=clamp)
        for n, c, i, j in np.ndindex(*x.shape):
            value = function(float(x[n, c, i, j] + b[c])) * (gain if given is None else given)
            value = value if clamp is None else min(max(value, -clamp), clamp)
            assert float(y[n, c, i, j]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("act", sorted(FORMULAS))
def test_bias_act_has_both_derivatives(act: str) -> None:
    derivatives(lambda x, b: bias_act(x, b, act=act, gain=1.3, clamp=1.1), [double(2, 3, 2), double(3)])


def test_bias_act_keeps_the_type() -> None:
    assert bias_act(torch.ones(1, 2, dtype=torch.bfloat16), torch.ones(2)).dtype == torch.bfloat16
    x = torch.randn(3, 4)
    assert torch.equal(bias_act(x), x)


def slow_upfirdn2d(x: Tensor, taps: Tensor, up: int, down: int, padding: tuple, flip: bool, gain: float) -> Tensor:
    left, right, top, bottom = padding
    n, c, h, w = x.shape
    fh, fw = taps.shape
    height, width = h * up + top + bottom, w * up + left + right

    def sample(n: int, c: int, row: int, column: int) -> Tensor:
        row, column = row - top, column - left
        if row % up or column % up or not (0 <= row < h * up and 0 <= column < w * up):
            return x.new_zeros(())
        return x[n, c, row // up, column // up]

    y = x.new_zeros(n, c, -(-(height - fh + 1) // down), -(-(width - fw + 1) // down))
    for n, c, i, j in np.ndindex(*y.shape):
        for a, b in np.ndindex(fh, fw):
            tap = taps[a, b] if flip else taps[fh - 1 - a, fw - 1 - b]
            y[n, c, i, j] += gain * tap * sample(n, c, i * down + a, j * down + b)
    return y


CASES = [
    (1, 1, (0, 0, 0, 0), False, 1.0),
    (2, 1, (2, 1, 2, 1), False, 4.0),
    (1, 2, (1, 1, 1, 1), True, 1.0),
    (2, 3, (3, 0, 1, 2), False, 0.5),
    (2, 1, (-1, 2, 3, -2), True, 1.0),
]


@pytest.mark.parametrize(("up", "down", "padding", "flip", "gain"), CASES)
def test_upfirdn2d_is_its_formula(up: int, down: int, padding: tuple, flip: bool, gain: float) -> None:
    x, taps = double(1, 2, 5, 4), double(3, 4)
    fast = upfirdn2d(x, taps, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    torch.testing.assert_close(fast, slow_upfirdn2d(x, taps, up, down, padding, flip, gain), rtol=0, atol=1e-12)


def test_upfirdn2d_of_a_separable_filter_is_that_of_the_outer_product() -> None:
    x, taps = double(2, 1, 6, 5), double(3)
    a = upfirdn2d(x, taps, up=2, padding=(1, 2, 2, 1), gain=3.0)
    b = upfirdn2d(x, torch.outer(taps, taps), up=2, padding=(1, 2, 2, 1), gain=3.0)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("up", "down", "padding", "flip", "gain"), CASES)
def test_upfirdn2d_has_both_derivatives(up: int, down: int, padding: tuple, flip: bool, gain: float) -> None:
    x, taps, options = double(1, 2, 4, 3), double(3, 3), {"padding": padding, "flip_filter": flip, "gain": gain}
    derivatives(lambda x: upfirdn2d(x, taps, up=up, down=down, **options), [x])


def test_the_fir_filter_keeps_the_mean_and_upsampling_keeps_constants() -> None:
    taps = fir_filter()
    assert float(taps.sum()) == pytest.approx(1)
    assert torch.equal(taps, taps.T)
    inside = upsample2(torch.full((1, 2, 4, 5), 3.0), taps)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.full_like(inside, 3.0))


# Layers.


@torch.no_grad()
def test_equalised_layers_have_unit_variance_at_the_start() -> None:
    x = torch.randn(64, 256)
    for rate in (1.0, 0.01):
        layer = FullyConnected(256, 128, rate_multiplier=rate)
        assert float(layer(x).var()) == pytest.approx(1, abs=0.1)
        assert float(layer.weight.std()) == pytest.approx(1 / rate, rel=0.05)
    assert float(Convolution(64, 32, 3)(torch.randn(4, 64, 8, 8))[:, :, 1:-1, 1:-1].var()) == pytest.approx(1, abs=0.15)
    torch.testing.assert_close(unit_second_moment(x * 7).square().mean(1), torch.ones(64))


def prepared(weight: Tensor, up: int = 1) -> Kernel:
    return Kernel.of(weight, up, weight.dtype)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(1, 1), (3, 1), (3, 2)])
def test_modulated_convolution_is_a_convolution_with_weights_per_image(demodulate: bool, up: int, kernel: int) -> None:
    n, inputs, outputs, h, w = 3, 2, 3, 3, 4
    x, weight, styles = double(n, inputs, h, w), double(outputs, inputs, kernel, kernel), double(n, inputs)
    taps = fir_filter().double()
    y = modulated_convolution(x, prepared(weight, up), styles, up=up, filter=taps)
    if demodulate:
        y = y * demodulation(prepared(weight).power, styles)[:, :, None, None]

    own = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        torch.testing.assert_close(own.square().sum((2, 3, 4)), torch.ones(n, outputs).double(), rtol=1e-5, atol=0)
    grouped = x.reshape(1, n * inputs, h, w)
    if up == 1:
        expected = F.conv2d(grouped, own.flatten(0, 1), padding=kernel // 2, groups=n)
    else:
        spread = F.conv_transpose2d(grouped, own.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
        expected = slow_upfirdn2d(spread, taps, 1, 1, (1, 1, 1, 1), False, 4.0)
    torch.testing.assert_close(y, expected.reshape(n, outputs, up * h, up * w), rtol=0, atol=1e-10)


def test_upsampling_convolution_is_interpolation_then_convolution_away_from_the_edge() -> None:
    x, weight, styles = double(2, 3, 8, 8), double(4, 3, 3, 3), double(2, 3)
    taps = fir_filter().double()
    y = modulated_convolution(x, prepared(weight, 2), styles, up=2, filter=taps)
    flipped = modulated_convolution(upsample2(x, taps), prepared(weight.flip((2, 3))), styles)
    torch.testing.assert_close(y[:, :, 3:-3, 3:-3], flipped[:, :, 3:-3, 3:-3], rtol=0, atol=1e-10)


def test_modulated_convolution_has_both_derivatives() -> None:
    taps = fir_filter().double()

    def function(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        y = modulated_convolution(x, prepared(weight, 2), styles, up=2, filter=taps)
        return y * demodulation(prepared(weight).power, styles)[:, :, None, None]

    derivatives(function, [double(1, 2, 3, 2), double(2, 2, 3, 3), double(1, 2)])


def same_derivatives(outputs: tuple[Tensor, Tensor], inputs: list[Tensor]) -> None:
    """Two results of the same inputs agree in value, gradient, and the gradient of the gradient."""
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-9)
    probe = torch.randn_like(outputs[0])
    first = [torch.autograd.grad((y * probe).sum(), inputs, create_graph=True) for y in outputs]
    probes = [torch.randn_like(x) for x in inputs]
    scalars = [sum((g * p).sum() for g, p in zip(gradients, probes, strict=True)) for gradients in first]
    second = [torch.autograd.grad(scalar, inputs, allow_unused=True, materialize_grads=True) for scalar in scalars]
    for ours, plain in (first, second):
        for a, b in zip(ours, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("kernel", "down"), [(1, 1), (3, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("act", ["lrelu", "linear"])
def test_convolution_is_filter_convolution_bias_activation_and_gain(kernel: int, down: int, act: str) -> None:
    layer = Convolution(2, 3, kernel, down=down, act=act).double()
    layer.bias.data.normal_()
    x = channels_last(double(2, 2, 7, 10)).requires_grad_()
    taps, pad = fir_filter().double(), kernel // 2 + (down > 1)
    y = F.pad(x, (pad,) * 4)
    if down > 1:
        y = F.conv2d(y, taps.expand(2, 1, 4, 4), groups=2)
    y = F.conv2d(y, layer.weight / math.sqrt(2 * kernel**2), stride=down)
    same_derivatives((layer(x, gain=0.6), bias_act(y, layer.bias, act=act) * 0.6), [x, layer.weight, layer.bias])


@pytest.mark.parametrize("up", [1, 2])
def test_synthesis_layer_is_demodulation_noise_bias_activation_and_gain(up: int) -> None:
    layer = SynthesisLayer(2, 3, 4, (3 * up, 5 * up), up=up).double()
    for parameter in (layer.bias, layer.noise_strength):
        parameter.data.normal_()
    x, factor, w = (
        double(2, 2, 3, 5).requires_grad_(),
        double(2, 2).exp().requires_grad_(),
        double(2, 4).requires_grad_(),
    )
    styles = F.linear(w, layer.affine.weight / 2, layer.affine.bias)
    y = (
        modulated_convolution(
            x * factor[:, :, None, None], prepared(layer.weight, up), styles, up=up, filter=layer.resample_filter
        )
        * demodulation(prepared(layer.weight).power, styles)[:, :, None, None]
    )
    y = bias_act(y + layer.noise_const * layer.noise_strength, layer.bias, act="lrelu") * 0.6
    ours = layer(Scaled(x, factor), w, gain=0.6).product()
    same_derivatives((ours, y), [x, factor, w, layer.weight, layer.bias, layer.noise_strength, layer.affine.weight])


def test_frozen_weights_are_prepared_once_and_again_when_they_change() -> None:
    layer = SynthesisLayer(2, 3, 4, (6, 10), up=2).requires_grad_(False)
    x, w = Scaled(torch.randn(2, 2, 3, 5), torch.ones(2, 2)), torch.randn(2, 4)
    before = layer(x, w).product()
    kernel = layer.kernel(torch.float32)
    assert layer.kernel(torch.float32) is kernel
    assert layer.kernel(torch.bfloat16).taps.dtype == torch.bfloat16
    layer.weight.mul_(2)
    torch.testing.assert_close(layer.kernel(torch.float32).taps, 2 * kernel.taps)
    torch.testing.assert_close(layer(x, w).product(), before)  # demodulation takes the factor out again
    layer.load_state_dict({name: torch.zeros_like(value) for name, value in layer.state_dict().items()})
    assert not layer.kernel(torch.float32).taps.any()
    layer.weight.data = torch.ones_like(layer.weight)
    assert layer.kernel(torch.float32).taps.unique() == 1
    layer.requires_grad_(True)
    assert layer.kernel(torch.float32).taps.requires_grad


def test_image_layer_is_a_modulated_convolution_and_bias() -> None:
    layer = ToImage(4, 3, 5).double()
    layer.bias.data.normal_()
    x, factor, w = (
        double(2, 4, 3, 5).requires_grad_(),
        double(2, 4).exp().requires_grad_(),
        double(2, 5).requires_grad_(),
    )
    plain = modulated_convolution(x * factor[:, :, None, None], prepared(layer.weight), layer.affine(w) / 2)
    ours = layer(Scaled(channels_last(x), factor), w)
    same_derivatives((ours, bias_act(plain, layer.bias)), [x, factor, w, layer.weight, layer.bias])


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_the_same_image_and_convolutions_of_it_stay_so(channels: int) -> None:
    x = torch.randn(2, channels, 6, 8)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride(1) == 1
    assert Convolution(channels, 4, 1)(y).is_contiguous(memory_format=torch.channels_last)


# The generator.


@pytest.mark.parametrize("base", [(3, 3), (5, 6), (4, 4)])
@pytest.mark.parametrize("architecture", ["skip", "residual"])
@pytest.mark.parametrize("colours", [1, 3])
def test_generator_shapes_and_every_w_counts(base: tuple[int, int], architecture: str, colours: int) -> None:
    g = tiny(base_shape=base, image_channels=colours, architecture=architecture)
    assert g.num_ws == 6
    assert g.image_shape == (4 * base[0], 4 * base[1])
    ws = g.broadcast(g.mapping(torch.randn(2, 6)))
    assert ws.shape == (2, 6, 5)
    ws = ws.detach().clone().requires_grad_()
    image = g.synthesis(ws)
    assert image.shape == (2, colours, *g.image_shape)
    (gradient,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws)
    assert bool((gradient.abs().amax(2) > 0).all())

    d = Discriminator(base_shape=base, channels=(8, 6, 4), image_channels=colours)
    assert d.image_shape == g.image_shape
    assert d(image).shape == (2, 1)
    e = Encoder(g.num_ws, g.w_dim, base, (8, 6, 4), colours)
    assert e(image)[0].shape == ws.shape


def test_published_base_shapes_give_published_images() -> None:
    sizes = {"z_dim": 2, "w_dim": 2, "mapping_layers": 1}
    assert StyleGAN2(base_shape=(3, 3), channels=(2,) * 6, **sizes).image_shape == (96, 96)
    assert StyleGAN2(base_shape=(5, 6), channels=(2,) * 6, **sizes).image_shape == (160, 192)


def test_skip_image_is_the_sum_of_upsampled_images() -> None:
    g = tiny().eval()
    ws = torch.randn(2, 6, 5)
    s, x, images = g.synthesis, None, []
    for i, name in enumerate(s.names):
        block = getattr(s, name)
        start = 0 if i == 0 else 2 * i - 1
        x, image = block(x, None, ws[:, start : start + block.convolutions + 1], "none", torch.float32)
        images.append(image)
    total = images[0]
    for image in images[1:]:
        total = upsample2(total, fir_filter()) + image
    torch.testing.assert_close(s(ws, noise="none"), total)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="skip or residual"):
        tiny(architecture="orig")


def test_condition_is_needed_and_heeded() -> None:
    g = tiny(c_dim=3)
    d = Discriminator(c_dim=3, base_shape=(3, 3), channels=(8, 6, 4), mapping_layers=2)
    z, c = torch.randn(2, 6), torch.randn(2, 3)
    with pytest.raises(ValueError, match="conditional"):
        g.mapping(z)
    assert not torch.allclose(g.mapping(z, c), g.mapping(z, -c))
    image = g(z, c)
    with pytest.raises(ValueError, match="conditional"):
        d(image)
    assert d(image, c).shape == (2, 1)
    assert not torch.allclose(d(image, c), d(image, -c))


def test_position_code_is_gaussian_bumps() -> None:
    code = position_code(torch.tensor([-1.0, 0.1, 1.0], dtype=torch.float64), 5)
    for row, place in zip(code, (-1.0, 0.1, 1.0), strict=True):
        for value, centre in zip(row, (-1.0, -0.5, 0.0, 0.5, 1.0), strict=True):
            assert float(value) == pytest.approx(math.exp(-0.5 * ((place - centre) / 0.5) ** 2))


def test_truncation_is_a_step_towards_the_mean() -> None:
    g = tiny()
    g.mapping.w_avg.copy_(torch.randn(5))
    z = torch.randn(4, 6)
    w = g.mapping(z)
    torch.testing.assert_close(g.mapping(z, truncation=0.0), g.mapping.w_avg.expand(4, -1))
    torch.testing.assert_close(g.mapping(z, truncation=0.7), 0.3 * g.mapping.w_avg + 0.7 * w)
    torch.testing.assert_close(g(z, truncation=0.7), g.synthesis(g.broadcast(0.3 * g.mapping.w_avg + 0.7 * w)))
    torch.testing.assert_close(g.mapping(3 * z), w)  # z is normalised


def test_style_mixing_switches_layers_at_the_crossover() -> None:
    first, second = torch.randn(3, 6, 5), torch.randn(3, 6, 5)
    mixed = mix_styles(first, second, torch.tensor([0, 2, 6]))
    assert torch.equal(mixed[0], second[0])
    assert torch.equal(mixed[1], torch.cat([first[1, :2], second[1, 2:]]))
    assert torch.equal(mixed[2], first[2])


def test_noise_modes() -> None:
    g = tiny()
    ws = torch.randn(1, 6, 5).expand(2, -1, -1)
    none = g.synthesis(ws, noise="none")
    assert torch.equal(g.synthesis(ws, noise="const"), none)  # strengths start at 0
    for name, parameter in g.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    assert torch.equal(g.synthesis(ws, noise="none"), none)
    const = g.synthesis(ws)
    assert torch.equal(const, g.synthesis(ws))
    torch.testing.assert_close(const[0], const[1])
    assert not torch.allclose(const, none)
    torch.manual_seed(1)
    drawn = g.synthesis(ws, noise="random")
    assert not torch.allclose(drawn[0], drawn[1])
    torch.manual_seed(1)
    assert torch.equal(g.synthesis(ws, noise="random"), drawn)
    with pytest.raises(ValueError, match="const, random or none"):
        g.synthesis(ws, noise="some")


@pytest.mark.parametrize("architecture", ["skip", "residual"])
@torch.no_grad()
def test_half_precision_is_close(architecture: str) -> None:
    g = tiny(channels=(16, 16, 8), architecture=architecture)
    ws = torch.randn(4, 6, 5)
    exact, half = g.synthesis(ws), g.synthesis(ws, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < float((half - exact).square().mean().sqrt()) < 0.02 * float(exact.std())


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    g = tiny()
    ws = torch.randn(4, 6, 5)
    others = ws.clone()
    others[1:] = torch.randn(3, 6, 5)
    assert torch.equal(g.synthesis(ws)[0], g.synthesis(others)[0])


# The discriminator.


def test_minibatch_deviation_is_its_formula() -> None:
    x = double(6, 2, 3, 2).float()
    y = minibatch_deviation(x, 3)
    assert torch.equal(y[:, :2], x)
    for i in range(6):
        members = [x[j] for j in range(6) if j % 2 == i % 2]  # 2 groups of 3, interleaved
        total = 0.0
        for c, h, w in np.ndindex(2, 3, 2):
            values = np.asarray([float(m[c, h, w]) for m in members])
            total += math.sqrt(values.var() + 1e-8)
        np.testing.assert_allclose(y[i, 2].numpy(), total / 12, rtol=1e-5)
    assert float(minibatch_deviation(x[:1], 4)[0, 2, 0, 0]) == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="does not divide"):
        minibatch_deviation(x[:5], 4)


def test_discriminator_sees_its_groups_and_only_them() -> None:
    d = Discriminator(base_shape=(3, 3), channels=(8, 6), group=2)
    images = torch.randn(4, 1, 6, 6)
    changed = images.clone()
    changed[2] = torch.randn(1, 6, 6)
    moved = (d(images) != d(changed))[:, 0].tolist()
    assert moved == [True, False, True, False]


def test_discriminator_features_are_unit_length_and_their_distance_is_its_formula() -> None:
    found = DiscriminatorFeatures(Discriminator(base_shape=(3, 3), channels=(8, 6, 4)), levels=2)
    a, b = torch.randn(2, 1, 12, 12), torch.randn(2, 1, 12, 12).requires_grad_()
    fa, fb = found.features(a), found.features(b)
    assert [f.shape[1:] for f in fa] == [(6, 6, 6), (8, 3, 3)]
    for f in fa:
        torch.testing.assert_close(f.square().sum(1), torch.ones_like(f[:, 0]), rtol=1e-4, atol=1e-4)
    expected = sum(((x - y) ** 2).sum(1).flatten(1).mean(1) for x, y in zip(fa, fb, strict=True))
    torch.testing.assert_close(found.distance(fa, fb), expected)
    assert torch.equal(found.distance(fa, fa), torch.zeros(2))
    (gradient,) = torch.autograd.grad(found.distance(fa, fb).sum(), b)
    assert float(gradient.abs().max()) > 0


def test_networks_are_monai_targets() -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser(
        {
            "size": [5, 6],
            "network_def": {
                "_target_": "brgm_med.networks.stylegan2.StyleGAN2",
                "z_dim": 6,
                "w_dim": 5,
                "base_shape": "@size",
                "channels": [8, 6, 4],
                "mapping_layers": 2,
            },
            "discriminator_def": {
                "_target_": "brgm_med.networks.discriminator.Discriminator",
                "base_shape": "@size",
                "channels": [8, 6, 4],
            },
        }
    )
    g, d = parser.get_parsed_content("network_def"), parser.get_parsed_content("discriminator_def")
    assert isinstance(g, StyleGAN2)
    assert d(g(torch.randn(2, 6))).shape == (2, 1)


def test_a_noise_map_is_what_its_blocks_first_layer_adds() -> None:
    torch.manual_seed(0)
    g = StyleGAN2(z_dim=6, w_dim=5, base_shape=(3, 4), channels=(8, 6, 4, 4), mapping_layers=2)
    assert g.noise_shapes == {"b6": (6, 8), "b12": (12, 16)}
    ws, h, w = torch.randn(2, g.num_ws, 5), 6, 8
    with torch.no_grad():
        for name in g.noise_shapes:
            getattr(g.synthesis, name).conv0.noise_strength.fill_(0.7)
        maps = split_maps(torch.randn(2, 6 * 8 + 12 * 16), g.noise_shapes)
        torch.testing.assert_close(split_maps(join_maps(maps), g.noise_shapes), maps)
        none, zero = g.synthesis(ws, "none"), {name: torch.zeros_like(m) for name, m in maps.items()}
        torch.testing.assert_close(g.synthesis(ws, zero), none)
        alone = g.synthesis(ws, {"b6": maps["b6"]})
        assert float((alone - none).abs().max()) > 0.01
        torch.testing.assert_close(g.synthesis(ws, zero | {"b6": maps["b6"]}), alone)
        g.synthesis.b12.conv0.noise_strength.zero_()
        g.synthesis.b6.conv0.noise_const.copy_(maps["b6"][0, 0].reshape(h, w))  # the same map for both images
        torch.testing.assert_close(g.synthesis(ws[:1], "const"), g.synthesis(ws[:1], {"b6": maps["b6"][:1]}))


def test_an_encoder_has_no_bottleneck_below_w_plus() -> None:
    torch.manual_seed(0)
    e = Encoder(6, 5, (3, 3), (8, 6, 4))
    with torch.no_grad():
        ws, maps = e(torch.randn(200, 1, 12, 12) * 3)
    assert ws.shape == (200, 6, 5)
    assert {name: m.shape[1:] for name, m in maps.items()} == {"b6": (1, 6, 6)}
    assert int(torch.linalg.matrix_rank(ws.flatten(1) - ws.flatten(1).mean(0))) == 30
