"""The StyleGAN2 that the names and shapes of tensors make. They are believed; what a file says of itself is not."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from brgm_med.networks.discriminator import Discriminator
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.ops import fir_filter
from brgm_med.priors.records import MalformedError

State = dict[str, Tensor]
Arguments = dict[str, Any]


def generator_of(state: State) -> tuple[StyleGAN2, Arguments]:
    """The generator of tensors in our names, and its constructor's arguments."""
    first = [name for name in state if re.fullmatch(r"synthesis\.b\d+\.const", name)]
    if len(first) != 1:
        raise MalformedError("is no StyleGAN2 (it has no learned constant, synthesis.b4.const)")
    _, rows, columns = shape(state, first[0], 3)
    blocks: list[str] = []
    while f"synthesis.b{rows << len(blocks)}.conv1.weight" in state:
        blocks.append(f"synthesis.b{rows << len(blocks)}")
    w_dim = shape(state, f"synthesis.b{rows}.conv1.affine.weight", 2)[1]
    c_dim = shape(state, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in state else 0
    residual = len(blocks) > 1 and f"{blocks[1]}.skip.weight" in state
    if not residual and f"synthesis.b{rows}.torgb.weight" not in state:
        raise MalformedError("has a generator that is neither of architecture skip nor resnet")
    z_dim = shape(state, "mapping.fc0.weight", 2)[1] - (w_dim if c_dim else 0)
    if z_dim < 1:
        raise MalformedError("has a generator without a latent vector z")
    arguments = {
        "z_dim": z_dim,
        "w_dim": w_dim,
        "c_dim": c_dim,
        "base_shape": [rows, columns],
        "channels": [shape(state, f"{block}.conv1.weight", 4)[0] for block in blocks],
        "image_channels": shape(state, f"{blocks[-1]}.torgb.weight", 4)[0],
        "mapping_layers": depth_of(state),
        "architecture": "residual" if residual else "skip",
    }
    return built(StyleGAN2, arguments, state), arguments


def discriminator_of(state: State, generator: Arguments, group: Any) -> tuple[Discriminator, Arguments]:
    """The discriminator of tensors in our names, for the images of a generator, and its constructor's arguments."""
    if type(group) is not int or group < 1:
        raise MalformedError("has a setting that is not supported: mbstd_group_size must be a number")
    rows = generator["base_shape"][0]
    widths = [shape(state, f"b{rows << i}.conv0.weight", 4)[0] for i in range(1, len(generator["channels"]))]
    arguments = {
        "c_dim": shape(state, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in state else 0,
        "base_shape": generator["base_shape"],
        "channels": [shape(state, f"b{rows}.conv.weight", 4)[0], *widths],
        "image_channels": generator["image_channels"],
        "group": group,
        "mapping_layers": depth_of(state),
    }
    return built(Discriminator, arguments, state), arguments


def depth_of(state: State) -> int:
    """Number of layers of the mapping."""
    return sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in state)


def shape(state: State, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there, with so many axes and none empty."""
    if name not in state:
        raise MalformedError(f"lacks {name}, which every StyleGAN2 of this kind has")
    size = tuple(state[name].shape)
    if len(size) != axes or 0 in size:
        raise MalformedError(f"has {name} of shape {list(size)}, with which there is no StyleGAN2")
    return size


def built(kind: type[nn.Module], arguments: Arguments, state: State) -> Any:
    """The network of that kind with exactly these weights, for evaluation. No memory is taken before all shapes fit."""
    try:
        with torch.device("meta"):
            network = kind(**arguments)
    except RuntimeError as error:
        raise MalformedError("has tensors of sizes with which there is no network") from error
    expected = network.state_dict()
    filters = {name: fir_filter() for name in expected if name.endswith("resample_filter")}
    for name, tensor in state.items():
        if name.endswith("resample_filter"):
            if tensor.shape != (4, 4) or not torch.allclose(tensor, fir_filter(), atol=1e-6):
                raise MalformedError("has a setting that is not supported: resample_filter must be [1, 3, 3, 1]")
        elif name not in expected:
            raise MalformedError(f"holds {ascii(name)[:80]}, which no StyleGAN2 of this kind has")
        elif not tensor.isfinite().all():
            raise MalformedError(f"has weights that are no numbers, or not finite ({name})")
    for name, tensor in expected.items():
        if name not in state and name not in filters:
            raise MalformedError(f"lacks {name}, which every StyleGAN2 of this kind has")
        if name not in filters and state[name].shape != tensor.shape:
            raise MalformedError(f"has {name} of shape {list(state[name].shape)} instead of {list(tensor.shape)}")
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("resample_filter")}
    network.load_state_dict(weights | filters, assign=True)
    return network.eval().requires_grad_(False)
