"""Training slices of several scanners, each seen through its own acquisition model.

The generator draws an image x on one grid; source s knows it only as y = m (f_s x), f_s the blur of its voxels and of
the interpolation that brought it to the grid, m the part that it holds (a brain without skull, a face cut away). The
reconstruction's losses compare m (f_s G(w)) with y: the law of the reconstruction itself, applied to training (as in
AmbientGAN, Bora et al. 2018).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.training.augment import Augmentation
from brgm_med.training.contrast import coloured, remapped
from brgm_med.training.state import first_line

LEVELS = 64.0
"""Steps of 8-bit slices in a unit of normalised intensity, so 1 to 255 reach from -1 to 2.97; 0 is not known."""

TAPS = 9
"""Length of the kernels: enough for voxels up to 4/3 of the grid's spacing, to 3 % of their frequency response."""
LEAST_KNOWN = 0.02
"""Fraction of a slice that must be known for it to be drawn."""
ORDERED = 0.5
"""Probability that an image drawn from labels has the order of T1."""


def packed(values: Tensor, known: Tensor) -> Tensor:
    """Normalised intensities as 8 bits, 0 where not `known`. Rounds to 1/128 of the brain's brightness above air."""
    return torch.where(known, ((values + 1) * LEVELS).round().clamp(0, 254) + 1, 0).to(torch.uint8)


