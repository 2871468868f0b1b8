"""The quality of a prior on held-out slices: how well its latent inputs reach them, how its samples are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from brgm_med.distribution import frechet_distance, kernel_distance, pooled, precision_recall
from brgm_med.energies import Pixel
from brgm_med.metrics import lpips, psnr
from brgm_med.networks.condition import position_code
from brgm_med.networks.discriminator import Encoder
from brgm_med.networks.noise import join_maps
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.perceptual import LPIPS, PerceptualFeatures
from brgm_med.posterior import Generator, Posterior, Whitened
from brgm_med.solvers import Estimate, fit_lbfgs
from brgm_med.training.sources import Sources

STEPS = 100
"""Evaluations of the generator and its gradient per inversion. The curve still rises there, by about 0.1 dB for
every ten more, but alike for two snapshots of one prior; benchmarks that state a prior's reach take more."""


def invert(
    generator: Generator,
    images: Tensor,
    *,
    start: Tensor,
    steps: int = STEPS,
    batch: int = 32,
    seen: Callable[[Tensor, slice], Tensor] | None = None,
) -> Estimate:
    """The best G(w) for clean images [N, C, H, W]: the MAP over W+ with no prior on w, and f = identity or `seen`.

    It minimises the squared error and so tells the reach of the generator, not how probable an image is. `start`
    [N, num_ws, w_dim]: the encoder's answer, or a mean w. The generator's noise inputs are off: w alone. (Noise maps
    are searched as well where `generator` is a `posterior.Whitened` with maps.) `batch` images at a time; `seen`, as
    `sources.Drawn.seen`, says how the sources of these rows see them.
    """
    parts = []
    for first in range(0, len(images), batch):
        rows = slice(first, first + batch)
        f = nn.Identity() if seen is None else Seen(seen, slice(first, min(first + batch, len(images))))
        posterior = Posterior(generator, f, images[rows], (Pixel(1.0),), (), noise="none")
        parts.append(fit_lbfgs(posterior, start[rows], steps=steps))
    return Estimate(
        torch.cat([p.ws for p in parts]), torch.cat([p.image for p in parts]), torch.cat([p.history for p in parts], 1)
    )


class Seen(nn.Module):
    """The acquisition f of the sources of the slices `rows`, see `sources.Drawn.seen`."""

    def __init__(self, seen: Callable[[Tensor, slice], Tensor], rows: slice = slice(None)) -> None:
        super().__init__()
        self.seen, self.rows = seen, rows

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x, self.rows)


def all_latents(generator: StyleGAN2, ws: Tensor, maps: dict[str, Tensor]) -> tuple[Whitened, Tensor]:
    """W+ and noise maps as one variable: the generator of coordinates [N, 1, K + M], and those of `ws` and `maps`."""
    flat = ws.flatten(1)
    k = flat.shape[1]
    one = torch.ones(k, device=flat.device)
    coordinates = torch.cat([flat, join_maps(maps)], 1) if maps else flat
    free = torch.zeros(coordinates.shape[1], device=flat.device)
    shapes = generator.noise_shapes if maps else {}
    return Whitened(generator, torch.zeros_like(flat[:1]), torch.diag(one), one, free, shapes), coordinates[:, None]


def spread(positions: Tensor, count: int) -> Tensor:
    """Indices of `count` slices (all, where there are fewer), spread evenly over their positions [N]."""
    order = positions.argsort(stable=True)
    chosen = torch.linspace(0, len(order) - 1, min(count, len(order)), dtype=torch.float64)
    return order[chosen.round().long().to(order.device)]


@torch.no_grad()
def mean_ws(generator: StyleGAN2, positions: Tensor, seed: int, samples: int = 500) -> Tensor:
    """The mean w of `samples` mapped z at each position [N], in every layer: [N, num_ws, w_dim]."""
    z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed)).to(positions.device)
    codes = position_code(positions, generator.c_dim) if generator.c_dim else [None] * len(positions)
    means = [generator.mapping(z, None if c is None else c.expand(samples, -1)).mean(0) for c in codes]
    return generator.broadcast(torch.stack(means))


@torch.no_grad()
def sample(generator: StyleGAN2, positions: Tensor, seed: int, batch: int = 32) -> Tensor:
    """One G(mapping(z)) for each position [N], grain and all: images [N, C, H, W].

    The same for the same seed; torch's global generators are left as they were.
    """
    z = torch.randn(len(positions), generator.z_dim, generator=torch.Generator().manual_seed(seed))
    images = []
    with torch.random.fork_rng([positions.device] if positions.is_cuda else []):
        torch.manual_seed(seed)  # the noise inputs draw from the global generator
        for part, position in zip(z.split(batch), positions.split(batch), strict=True):
            code = position_code(position, generator.c_dim) if generator.c_dim else None
            images.append(generator(part.to(position.device), code, noise="random"))
    return torch.cat(images)


