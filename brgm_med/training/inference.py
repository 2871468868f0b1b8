"""The quality of a prior as a prior: how well it infers what was not measured of held-out slices.

How well its latent inputs reach a slice (`measure`) tells something else: a generator that reaches anything says little
about what it was not shown.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brgm_med.corruptions import Mask
from brgm_med.networks.discriminator import Encoder
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.priors.bundle import whiten
from brgm_med.reconstruction import independent_posterior
from brgm_med.solvers import fit_lbfgs
from brgm_med.training.export import head_statistics
from brgm_med.training.measure import Seen
from brgm_med.training.sources import Source, Sources, unpacked

RANK, ITERATIONS = 512, 25
THICK, THICK_MISFIT = 4, 0.1
"""Rows that are averaged, and the misfit (see `search.Search`) of that measurement."""
HOLE_MISFIT = 0.5


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
    statistics = head_statistics(encoder, known, generator.c_dim, RANK)
    hole = middle_hole(generator.image_shape, generator.image_shape[0] // 8)
    parts: tuple[tuple[str, nn.Module, float], ...] = (
        ("thick", nn.AvgPool2d((THICK, 1)), THICK_MISFIT),
        ("hole", Mask(~hole), HOLE_MISFIT),
    )
    numbers: dict[str, float] = {}
    for source in validation.sources:
        if source.name not in [one.name for one in training]:
            continue
        drawn = Sources([source]).spread(count)
        whitened = whiten(generator, statistics, drawn.position)
        for name, part, misfit in parts:
            corruption = nn.Sequential(Seen(drawn.seen), part)
            posterior = independent_posterior(whitened, corruption, part(drawn.image), misfit)
            start = torch.zeros(len(drawn.image), 1, whitened.w_dim)
            image = fit_lbfgs(posterior, start, steps=ITERATIONS, curvature=whitened.curvature).image
            error = (drawn.seen(image) - drawn.image).square()
            error = error[..., hole] if name == "hole" else error.flatten(2)
            numbers[f"{source.name}_{name}"] = float((10 * (4 / error.mean((1, 2))).log10()).mean())
    return numbers | {"inference": sum(numbers.values()) / len(numbers)}
