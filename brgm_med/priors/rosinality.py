"""Names and conventions of the layout of checkpoints that is known as rosinality's, in ours.

Both scale their weights at run time and keep the modulation's bias of 1 in the bias, and both upsample by a transposed
convolution before the low-pass filter, so weights are the same numbers unturned. What differs: a synthesis weight
[1, O, I, 3, 3] is scaled by 1 / sqrt(9 I) before it is demodulated, where ours is not scaled; noise strengths are of
shape [1], noise maps [1, 1, H, W], image biases [1, C, 1, 1], the constant [1, C, 4, 4]; the filters of upsampling
hold the gain of 4.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from brgm_med.ops import fir_filter
from brgm_med.priors.records import MalformedError

State = dict[str, Tensor]


class _Names:
    """Tensors by their own names, each taken once."""

    def __init__(self, tensors: State) -> None:
        self.left = dict(tensors)

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise MalformedError(f"lacks {name}, which the layout of rosinality has")
        return self.left.pop(name)

    def inner(self, name: str, axes: int, ones: int = 1) -> Tensor:
        """One of so many axes, the first `ones` of which are of size 1 and fall away."""
        tensor = self.take(name)
        if tensor.ndim != axes or tensor.shape[:ones] != (1,) * ones or 0 in tensor.shape:
            raise MalformedError(f"has {name} of shape {list(tensor.shape)}, which the layout of rosinality has not")
        return tensor.reshape(tensor.shape[ones:])

    def finish(self, gains: dict[str, float]) -> None:
        """Refuse what is left, but for the low-pass filter, by the end of its name, with its gain."""
        for name, tensor in self.left.items():
            gain = next((g for ending, g in gains.items() if name.endswith(ending)), None)
            if gain is None:
                raise MalformedError(f"holds {ascii(name)[:80]}, which the layout of rosinality has not")
            if tensor.shape != (4, 4) or not torch.allclose(tensor, gain * fir_filter(), atol=1e-6):
                raise MalformedError("has another low-pass filter than [1, 3, 3, 1]")


def _count(tensors: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in tensors)


def generator(tensors: State) -> State:
    """The generator's tensors in our names, but for the mean of W."""
    names, ours = _Names(tensors), {}

    def pair(theirs: str, name: str) -> None:
        ours[f"{name}.weight"], ours[f"{name}.bias"] = names.take(f"{theirs}.weight"), names.take(f"{theirs}.bias")

    def layer(theirs: str, name: str, index: int) -> None:
        weight = names.inner(f"{theirs}.conv.weight", 5)
        ours[f"{name}.weight"] = weight / math.sqrt(weight[0].numel())
        pair(f"{theirs}.conv.modulation", f"{name}.affine")
        ours[f"{name}.noise_strength"] = names.inner(f"{theirs}.noise.weight", 1)
        ours[f"{name}.noise_const"] = names.inner(f"noises.noise_{index}", 4, ones=2)
        ours[f"{name}.bias"] = names.take(f"{theirs}.activate.bias")

    def image(theirs: str, name: str) -> None:
        ours[f"{name}.weight"] = names.inner(f"{theirs}.conv.weight", 5)
        pair(f"{theirs}.conv.modulation", f"{name}.affine")
        ours[f"{name}.bias"] = names.inner(f"{theirs}.bias", 4).flatten()

    for i in range(_count(tensors, r"style\.\d+\.weight")):
        pair(f"style.{i + 1}", f"mapping.fc{i}")
    if "mapping.fc0.bias" not in ours:
        raise MalformedError("lacks style.1.weight, which the layout of rosinality has")
    ours["synthesis.b4.const"] = names.inner("input.input", 4)
    layer("conv1", "synthesis.b4.conv1", 0)
    image("to_rgb1", "synthesis.b4.torgb")
    for i in range(_count(tensors, r"to_rgbs\.\d+\.bias")):
        block = f"synthesis.b{8 << i}"
        layer(f"convs.{2 * i}", f"{block}.conv0", 2 * i + 1)
        layer(f"convs.{2 * i + 1}", f"{block}.conv1", 2 * i + 2)
        image(f"to_rgbs.{i}", f"{block}.torgb")
    names.finish({".conv.blur.kernel": 4.0, ".upsample.kernel": 4.0})
    return ours


def discriminator(tensors: State) -> State:
    """The discriminator's tensors in our names."""
    names, ours = _Names(tensors), {}
    blocks = _count(tensors, r"convs\.\d+\.skip\.1\.weight")

    def layer(weight: str, bias: str, name: str) -> None:
        ours[f"{name}.weight"], ours[f"{name}.bias"] = names.take(weight), names.take(bias)

    layer("convs.0.0.weight", "convs.0.1.bias", f"b{4 << blocks}.fromrgb")
    for i in range(1, blocks + 1):
        theirs, name = f"convs.{i}", f"b{4 << (blocks + 1 - i)}"
        layer(f"{theirs}.conv1.0.weight", f"{theirs}.conv1.1.bias", f"{name}.conv0")
        layer(f"{theirs}.conv2.1.weight", f"{theirs}.conv2.2.bias", f"{name}.conv1")
        ours[f"{name}.skip.weight"] = names.take(f"{theirs}.skip.1.weight")
    layer("final_conv.0.weight", "final_conv.1.bias", "b4.conv")
    layer("final_linear.0.weight", "final_linear.0.bias", "b4.fc")
    layer("final_linear.1.weight", "final_linear.1.bias", "b4.out")
    names.finish({".conv2.0.kernel": 1.0, ".skip.0.kernel": 1.0})
    return ours