def measure(
    generator: StyleGAN2,
    encoder: Encoder | None,
    slices: Tensor,
    positions: Tensor,
    features: PerceptualFeatures,
    *,
    steps: int = STEPS,
    inverted: int = 24,
    samples: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """Numbers that tell how good a prior is, on clean slices [N, C, H, W] at `positions` [N] that it never saw.

    `inverted` of the slices, spread evenly over positions, are sought by `invert` from the encoder's answer (None:
    from the mean w at their position); `samples` images are drawn at positions that are spread alike, and compared
    with all slices in the pooled `features`.

    - inversion_psnr, wplus_psnr, encoded_psnr: dB, of the inversion by all latent inputs (W+ and the noise maps), by
      W+ alone, and of the encoder's answer (the last is absent without one, and so are the noise maps). Mean over
      slices; over the whole slice and data_range 2, the width of [-1, 1], on which a generator is defined.
    - inversion_lpips: mean LPIPS of the inversion, at the slices' own size, clipped to [-1, 1]. Absent where
      `features` is no LPIPS.
    - frechet, kernel, precision, recall: see `brgm_med.distribution`. They only compare where N, `samples` and
      `features` are the same; features of a discriminator change as it is trained.

    Deterministic. With the defaults and 80 x 96 slices it takes about a minute of one core for each of the two
    inversions, and little else. Raises ValueError for fewer than four slices or samples.
    """
    slices = slices.float()
    chosen = spread(positions, inverted)
    truth = slices[chosen]
    numbers: dict[str, float] = {}
    maps: dict[str, Tensor] = {}
    if encoder is None:
        start = mean_ws(generator, positions[chosen], seed)
    else:
        with torch.no_grad():
            start, maps = encoder(truth)
            numbers["encoded_psnr"] = float(psnr(generator.synthesis(start, maps or "none"), truth, 2.0).mean())
    reached = invert(generator, truth, start=start, steps=steps).image
    numbers["wplus_psnr"] = float(psnr(reached, truth, 2.0).mean())
    if maps:
        every, coordinates = all_latents(generator, start, maps)
        reached = invert(every, truth, start=coordinates, steps=steps).image
    numbers["inversion_psnr"] = float(psnr(reached, truth, 2.0).mean())
    if isinstance(features, LPIPS):
        numbers["inversion_lpips"] = float(lpips(reached, truth, (-1.0, 1.0), features).mean())
    places = positions.sort().values[torch.linspace(0, len(positions) - 1, samples).round().long()]
    real, fake = pooled(features, slices), pooled(features, sample(generator, places, seed))
    numbers |= {"frechet": frechet_distance(real, fake), "kernel": kernel_distance(real, fake)}
    numbers["precision"], numbers["recall"] = precision_recall(real, fake)
    return numbers


def measure_sources(
    generator: StyleGAN2, encoder: Encoder, sources: Sources, features: LPIPS | None, *, steps: int = 60, count: int = 8
) -> dict[str, float]:
    """Reach of a prior on held-out slices of several scanners, each through its own acquisition model.

    `count` slices of every source, spread evenly over heads and positions, are inverted by W+ and by all latent inputs
    (`steps` evaluations each) from the encoder's answer. PSNR in dB over what is known of a slice, data range 2 (the
    width of [-1, 1]): NAME_encoded, NAME_wplus, NAME_inversion, and NAME_lpips of the last where `features` is given.
    `score` is the mean over the sources of inversion - 10 log10(LPIPS), see `score`. Deterministic.
    """
    numbers: dict[str, float] = {}
    scores = []
    for source in sources.sources:
        if source.tissue is not None:
            continue
        drawn = Sources([source]).spread(count).to(generator.mapping.w_avg.device)
        with torch.no_grad():
            start, maps = encoder(drawn.image)
            answer = drawn.seen(generator.synthesis(start, maps))
        wplus = invert(generator, drawn.image, start=start, steps=steps, seen=drawn.seen).image
        every, coordinates = all_latents(generator, start, maps)
        inversion = drawn.seen(invert(every, drawn.image, start=coordinates, steps=steps, seen=drawn.seen).image)
        for name, image in (("encoded", answer), ("wplus", drawn.seen(wplus)), ("inversion", inversion)):
            error = (image - drawn.image).square().sum((1, 2, 3)) / drawn.known.sum((1, 2, 3))
            numbers[f"{source.name}_{name}"] = float((10 * (4 / error).log10()).mean())
        reach = {"inversion_psnr": numbers[f"{source.name}_inversion"]}
        if features is not None:
            distance = float(lpips(inversion, drawn.image, (-1.0, 1.0), features).mean())
            numbers[f"{source.name}_lpips"] = reach["inversion_lpips"] = distance
        scores.append(score(reach))
    return numbers | {"score": sum(scores) / len(scores)}


def score(measured: dict[str, float]) -> float:
    """Score by which the best snapshot is chosen, higher better: inversion_psnr - 10 log10(inversion_lpips), dB.

    Both halves matter to a reconstruction, and a halved LPIPS counts as 3 dB. Without LPIPS the first term alone.
    """
    if "inversion_lpips" not in measured:
        return measured["inversion_psnr"]
    return measured["inversion_psnr"] - 10 * math.log10(measured["inversion_lpips"])
