"""StyleGAN2's generator (Karras et al. 2020, arXiv 1912.04958) for images of any base shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brgm_med.networks.layers import Convolution, FullyConnected, Scaled, SynthesisLayer, ToImage, unit_second_moment
from brgm_med.networks.noise import Noise, map_shapes
from brgm_med.ops import fir_filter, upfirdn2d


def upsample2(x: Tensor, filter: Tensor) -> Tensor:
    """Image of twice the size: [N, C, H, W] -> [N, C, 2 H, 2 W], low-pass filtered."""
    return upfirdn2d(x, filter, up=2, padding=(2, 1, 2, 1), gain=4.0)


def _plain(x: Tensor) -> Scaled:
    return Scaled(x, torch.ones(x.shape[:2], device=x.device))


class Mapping(nn.Module):
    """z [N, z_dim] (unit normal) and optional condition c [N, c_dim] -> w [N, w_dim].

    With `z_dim` 0 only the condition is mapped (the discriminator's use).
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, layers: int = 8) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.layers = z_dim, c_dim, layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim else 0)
        for i in range(layers):
            setattr(
                self, f"fc{i}", FullyConnected(width if i == 0 else w_dim, w_dim, act="lrelu", rate_multiplier=0.01)
            )
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(unit_second_moment(z))
        if self.c_dim:
            if c is None:
                raise ValueError(f"this network is conditional: give c of shape [N, {self.c_dim}]")
            parts.append(unit_second_moment(self.embed(c)))
        w = torch.cat(parts, 1)
        for i in range(self.layers):
            w = getattr(self, f"fc{i}")(w)
        return w if truncation == 1.0 else self.w_avg + truncation * (w - self.w_avg)


class SynthesisBlock(nn.Module):
    """One resolution: the first holds the learned constant, each later one doubles the size."""

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        shape: tuple[int, int],
        image_channels: int,
        *,
        architecture: str,
        last: bool,
    ) -> None:
        super().__init__()
        self.residual = architecture == "residual"
        self.first = inputs == 0
        self.register_buffer("resample_filter", fir_filter())
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, *shape))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, shape, up=2)
            if self.residual:
                self.skip = Convolution(inputs, outputs, 1, bias=False)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, shape)
        self.convolutions = 1 if self.first else 2
        self.to_image = last or not self.residual
        if self.to_image:
            self.torgb = ToImage(outputs, image_channels, w_dim)

    def forward(
        self, x: Scaled | None, image: Tensor | None, ws: Tensor, noise: str | Tensor, dtype: torch.dtype
    ) -> tuple[Scaled, Tensor | None]:
        w = iter(ws.unbind(1))
        first, second = (noise, "none") if isinstance(noise, Tensor) else (noise, noise)
        if self.first:
            const = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
            x = self.conv1(_plain(const), next(w), second)
        elif self.residual:
            assert x is not None
            before = x.product()
            y = upsample2(self.skip(before, gain=math.sqrt(0.5)), self.resample_filter)
            x = self.conv1(self.conv0(_plain(before), next(w), first), next(w), second, gain=math.sqrt(0.5))
            x = _plain(x.product() + y)
        else:
            assert x is not None
            x = self.conv1(self.conv0(x, next(w), first), next(w), second)
        if self.to_image:
            y = self.torgb(x, next(w)).float()
            image = y if image is None else y + upsample2(image, self.resample_filter)
        return x, image


class Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] (W+) -> image [N, image_channels, H, W], about [-1, 1]. See `StyleGAN2`."""

    def __init__(
        self, w_dim: int, base_shape: tuple[int, int], channels: Sequence[int], image_channels: int, architecture: str
    ) -> None:
        super().__init__()
        if architecture not in ("skip", "residual"):
            raise ValueError(f"architecture is skip or residual, not {architecture!r}")
        self.names: list[str] = []
        self.num_ws = 2 * len(channels)
        for level, outputs in enumerate(channels):
            shape = (base_shape[0] << level, base_shape[1] << level)
            name = f"b{shape[0]}"
            self.names.append(name)
            inputs, last = channels[level - 1] if level else 0, level == len(channels) - 1
            block = SynthesisBlock(inputs, outputs, w_dim, shape, image_channels, architecture=architecture, last=last)
            setattr(self, name, block)

    def forward(self, ws: Tensor, noise: Noise = "const", dtype: torch.dtype = torch.float32) -> Tensor:
        x: Scaled | None = None
        image: Tensor | None = None
        start = 0
        for name in self.names:
            block: SynthesisBlock = getattr(self, name)
            # A block's image layer shares its w with the next block's first convolution.
            own = noise if isinstance(noise, str) else noise.get(name, "none")
            x, image = block(x, image, ws[:, start : start + block.convolutions + 1], own, dtype)
            start += block.convolutions
        assert image is not None
        return image


class StyleGAN2(nn.Module):
    """The generator G: mapping z (and condition c) -> W, and synthesis W+ -> image.

    Args:
        z_dim, w_dim: sizes of the latent vectors. c_dim: size of the condition (0: none).
        base_shape: (rows, columns) of the learned constant; each further entry of `channels` doubles it, so
            (5, 6) with five entries gives 80 x 96.
        channels: feature channels at each resolution, coarsest first.
        image_channels: 1 for grey, 3 for RGB.
        mapping_layers: depth of the mapping network.
        architecture: "skip" (images summed over resolutions) or "residual" (Fig. 7 of arXiv 1912.04958).
    """

    def __init__(
        self,
        z_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        base_shape: Sequence[int] = (4, 4),
        channels: Sequence[int] = (512, 512, 512, 512, 256, 128, 64),
        image_channels: int = 1,
        mapping_layers: int = 8,
        architecture: str = "skip",
    ) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.c_dim = z_dim, w_dim, c_dim
        self.image_channels = image_channels
        base = (int(base_shape[0]), int(base_shape[1]))
        scale = 2 ** (len(channels) - 1)
        self.image_shape = (base[0] * scale, base[1] * scale)
        self.mapping = Mapping(z_dim, c_dim, w_dim, mapping_layers)
        self.synthesis = Synthesis(w_dim, base, channels, image_channels, architecture)
        self.num_ws = self.synthesis.num_ws
        self.noise_shapes = map_shapes(base, len(channels))

    def broadcast(self, w: Tensor) -> Tensor:
        """The same w for every layer: [N, w_dim] -> W+ [N, num_ws, w_dim]."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def forward(self, z: Tensor, c: Tensor | None = None, truncation: float = 1.0, noise: str = "const") -> Tensor:
        """z [N, z_dim], c [N, c_dim] -> image [N, image_channels, H, W], about [-1, 1]."""
        return self.synthesis(self.broadcast(self.mapping(z, c, truncation)), noise)


def mix_styles(first: Tensor, second: Tensor, crossover: Tensor) -> Tensor:
    """Style mixing: layers from `crossover` [N] on take `second`; both W+ [N, num_ws, w_dim]."""
    layer = torch.arange(first.shape[1], device=first.device)
    return torch.where((layer[None] < crossover[:, None])[..., None], first, second)
