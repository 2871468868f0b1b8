"""Thin planes to pre-train the self prior on: any axis, step, profile, contrast, sharpness and noise, at random."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.corruptions import Profile
from brgm_med.self_prior.network import condition
from brgm_med.self_prior.pairs import thick_of
from brgm_med.self_prior.thick_axis import ThickAxis, cubic_matrix
from brgm_med.self_prior.tune import smoothing

WIDTH, LONGEST = 32, 160
"""Columns of a strip; most pixels of one."""

PROFILES: tuple[tuple[Profile, float], ...] = (("box", 0.5), ("gaussian", 0.35), ("trapezoid", 0.15))


@dataclass(frozen=True)
class Source:
    """Volumes uint8 [X, Y, Z] of one kind. `pairs`: (t, u) axes of planes with square pixels, t to be made thick and
    sharp; `plane`: pixels that a plane is thick. `labels`: of label maps, how many labels."""

    name: str
    share: float
    volumes: list[Tensor]
    pairs: tuple[tuple[int, int], ...]
    plane: float = 1.0
    labels: int = 0


@dataclass
class Batch:
    """Clean planes `thin` [N, thin, U], slices `thick` [N, slices, U] with noise, how they were acquired."""

    thin: Tensor
    thick: Tensor
    axis: ThickAxis
    conditions: Tensor
    source: str


@dataclass
class Sources:
    """All sources, and the random numbers that draw from them."""

    sources: list[Source]
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.random))

    def integer(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self.random))

    def draw(self, count: int, source: Source | None = None, plain: bool = False) -> Batch:
        """`count` strips of one source, all with one acquisition and contrast. `plain`: as they are, without noise."""
        if source is None:
            shares = torch.tensor([s.share for s in self.sources])
            source = self.sources[int(torch.multinomial(shares, 1, generator=self.random))]
        t, u = source.pairs[self.integer(len(source.pairs))]
        plane = 1
        if source.plane == 1 and not source.labels and self.uniform() < 0.4:
            plane = 2 + self.integer(7)
        zoom = self.uniform(1.0, 2.0) if self.uniform() < 0.3 and not plain else 1.0
        colour = self.colours(source)
        strips = [colour(self.strip(source, t, u, plane)) for _ in range(count)]
        length = min(LONGEST, *(len(s) for s in strips))
        thin = torch.stack([s[(len(s) - length) // 2 :][:length] for s in strips])
        thin = self.sharpness(thin, zoom, 0.6 if source.labels else 0.0, plain)
        if not plain:
            thin = self.contrast(thin)
        thin = thin / thin[thin > 0.15].mean().clamp(min=0.2)
        step = math.exp(self.uniform(math.log(1.6), math.log(min(7.5, thin.shape[1] / 8))))
        return self.acquired(thin, step, source, plane * source.plane * zoom, plain)

    def acquired(self, thin: Tensor, step: float, source: Source, plane: float, plain: bool) -> Batch:
        kind = self.uniform()
        profile = PROFILES[0][0] if kind < 0.5 else PROFILES[1][0] if kind < 0.85 else PROFILES[2][0]
        ratio = 1.0 if self.uniform() < 0.6 else self.uniform(0.6, 1.3)
        offset = self.integer(math.ceil(step))
        axis = ThickAxis.inside(thin.shape[1] - offset, step, ratio * step, profile)
        thin = thin[:, offset : offset + axis.thin].contiguous()
        noise = 0.1 * self.uniform() ** 1.5 if self.uniform() < 0.4 and not plain else 0.0
        thick = thick_of(thin, axis, noise, 0.0, self.random)
        return Batch(thin, thick, axis, condition(axis, noise, plane), source.name)

    def strip(self, source: Source, t: int, u: int, plane: int) -> Tensor:
        """A strip [t, WIDTH] of a random volume that holds signal: a mean over `plane` pixels across."""
        volume = source.volumes[self.integer(len(source.volumes))]
        volume = volume.permute(t, u, 3 - t - u)
        strip = volume[:, :WIDTH, 0]
        for _ in range(20):
            column, depth = self.integer(volume.shape[1] - WIDTH), self.integer(volume.shape[2] - plane + 1)
            strip = volume[:, column : column + WIDTH, depth : depth + plane]
            if float((strip[::4, ::4] > 12).float().mean()) > 0.2:
                break
        strip = strip[..., 0] if source.labels else strip.float().mean(2)
        for dimension in (0, 1):
            if self.uniform() < 0.5:
                strip = strip.flip(dimension)
        return strip

    def colours(self, source: Source) -> Callable[[Tensor], Tensor]:
        """Intensities of stored values: their own, or random ones of labels (Billot et al. 2023)."""
        if not source.labels:
            return lambda strip: strip.float() / 100
        means = torch.rand(source.labels, generator=self.random) * 1.6
        deviations = 0.15 * torch.rand(source.labels, generator=self.random).square()
        means[0] = deviations[0] = 0

        def colour(labels: Tensor) -> Tensor:
            index = labels.long()
            return means[index] + deviations[index] * torch.randn(labels.shape, generator=self.random)

        return colour

    def sharpness(self, thin: Tensor, zoom: float, least: float, plain: bool) -> Tensor:
        """Smoothed by up to 0.9 pixels, and enlarged `zoom` times, along both dimensions."""
        deviation = least
        if self.uniform() < 0.3 and not plain:
            deviation = math.hypot(least, self.uniform(0.3, 0.9))
        rows, columns = (smoothing(n, deviation) for n in thin.shape[1:])
        if rows is not None and columns is not None:
            thin = rows @ thin @ columns.T
        if zoom > 1:
            n, w = thin.shape[1:]
            rows = cubic_matrix(n, torch.arange(0.5 / zoom, min(n, LONGEST / zoom), 1 / zoom, dtype=torch.float64))
            columns = cubic_matrix(w, torch.arange(0.5 / zoom, w / zoom, 1 / zoom, dtype=torch.float64))
            thin = rows.float() @ thin @ columns.float().T
        return thin

    def contrast(self, thin: Tensor) -> Tensor:
        """Half as it is; else a power of it or a random piecewise linear map, air staying 0."""
        kind = self.uniform()
        if kind < 0.4:
            return thin
        thin = thin.clamp(min=0) / thin.max().clamp(min=1e-3)
        if kind < 0.6:
            return thin ** math.exp(self.uniform(-0.7, 0.7))
        knots = torch.tensor([0.0, 0.08, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0])
        values = torch.rand(len(knots), generator=self.random)
        values[0] = 0
        values[1] *= 0.3
        if kind < 0.8:
            values = values.square().cumsum(0)
        upper = torch.searchsorted(knots, thin.clamp(1e-6, 1)).clamp(1, len(knots) - 1)
        part = (thin - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
        return values[upper - 1] + part * (values[upper] - values[upper - 1])

    def save(self, path: Path, record: dict[str, Any]) -> None:
        tensors = {f"{i}.{j:03d}": v.contiguous() for i, s in enumerate(self.sources) for j, v in enumerate(s.volumes)}
        entries = [{k: v for k, v in vars(s).items() if k != "volumes"} for s in self.sources]
        save_file(tensors, path, {"sources": json.dumps(entries), "record": json.dumps(record)})

    @classmethod
    def load(cls, path: Path, seed: int = 0) -> tuple[Sources, dict[str, Any]]:
        with safe_open(path, "pt") as file:
            entries, record = (json.loads(file.metadata()[key]) for key in ("sources", "record"))
            names = sorted(file.keys())
            sources = []
            for i, entry in enumerate(entries):
                entry["pairs"] = tuple(map(tuple, entry["pairs"]))
                volumes = [file.get_tensor(name) for name in names if name.startswith(f"{i}.")]
                sources.append(Source(volumes=volumes, **entry))
        return cls(sources, torch.Generator().manual_seed(seed)), record