def unpacked(stored: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `packed`: values float32, -1 where nothing is known, and what is known."""
    known = stored > 0
    return torch.where(known, (stored.float() - 1) / LEVELS - 1, -1.0), known


def acquisition_kernel(true_mm: float, step_mm: float, spacing: float) -> Tensor:
    """The kernel [TAPS] on a grid of `spacing` mm of a scanner whose voxels average `true_mm`, sampled every `step_mm`
    and interpolated by a cubic spline, relative to voxels of the grid itself, which average `spacing` mm.

    Its frequency response is sinc(true f) / sinc(spacing f), and that of the cardinal cubic spline of the sampling
    (Unser et al. 1993, Eq. 3.17). 0 mm for both: what was drawn on the grid itself, the identity.
    """
    if not true_mm:
        return F.one_hot(torch.tensor(TAPS // 2), TAPS).float()
    frequency = np.linspace(0, 0.5 / spacing, 257)
    orders = np.arange(-6, 7)[:, None]
    spline = np.sinc(frequency * step_mm) ** 4 / (np.sinc(frequency * step_mm - orders) ** 4).sum(0)
    response = np.sinc(true_mm * frequency) / np.sinc(spacing * frequency) * spline
    offsets = np.arange(TAPS)[:, None] - TAPS // 2
    kernel = np.trapezoid(response * np.cos(2 * np.pi * frequency * spacing * offsets), frequency, axis=1)
    return torch.from_numpy(kernel / kernel.sum()).float()


@dataclass(frozen=True)
class Source:
    """Heads of one scanner, or label maps. `stacks`: for each head uint8 [Y, H, W] as `packed` makes it; of label maps
    labels [Y, 2 H, 2 W]. `kernels`: f along H and W. `share`: probability that a slice is drawn from this source.
    `tissue`: what labels are (see `contrast.coloured`); None for images. `remapped`: probability that the contrast of
    an image's slice is changed by a random intensity map."""

    name: str
    share: float
    kernels: tuple[Tensor, Tensor]
    stacks: list[Tensor]
    tissue: Tensor | None = None
    remapped: float = 0.0


@dataclass
class Drawn:
    """Slices y [N, 1, H, W], their positions in [-1, 1], what is `known` of each, and the kernels [N, TAPS] along H
    and W by which each was seen."""

    image: Tensor
    position: Tensor
    known: Tensor
    kernels: tuple[Tensor, Tensor]

    def to(self, device: torch.device) -> Drawn:
        image, position, known, rows, columns = (
            t.to(device, non_blocking=True) for t in (self.image, self.position, self.known, *self.kernels)
        )
        return Drawn(image, position, known, (rows, columns))

    def seen(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """Images x [n, 1, H, W] as the sources of the slices `rows` see them: m (f x), and y's own -1 outside m."""
        blurred = acquired(x, self.kernels[0][rows], self.kernels[1][rows])
        return torch.where(self.known[rows], blurred, -1.0)


def acquired(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images x [N, 1, H, W], each convolved with its own kernels [N, TAPS] along H and W; edges are repeated."""
    n, _, h, w = x.shape
    r = TAPS // 2
    y = F.pad(x.reshape(1, n, h, w), (r, r, r, r), mode="replicate")
    y = F.conv2d(y, rows.view(n, 1, TAPS, 1).to(y), groups=n)
    return F.conv2d(y, columns.view(n, 1, 1, TAPS).to(y), groups=n).reshape(n, 1, h, w)


@dataclass
class Sources(Sequence[NDArray[np.uint8]]):
    """A training set of several `Source`s; item h is head h's stored stack, over all sources."""

    sources: list[Source]
    _drawable: list[list[Tensor]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._drawable = [
            [((stack > 0).float().mean((1, 2)) > LEAST_KNOWN).nonzero()[:, 0] for stack in source.stacks]
            for source in self.sources
        ]

    def __len__(self) -> int:
        return sum(len(source.stacks) for source in self.sources)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]
        return [stack for source in self.sources for stack in source.stacks][index].numpy()

    def draw(self, count: int, widened: float = 0.5, flip: bool = True) -> Drawn:
        """`count` random slices: of a source by its share, of any of its heads, anywhere in it.

        Each change of `Augmentation` is made with probability `widened`, `flip` being whether to mirror. Label maps are
        coloured anew each time.
        """
        shares = torch.tensor([source.share for source in self.sources]).cumsum(0)
        of = torch.searchsorted(shares / shares[-1], torch.rand(count)).clamp(max=len(self.sources) - 1)
        heads, fractions = torch.rand(count), torch.rand(count)
        chosen, positions = [], []
        for s, head, fraction in zip(of.tolist(), heads.tolist(), fractions.tolist(), strict=True):
            number = int(head * len(self.sources[s].stacks))
            slices = self._drawable[s][number]
            index = int(slices[int(fraction * len(slices))])
            stack = self.sources[s].stacks[number]
            chosen.append(stack[index])
            positions.append(index / max(len(stack) - 1, 1) * 2 - 1)
        image, known = self._images(of, chosen)
        state = torch.get_rng_state()
        image = Augmentation(flip=flip, noise=0.0)(image, widened)
        if not known.all():  # the same displacements, none of the intensities
            torch.set_rng_state(state)
            still = Augmentation(flip=flip, noise=0.0, gamma=0.0, gain=0.0, bias=0.0)
            known = still(known.float() - 1, widened) > -0.01
        kernels = [torch.stack([self.sources[s].kernels[axis] for s in of.tolist()]) for axis in (0, 1)]
        return Drawn(torch.where(known, image, -1.0), torch.tensor(positions), known, (kernels[0], kernels[1]))

    def spread(self, count: int) -> Drawn:
        """`count` slices of the images' heads as they are, spread evenly over heads and then over positions."""
        where = [
            (source, stack, int(index))
            for source, drawable in zip(self.sources, self._drawable, strict=True)
            if source.tissue is None
            for stack, slices in zip(source.stacks, drawable, strict=True)
            for index in slices
        ]
        places = torch.linspace(0, len(where) - 1, count + 2)[1:-1].round().long().tolist()
        image, known = unpacked(torch.stack([where[p][1][where[p][2]] for p in places])[:, None])
        positions = [where[p][2] / max(len(where[p][1]) - 1, 1) * 2 - 1 for p in places]
        rows, columns = (torch.stack([where[p][0].kernels[axis] for p in places]) for axis in (0, 1))
        return Drawn(image, torch.tensor(positions), known, (rows, columns))

    def _images(self, of: Tensor, chosen: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Slices [N, 1, H, W] and what is known of them, from stored slices of the sources `of` [N]."""
        tissues = [self.sources[s].tissue for s in of.tolist()]
        labelled = torch.tensor([tissue is not None for tissue in tissues])
        remap = torch.rand(len(of)) < torch.tensor([self.sources[s].remapped for s in of.tolist()])
        order = torch.rand(len(of)) < ORDERED
        pairs = list(zip(chosen, labelled.tolist(), strict=True))
        h, w = chosen[0].shape if not labelled[0] else (n // 2 for n in chosen[0].shape)
        stored = torch.stack([torch.zeros(h, w, dtype=torch.uint8) if is_labels else one for one, is_labels in pairs])
        image, known = unpacked(stored[:, None])
        image = remapped(image, known, remap & ~labelled)
        tissue = next((source.tissue for source in self.sources if source.tissue is not None), None)
        if tissue is None:
            return image, known
        empty = torch.zeros(2 * h, 2 * w, dtype=torch.uint8)
        maps = torch.stack([one if is_labels else empty for one, is_labels in pairs])
        rows = labelled.nonzero()[:, 0]
        image = image.index_copy(0, rows, coloured(maps, order, tissue, rows))
        return image, known | labelled[:, None, None, None]

    def save(self, path: Path, **facts: Any) -> None:
        """One safetensors file; `facts` (JSON) go into its metadata."""
        tensors: dict[str, Tensor] = {}
        entries = []
        for i, source in enumerate(self.sources):
            tensors |= {f"{i}.rows": source.kernels[0].clone(), f"{i}.columns": source.kernels[1].clone()}
            tensors |= {f"{i}.{h:03d}": stack.contiguous() for h, stack in enumerate(source.stacks)}
            if source.tissue is not None:
                tensors[f"{i}.tissue"] = source.tissue
            entries.append({"name": source.name, "share": source.share, "heads": len(source.stacks)})
        save_file(tensors, path, {"sources": json.dumps(entries), "facts": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Sources:
        """Read what `save` wrote. Raises PriorError for a file that is none."""
        try:
            with safe_open(path, "pt") as file:
                names = set(file.keys())
                sources = []
                for i, entry in enumerate(json.loads(file.metadata()["sources"])):
                    kernels = (file.get_tensor(f"{i}.rows"), file.get_tensor(f"{i}.columns"))
                    stacks = [file.get_tensor(f"{i}.{h:03d}") for h in range(entry["heads"])]
                    tissue = file.get_tensor(f"{i}.tissue") if f"{i}.tissue" in names else None
                    sources.append(Source(entry["name"], entry["share"], kernels, stacks, tissue))
            return cls(sources)
        except Exception as error:  # a damaged archive fails in as many ways as safetensors and JSON have
            raise PriorError(f"{path}: holds no training slices ({first_line(error)}); prepare them again") from error
