"""The quality of a prior as a prior: how well it infers what was not measured of held-out slices.

How well its latent inputs reach a slice (`measure`) tells something else: a generator that reaches anything says little
about what it was not shown.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from brgm_med.networks.condition import position_code
from brgm_med.networks.discriminator import Encoder
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.posterior import Whitened
from brgm_med.reconstruction import independent_posterior
from brgm_med.solvers import fit_lbfgs
from brgm_med.training.export import encode_with, neighbours, wplus_statistics
from brgm_med.training.sources import Drawn, Source, Sources, unpacked

RANK, ITERATIONS = 512, 25
THICK, THICK_MISFIT = 4, 0.1
"""Rows that are averaged, and the misfit (see `search.Search`) of that measurement."""
HOLE_MISFIT = 0.5


def whitened_at(generator: StyleGAN2, encoder: Encoder, heads: list[Tensor], position: Tensor) -> Whitened:
    """The generator in coordinates that are N(0, 1) at positions [N] in [-1, 1], by the statistics of encoded `heads`,
    each [Y, 1, H, W]."""
    pairs = neighbours(len(heads[0]))
    places = torch.linspace(-1, 1, len(heads[0]))[torch.from_numpy(pairs)]
    latents, maps = encode_with(encoder, heads, pairs.tolist())
    statistics = wplus_statistics(latents, maps, places, generator.c_dim, RANK)
    mean = statistics.mean(position_code(position, generator.c_dim))
    shapes = generator.noise_shapes if maps else {}
    pixels = [c.expand(h * w) for c, (h, w) in zip(statistics.map_correlation, shapes.values(), strict=True)]
    correlation = torch.cat([statistics.correlation, *pixels])
    return Whitened(generator, mean, statistics.basis, statistics.deviation, correlation, shapes)


class _Part(nn.Module):
    """What is measured of images by their sources' own f, and then thick rows, or all around a hole."""

    def __init__(self, drawn: Drawn, hole: Tensor | None) -> None:
        super().__init__()
        self.drawn, self.hole = drawn, hole

    def of(self, seen: Tensor) -> Tensor:
        """The part of slices [N, 1, H, W] as their sources see them."""
        return avg_pool2d(seen, (THICK, 1)) if self.hole is None else seen.where(~self.hole, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self.drawn.seen(x))


def middle_hole(shape: tuple[int, int], pixels: int) -> Tensor:
    """A square of so many pixels in the middle of a slice, [H, W], bool."""
    hole = torch.zeros(shape, dtype=torch.bool)
    top, left = ((n - pixels) // 2 for n in shape)
    hole[top : top + pixels, left : left + pixels] = True
    return hole


def measure_inference(
    generator: StyleGAN2,
    encoder: Encoder,
    training: list[Source],
    validation: Sources,
    *,
    heads: int = 24,
    count: int = 8,
) -> dict[str, float]:
    """PSNR (dB, data range 2) of the MAP of held-out slices from rows averaged over 4 pixels (NAME_thick), and in a
    square hole in their middle (NAME_hole), of every source NAME of whole heads in `training`; `inference` is the mean
    of all. W+ has the statistics of `heads` of these; `count` slices a source. Deterministic."""
    stacks = [stack for source in training for stack in source.stacks]
    chosen = torch.linspace(0, len(stacks) - 1, min(heads, len(stacks))).round().long().tolist()
    known = [unpacked(stacks[h])[0][:, None] for h in chosen]
    numbers: dict[str, float] = {}
    for source in validation.sources:
        if source.name not in [one.name for one in training]:
            continue
        drawn = Sources([source]).spread(count)
        whitened = whitened_at(generator, encoder, known, drawn.position)
        hole = middle_hole(generator.image_shape, generator.image_shape[0] // 8)
        for name, part, misfit in (
            ("thick", _Part(drawn, None), THICK_MISFIT),
            ("hole", _Part(drawn, hole), HOLE_MISFIT),
        ):
            posterior = independent_posterior(whitened, part, part.of(drawn.image), misfit)
            start = torch.zeros(len(drawn.image), 1, whitened.w_dim)
            image = fit_lbfgs(posterior, start, steps=ITERATIONS, curvature=whitened.curvature).image
            error = (drawn.seen(image) - drawn.image).square()
            error = error[..., hole] if name == "hole" else error.flatten(2)
            numbers[f"{source.name}_{name}"] = float((10 * (4 / error.mean((1, 2))).log10()).mean())
    return numbers | {"inference": sum(numbers.values()) / len(numbers)}
