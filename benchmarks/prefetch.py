"""Training slices that other processes draw ahead."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brgm_med.training.loop import Recipe, iteration_seed
from brgm_med.training.sources import Drawn, Sources

AHEAD = 4
"""Batches that each process may be ahead."""


class Iterations(Dataset[tuple[Tensor, ...]]):
    """Item i: what iteration i of a run draws first, and the state of torch's generator after that."""

    def __init__(self, sources: Sources, recipe: Recipe) -> None:
        self.sources, self.recipe = sources, recipe

    def __getitem__(self, iteration: int) -> tuple[Tensor, ...]:
        torch.manual_seed(iteration_seed(self.recipe.seed, iteration))
        drawn = self.sources.draw(self.recipe.batch, self.recipe.widened, self.recipe.flip)
        return drawn.image, drawn.position, drawn.known, *drawn.kernels, torch.get_rng_state()


class Prefetched(Sources):
    """`sources` for `train_iteration` from iteration `first` on, in order, to the last bit as if it drew them itself.

    `processes` draw ahead; with 0 of them this one draws.
    """

    def __init__(self, sources: Sources, recipe: Recipe, first: int, processes: int, *, pin: bool = False) -> None:
        super().__init__(sources.sources)
        numbers = range(first, first + 10_000_000)
        ahead = AHEAD if processes else None
        loader = DataLoader(
            Iterations(sources, recipe),
            batch_size=None,
            sampler=numbers,
            num_workers=processes,
            prefetch_factor=ahead,
            pin_memory=pin,
        )
        self._batches: Iterator[tuple[Tensor, ...]] = iter(loader)

    def draw(self, count: int, widened: float = 0.5, flip: bool = True) -> Drawn:
        image, position, known, rows, columns, generator = next(self._batches)
        torch.set_rng_state(generator)
        return Drawn(image, position, known, (rows, columns))
