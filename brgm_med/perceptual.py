"""Perceptual distances: how far two pictures are apart in the features of a network, per image.

LPIPS is written from Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric",
CVPR 2018, Eq. 1, with the backbones and linear heads of its version 0.1. It stands beside the `lpips` package, which
provides the heads and which tests/test_metrics.py compares it with: the package has its backbones by torchvision's own
download only, and takes pairs of images, where a search compares many images with one whose features stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What the backbones do: (torchvision's index of a convolution, stride, padding), each followed by a ReLU;
# "pool" (maximum); "tap" (a layer that LPIPS compares).
_Step = tuple[int, int, int] | Literal["pool", "tap"]
_STEPS: dict[str, tuple[_Step, ...]] = {
    "alex": (
        *((0, 4, 2), "tap", "pool", (3, 1, 2), "tap", "pool"),
        *((6, 1, 1), "tap", (8, 1, 1), "tap", (10, 1, 1), "tap"),
    ),
    "vgg": (
        *((0, 1, 1), (2, 1, 1), "tap", "pool"),
        *((5, 1, 1), (7, 1, 1), "tap", "pool"),
        *((10, 1, 1), (12, 1, 1), (14, 1, 1), "tap", "pool"),
        *((17, 1, 1), (19, 1, 1), (21, 1, 1), "tap", "pool"),
        *((24, 1, 1), (26, 1, 1), (28, 1, 1), "tap"),
    ),
}
_POOL = {"alex": 3, "vgg": 2}  # the pooling window; its stride is 2
_SMALLEST = {"alex": 31, "vgg": 16}  # pixels: below it a pooling window has nothing left

# ImageNet's mean and standard deviation, for images in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class PerceptualFeatures(Protocol):
    """A feature space with a distance. Both methods are differentiable in the images; nothing is trained."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps, each [N, channels, h, w], of images [N, 1 or 3, H, W] in [-1, 1]."""
        ...

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances [N] between features; a batch of one is compared with every image of the other."""
        ...


def squared_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """sum over layers of the mean over positions of the sum over channels of (a - b)^2, per image: [N].

    In float32 at least: a distance is a small difference.
    """
    return torch.stack([(_full(x) - _full(y)).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]).sum(0)


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def strided_convolution(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """`conv2d` by way of space to depth: each `stride` x `stride` square of pixels becomes one of many channels.

    A large step over few channels is slow in the usual libraries, its derivative above all; the same sums over more
    channels with step 1 are several times faster.
    """
    taps = -(-weight.shape[2] // stride) * stride
    kernel = F.pixel_unshuffle(F.pad(weight, (0, taps - weight.shape[3], 0, taps - weight.shape[2])), stride)
    steps = [(size + 2 * padding - weight.shape[2]) // stride for size in x.shape[2:]]
    bottom, right = (n * stride + taps - padding - size for n, size in zip(steps, x.shape[2:], strict=True))
    y = F.pixel_unshuffle(F.pad(x, (padding, right, padding, bottom)), stride)
    layout = torch.channels_last
    return F.conv2d(y.contiguous(memory_format=layout), kernel.contiguous(memory_format=layout))


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, version 0.1: 0 for equal images, larger is worse.

    d(a, b) = sum_l mean_hw || sqrt(w_l) * (n_l(a) - n_l(b)) ||^2, n_l the layer's features at unit length
    over the channels, w_l >= 0 the linear head. `features` returns sqrt(w_l) * n_l, so those of a fixed image
    can be kept and `distance` is a plain squared distance. Everything is a buffer: nothing here is trainable.

    Args:
        net: "alex", or "vgg" as in the paper (VGG16; about 30 times the work).
        weights: the backbone, as `brgm_med.weights.lpips_features(net)` gives it.
        heads: w_l, as `brgm_med.weights.lpips_heads(net)` gives it.
        size: (height, width) to which images are resized first (bilinear, antialiased); None: as they come.
            LPIPS depends on it, so a reported value should state it.
    """

    def __init__(
        self,
        net: Literal["alex", "vgg"],
        weights: Mapping[str, Tensor],
        heads: Sequence[Tensor],
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.size = size
        for index in (step[0] for step in _STEPS[net] if isinstance(step, tuple)):
            weight = weights[f"features.{index}.weight"].detach().clone(memory_format=torch.channels_last)
            self.register_buffer(f"weight{index}", weight)
            self.register_buffer(f"bias{index}", weights[f"features.{index}.bias"].detach().clone())
        for i, head in enumerate(heads):
            self.register_buffer(f"head{i}", head.detach().sqrt().view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    def at(self, size: tuple[int, int] | None) -> LPIPS:
        """The same network for images of another `size`; the two share their weights."""
        other = copy.copy(self)
        other.size = size
        return other

    def features(self, images: Tensor) -> list[Tensor]:
        """The five layers' sqrt(w_l) * n_l, each [N, channels, h, w], of images [N, 1 or 3, H, W] in [-1, 1].

        Grey images count as three equal channels. Raises ValueError for images too small for the network.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"LPIPS takes images [N, 1 or 3, H, W], not {list(images.shape)}")
        if self.size is not None and images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        if min(images.shape[2:]) < _SMALLEST[self.net]:
            raise ValueError(f"LPIPS ({self.net}) takes images of at least {_SMALLEST[self.net]} pixels a side")
        with torch.autocast(images.device.type, enabled=False):
            x = self._first(_full(images)).relu()  # rounded, it sends a third of the gradient through other maxima
        taps: list[Tensor] = []
        for step in _STEPS[self.net][1:]:
            if step == "pool":
                x = F.max_pool2d(x, _POOL[self.net], stride=2)
            elif step == "tap":
                # The constant changes no other length than 0, where it keeps the gradient finite.
                y = _full(x)
                length = (y.square().sum(1, keepdim=True) + 1e-20).sqrt()
                taps.append(y / (length + 1e-10) * self.get_buffer(f"head{len(taps)}"))
            else:
                index, stride, padding = step
                weight, bias = self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")
                x = F.conv2d(x, weight, bias, stride, padding).relu()
        return taps

    def _first(self, images: Tensor) -> Tensor:
        """The first convolution of the images (v - shift) / scale, which are bordered by zeros.

        It is linear: that of v / scale, a single one for three equal channels, and that of -shift / scale, the same
        for all images.
        """
        first = _STEPS[self.net][0]
        assert isinstance(first, tuple)
        index, stride, padding = first
        weight = self.get_buffer(f"weight{index}") / self.get_buffer("scale")
        constant = (weight * -self.get_buffer("shift")).sum(1, keepdim=True)
        if images.shape[1] == 1:
            weight = weight.sum(1, keepdim=True)
        ones = torch.ones_like(images[:1, :1])
        bias = self.get_buffer(f"bias{index}").view(1, -1, 1, 1)
        offset = strided_convolution(ones, constant, stride, padding) + bias
        return strided_convolution(images, weight, stride, padding) + offset

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """LPIPS [N] between the features of two batches (or of one image and a batch)."""
        return squared_distance(a, b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS [N] between images [N, 1 or 3, H, W] in [-1, 1]."""
        return self.distance(self.features(a), self.features(b))


class SlicesAsPictures:
    """Features of scans that were joined to one vector (`corruptions.Together`): every slice is a picture.

    `shapes` [X, Y, Z] of the scans, their `weights` in the vector, the `axes` that their slices are stacked along, and
    the (H, W) that `features` wants: slices are resampled to that, whatever their spacing and plane.
    """

    def __init__(
        self,
        features: PerceptualFeatures,
        shapes: Sequence[tuple[int, ...]],
        weights: Sequence[float],
        axes: Sequence[int],
        size: tuple[int, int],
    ) -> None:
        self.inner, self.shapes, self.weights, self.axes, self.size = features, shapes, weights, axes, size

    def features(self, images: Tensor) -> list[Tensor]:
        """Features of joined scans [1, M]: maps [slices, channels, h, w]."""
        parts = images[0].split([shape[0] * shape[1] * shape[2] for shape in self.shapes])
        pictures = []
        for part, shape, weight, axis in zip(parts, self.shapes, self.weights, self.axes, strict=True):
            slices = (part / weight).reshape(shape).movedim(axis, 0)[:, None]
            pictures.append(F.interpolate(slices, self.size, mode="bilinear", antialias=True))
        return self.inner.features(torch.cat(pictures))

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """The sum over slices, [1]."""
        return self.inner.distance(a, b).sum().reshape(1)
