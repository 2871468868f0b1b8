"""Checkpoints in rosinality's layout: the pictures are those of an independent forward pass in that layout."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.pipelines.steps.import_prior import import_prior
from brgm_med.posterior import w_statistics
from brgm_med.priors import bundle, foreign
from tests.foreign_files import Call

State = dict[str, Tensor]
Z, WIDTHS = 7, (6, 5, 4)  # channels of 4 x 4, 8 x 8 and 16 x 16 pixels
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
KERNEL = torch.outer(TAPS, TAPS) / 64


def generator(colours: int = 3, layers: int = 3) -> State:
    """Random numbers under the names and in the shapes of that layout; mapping weights are stored times 100."""
    state: State = {}
    for i in range(1, layers + 1):
        state |= {f"style.{i}.weight": 100 * torch.randn(Z, Z), f"style.{i}.bias": 30 * torch.randn(Z)}
    state["input.input"] = torch.randn(1, WIDTHS[0], 4, 4)

    def modulated(name: str, inputs: int, outputs: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(1, outputs, inputs, kernel, kernel)
        state[f"{name}.modulation.weight"] = torch.randn(inputs, Z)
        state[f"{name}.modulation.bias"] = 1 + 0.3 * torch.randn(inputs)

    def styled(name: str, inputs: int, outputs: int, up: bool) -> None:
        modulated(f"{name}.conv", inputs, outputs, 3)
        state[f"{name}.noise.weight"] = torch.randn(1)
        state[f"{name}.activate.bias"] = 0.3 * torch.randn(outputs)
        if up:
            state[f"{name}.conv.blur.kernel"] = 4 * KERNEL

    def image(name: str, inputs: int, up: bool) -> None:
        modulated(f"{name}.conv", inputs, colours, 1)
        state[f"{name}.bias"] = 0.3 * torch.randn(1, colours, 1, 1)
        if up:
            state[f"{name}.upsample.kernel"] = 4 * KERNEL

    styled("conv1", WIDTHS[0], WIDTHS[0], False)
    image("to_rgb1", WIDTHS[0], False)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS)):
        styled(f"convs.{2 * i}", inputs, outputs, True)
        styled(f"convs.{2 * i + 1}", outputs, outputs, False)
        image(f"to_rgbs.{i}", outputs, True)
    for i in range(2 * len(WIDTHS) - 1):
        size = 4 << ((i + 1) // 2)
        state[f"noises.noise_{i}"] = torch.randn(1, 1, size, size)
    return state


def rectified(x: Tensor) -> Tensor:
    return math.sqrt(2) * torch.where(x > 0, x, 0.2 * x)


def stuffed(x: Tensor) -> Tensor:
    """A zero behind every sample of [1, C, H, W], along both axes."""
    wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def filtered(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    channels = x.shape[1]
    taps = kernel.flip((0, 1)).expand(channels, 1, 4, 4)
    return F.conv2d(F.pad(x, (before, after, before, after)), taps, groups=channels)


def reference_w(state: State, z: Tensor) -> Tensor:
    """z [N, Z] -> w [N, Z]."""
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    i = 1
    while f"style.{i}.weight" in state:
        w = rectified(w @ (0.01 / math.sqrt(Z) * state[f"style.{i}.weight"]).T + 0.01 * state[f"style.{i}.bias"])
        i += 1
    return w


def reference(state: State, w: Tensor, noise: bool) -> Tensor:
    """The image [1, C, 16, 16] of one w [Z]: every weight is modulated, and demodulated, for that image."""

    def weight_of(name: str, demodulate: bool) -> Tensor:
        weight = state[f"{name}.weight"][0]
        style = state[f"{name}.modulation.weight"] @ w / math.sqrt(Z) + state[f"{name}.modulation.bias"]
        weight = weight * style[None, :, None, None] / math.sqrt(weight[0].numel())
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        return weight

    def styled(x: Tensor, name: str, index: int, up: bool) -> Tensor:
        weight = weight_of(f"{name}.conv", True)
        if up:
            # A transposed convolution scatters every sample times the kernel: a convolution with it, turned for conv2d.
            x = F.conv2d(F.pad(stuffed(x)[:, :, :-1, :-1], (2, 2, 2, 2)), weight.flip((2, 3)))
            x = filtered(x, state[f"{name}.conv.blur.kernel"], 1, 1)
        else:
            x = F.conv2d(x, weight, padding=1)
        if noise:
            x = x + state[f"{name}.noise.weight"] * state[f"noises.noise_{index}"]
        return rectified(x + state[f"{name}.activate.bias"][None, :, None, None])

    def image(x: Tensor, name: str, coarse: Tensor | None) -> Tensor:
        y = F.conv2d(x, weight_of(f"{name}.conv", False)) + state[f"{name}.bias"]
        return y if coarse is None else y + filtered(stuffed(coarse), state[f"{name}.upsample.kernel"], 2, 1)

    x = styled(state["input.input"], "conv1", 0, False)
    picture = image(x, "to_rgb1", None)
    for i in range(len(WIDTHS) - 1):
        x = styled(x, f"convs.{2 * i}", 2 * i + 1, True)
        x = styled(x, f"convs.{2 * i + 1}", 2 * i + 2, False)
        picture = image(x, f"to_rgbs.{i}", picture)
    return picture


def discriminator(colours: int = 3) -> State:
    state: State = {
        "convs.0.0.weight": torch.randn(WIDTHS[-1], colours, 1, 1),
        "convs.0.1.bias": torch.randn(WIDTHS[-1]),
    }
    for i in range(1, len(WIDTHS)):
        inputs, outputs = WIDTHS[-i], WIDTHS[-i - 1]
        state |= {
            f"convs.{i}.conv1.0.weight": torch.randn(inputs, inputs, 3, 3),
            f"convs.{i}.conv1.1.bias": torch.randn(inputs),
            f"convs.{i}.conv2.0.kernel": KERNEL,
            f"convs.{i}.conv2.1.weight": torch.randn(outputs, inputs, 3, 3),
            f"convs.{i}.conv2.2.bias": torch.randn(outputs),
            f"convs.{i}.skip.0.kernel": KERNEL,
            f"convs.{i}.skip.1.weight": torch.randn(outputs, inputs, 1, 1),
        }
    last = WIDTHS[0]
    state |= {"final_conv.0.weight": torch.randn(last, last + 1, 3, 3), "final_conv.1.bias": torch.randn(last)}
    state |= {"final_linear.0.weight": torch.randn(last, 16 * last), "final_linear.0.bias": torch.randn(last)}
    return state | {"final_linear.1.weight": torch.randn(1, last), "final_linear.1.bias": torch.randn(1)}


def reference_logits(state: State, picture: Tensor) -> Tensor:
    """Logits [N, 1] of a batch [N, C, 16, 16] that is one group (N up to 4)."""

    def scaled(name: str) -> Tensor:
        return state[name] / math.sqrt(state[name][0].numel())

    def plus(x: Tensor, name: str) -> Tensor:
        return rectified(x + state[name].reshape(1, -1, *[1] * (x.ndim - 2)))

    x = plus(F.conv2d(picture, scaled("convs.0.0.weight")), "convs.0.1.bias")
    for i in range(1, len(WIDTHS)):
        y = plus(F.conv2d(x, scaled(f"convs.{i}.conv1.0.weight"), padding=1), f"convs.{i}.conv1.1.bias")
        y = filtered(y, state[f"convs.{i}.conv2.0.kernel"], 2, 2)
        y = plus(F.conv2d(y, scaled(f"convs.{i}.conv2.1.weight"), stride=2), f"convs.{i}.conv2.2.bias")
        skip = filtered(x, state[f"convs.{i}.skip.0.kernel"], 1, 1)
        x = (y + F.conv2d(skip, scaled(f"convs.{i}.skip.1.weight"), stride=2)) / math.sqrt(2)
    spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat([x, spread.expand(len(x), 1, 4, 4)], 1)
    x = plus(F.conv2d(x, scaled("final_conv.0.weight"), padding=1), "final_conv.1.bias").flatten(1)
    x = plus(x @ scaled("final_linear.0.weight").T, "final_linear.0.bias")
    return x @ scaled("final_linear.1.weight").T + state["final_linear.1.bias"]


def checkpoint(path: Path, zipped: bool = True, **content: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("colours", [1, 3])
def test_pictures_are_those_of_the_checkpoint(tmp_path: Path, colours: int, zipped: bool) -> None:
    state, critic, average = generator(colours), discriminator(colours), torch.randn(Z)
    path = checkpoint(tmp_path / "net.pt", zipped, g_ema=state, d=critic, latent_avg=average)
    prior = bundle.load(str(import_prior(path, tmp_path / "out")))
    assert prior.image_shape == (16, 16)
    g, z = prior.generator, torch.randn(3, Z)
    w = reference_w(state, z)
    assert relative(g.mapping(z), w) < 1e-4
    assert relative(g.mapping(z, truncation=0.7), average + 0.7 * (w - average)) < 1e-4
    for noise in (False, True):
        expected = torch.cat([reference(state, row, noise) for row in w])
        assert relative(g.synthesis(g.broadcast(w), "const" if noise else "none"), expected) < 1e-4
    assert relative(prior.discriminator(expected), reference_logits(critic, expected)) < 1e-4


def test_a_checkpoint_of_a_training_run(tmp_path: Path) -> None:
    """With optimisers and the settings of the command; without the mean of W, which then is that of mapped z."""
    model = torch.nn.Linear(3, 3)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 3)).sum().backward()
    optimiser.step()
    settings = argparse.Namespace(size=16, lr=2e-3, path="data", device="cuda")
    state = torch.nn.Module().state_dict() | generator()  # with a state dict's attributes
    path = checkpoint(tmp_path / "net.pt", g=state, g_ema=state, g_optim=optimiser.state_dict(), args=settings, ada=0)
    found = foreign.load(path)
    assert found.discriminator is None
    w = w_statistics(found.generator).mean
    torch.testing.assert_close(found.generator.mapping.w_avg, w)
    torch.testing.assert_close(
        w, reference_w(state, torch.randn(20_000, Z)).mean(0), rtol=0, atol=0.05 * float(w.std())
    )


Change = Callable[[State], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "filter": (lambda s: s.update({"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}), "low-pass"),
    "filter of images": (lambda s: s.update({"to_rgbs.0.upsample.kernel": KERNEL}), "low-pass"),
    "short filter": (lambda s: s.update({"to_rgbs.0.upsample.kernel": torch.ones(2, 2)}), "low-pass"),
    "missing style": (lambda s: s.pop("style.1.weight"), "style"),
    "missing weight": (lambda s: s.pop("convs.1.conv.weight"), r"convs\.1\.conv\.weight"),
    "missing noise": (lambda s: s.pop("noises.noise_2"), "noise_2"),
    "missing image": (lambda s: s.pop("to_rgbs.1.bias"), r"convs\.2"),
    "more": (lambda s: s.update({"convs.4.more": torch.zeros(1)}), r"convs\.4\.more"),
    "shape": (lambda s: s.update({"conv1.conv.weight": torch.zeros(6, 6, 3, 3)}), "conv1"),
    "one number": (lambda s: s.update({"conv1.conv.weight": torch.zeros(())}), "conv1"),
    "constant": (lambda s: s.update({"input.input": torch.zeros(2, 6, 4, 4)}), r"input\.input"),
    "numbers": (lambda s: s.update({"conv1.noise.weight": torch.tensor([float("nan")])}), "finite"),
    "kind": (lambda s: s.update({"conv1.noise.weight": torch.tensor([1])}), "floating"),
    "no tensor": (lambda s: s.update({"conv1.noise.weight": 1.0}), "no tensor"),  # type: ignore[dict-item]
    "no names": (lambda s: s.clear(), "style"),
}


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_what_is_not_that_layout_is_refused(tmp_path: Path, kind: str) -> None:
    change, words = CHANGES[kind]
    state = generator()
    change(state)
    with pytest.raises(PriorError, match=words) as caught:
        foreign.load(checkpoint(tmp_path / "net.pt", g_ema=state))
    assert "\n" not in str(caught.value)


def test_a_discriminator_of_another_layout_is_refused(tmp_path: Path) -> None:
    for change, words in (
        (lambda s: s.pop("convs.1.skip.1.weight"), "convs|b16"),
        (lambda s: s.update({"convs.1.skip.0.kernel": 4 * KERNEL}), "low-pass"),
        (lambda s: s.update({"final_linear.1.weight": torch.zeros(2, WIDTHS[0])}), "out"),
    ):
        critic = discriminator()
        change(critic)
        with pytest.raises(PriorError, match=words):
            foreign.load(checkpoint(tmp_path / "net.pt", g_ema=generator(), d=critic))
    with pytest.raises(PriorError, match="no state dict"):
        foreign.load(checkpoint(tmp_path / "net.pt", g_ema=generator(), d=[1]))


def test_a_payload_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = checkpoint(tmp_path / "net.pt", g_ema=generator(), args=Call(eval, f"open({str(canary)!r}, 'w')"))
    with pytest.raises(PriorError, match=r"builtin.*eval"):
        foreign.load(path)
    assert not canary.exists()
