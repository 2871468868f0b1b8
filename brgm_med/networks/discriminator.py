"""StyleGAN2's residual discriminator, and the encoder into W+ that shares its trunk."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.networks.layers import Convolution, FullyConnected, channels_last
from brgm_med.networks.noise import map_shapes
from brgm_med.networks.stylegan2 import Mapping
from brgm_med.perceptual import squared_distance


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append one channel: the mean over features and pixels of the standard deviation within groups.

    x [N, C, H, W] -> [N, C + 1, H, W]; N must be divisible by min(group, N). Karras et al. 2018, section 3.
    """
    n, c, h, w = x.shape
    size = min(group, n)
    if n % size:
        raise ValueError(f"a batch of {n} does not divide into groups of {size}")
    y = x.float().reshape(size, n // size, c, h, w)
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    y = y.repeat(size)[:, None, None, None].expand(-1, 1, h, w)
    return torch.cat([x, y.to(x.dtype)], 1)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size: [N, I, H, W] -> [N, O, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int, image_channels: int = 0) -> None:
        super().__init__()
        if image_channels:
            self.fromrgb = Convolution(image_channels, inputs, 1, act="lrelu")
        self.first = bool(image_channels)
        self.conv0 = Convolution(inputs, inputs, 3, act="lrelu")
        self.conv1 = Convolution(inputs, outputs, 3, act="lrelu", down=2)
        self.skip = Convolution(inputs, outputs, 1, down=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.fromrgb(x)
        y = self.skip(x, gain=math.sqrt(0.5))
        return y.add_(self.conv1(self.conv0(x), gain=math.sqrt(0.5)))


class Epilogue(nn.Module):
    """Head at the base shape: minibatch deviation, convolution, and two fully connected layers."""

    def __init__(self, channels: int, base_shape: tuple[int, int], outputs: int, group: int | None) -> None:
        super().__init__()
        self.group = group
        self.conv = Convolution(channels + (group is not None), channels, 3, act="lrelu")
        self.fc = FullyConnected(channels * base_shape[0] * base_shape[1], channels, act="lrelu")
        self.out = FullyConnected(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.group is not None:
            x = minibatch_deviation(x, self.group)
        return self.out(self.fc(self.conv(x).flatten(1)))


class _Trunk(nn.Module):
    """Blocks from the image down to the base shape, finest first, named by their rows."""

    def __init__(self, base_shape: Sequence[int], channels: Sequence[int], image_channels: int) -> None:
        super().__init__()
        self.base_shape = base = (int(base_shape[0]), int(base_shape[1]))
        self.image_channels = image_channels
        self.image_shape = (base[0] << (len(channels) - 1), base[1] << (len(channels) - 1))
        self.names = []
        for level in range(len(channels) - 1, 0, -1):
            name = f"b{base[0] << level}"
            first = image_channels if level == len(channels) - 1 else 0
            setattr(self, name, DiscriminatorBlock(channels[level], channels[level - 1], first))
            self.names.append(name)

    def features(self, image: Tensor, levels: int | None = None) -> list[Tensor]:
        """Activations after each of the first `levels` blocks (all when None), finest first."""
        x = channels_last(image)
        activations = []
        for name in self.names[:levels]:
            x = getattr(self, name)(x)
            activations.append(x)
        return activations


class Discriminator(_Trunk):
    """The critic D: image [N, C, H, W] in about [-1, 1] (and condition c [N, c_dim]) -> logits [N, 1].

    `base_shape`, `channels` as in `StyleGAN2`, coarsest first; `group` images share a minibatch deviation.
    With a condition the output is a projection (Miyato & Koyama 2018, arXiv 1802.05637).
    """

    def __init__(
        self,
        c_dim: int = 0,
        base_shape: Sequence[int] = (4, 4),
        channels: Sequence[int] = (512, 512, 512, 512, 256, 128, 64),
        image_channels: int = 1,
        group: int = 4,
        mapping_layers: int = 8,
    ) -> None:
        width = channels[0] if c_dim else 1
        super().__init__(base_shape, channels, image_channels)
        self.epilogue = f"b{self.base_shape[0]}"
        setattr(self, self.epilogue, Epilogue(channels[0], self.base_shape, width, group))
        self.c_dim = c_dim
        if c_dim:
            self.mapping = Mapping(0, c_dim, width, mapping_layers)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        y = getattr(self, self.epilogue)(self.features(image)[-1])
        if self.c_dim:
            y = (y * self.mapping(None, c)).sum(1, keepdim=True) / math.sqrt(y.shape[1])
        return y


class Encoder(_Trunk):
    """Image [N, C, H, W] -> W+ [N, num_ws, w_dim], and noise maps: amortised inversion, with which a generator learns
    to reach every image.

    At the base shape every layer's w is a linear function of its own 24 channels, so that no bottleneck is narrower
    than W+ itself. The map of a block is a convolution of the features of its resolution; `log_deviation` holds, for
    each map, the logarithm of the deviation with which its pixels are known.
    """

    WIDTH = 24

    def __init__(
        self, num_ws: int, w_dim: int, base_shape: Sequence[int], channels: Sequence[int], image_channels: int = 1
    ) -> None:
        super().__init__(base_shape, channels, image_channels)
        self.num_ws, self.w_dim = num_ws, w_dim
        self.conv = Convolution(channels[0], channels[0], 3, act="lrelu")
        self.split = Convolution(channels[0], num_ws * self.WIDTH, 1, act="lrelu")
        inputs = self.WIDTH * self.base_shape[0] * self.base_shape[1]
        # A tenth of the usual size: w starts near 0, where the generator is well behaved.
        self.weight = nn.Parameter(0.1 * torch.randn(num_ws, inputs, w_dim))
        self.bias = nn.Parameter(torch.zeros(num_ws, 1, w_dim))
        self.weight_gain = 1.0 / math.sqrt(inputs)
        self.noise_shapes = map_shapes(self.base_shape, len(channels))
        for level, name in enumerate(self.noise_shapes, 1):
            setattr(self, f"map_{name}", Convolution(channels[level], 1, 3))
        self.log_deviation = nn.Parameter(torch.zeros(len(self.noise_shapes)))

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """W+ [N, num_ws, w_dim] and the means of the noise maps [N, 1, h, w], coarsest first."""
        features = self.features(image)
        x = self.split(self.conv(features[-1])).reshape(len(image), self.num_ws, -1).transpose(0, 1)
        ws = torch.bmm(x, (self.weight * self.weight_gain).to(x.dtype)) + self.bias.to(x.dtype)
        maps = {n: getattr(self, f"map_{n}")(features[-1 - i]) for i, n in enumerate(self.noise_shapes, 1)}
        return ws.transpose(0, 1), maps


class DiscriminatorFeatures:
    """A prior's own perceptual distance: features of its discriminator (after Pan et al. 2020, arXiv 2003.13659).

    The activations after the first `levels` blocks (1/2, 1/4, ... of the image's size, which must be the
    network's own), each scaled to unit length over channels; the distance is the mean over positions of the
    squared difference, summed over levels. Satisfies `perceptual.PerceptualFeatures`.
    """

    def __init__(self, discriminator: Discriminator, levels: int = 3) -> None:
        self.discriminator, self.levels = discriminator, levels

    def features(self, images: Tensor) -> list[Tensor]:
        activations = self.discriminator.features(images, self.levels)
        return [x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt() for x in activations]

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return squared_distance(a, b)
