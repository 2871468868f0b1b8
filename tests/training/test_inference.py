"""What a prior infers of a held-out slice rests on what it was shown of it, and on nothing else."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from brgm_med.training.inference import measure_inference, middle_hole
from brgm_med.training.sources import Source, Sources, acquisition_kernel, packed
from brgm_med.training.state import TrainState
from tests import tiny

IDENTITY = acquisition_kernel(0.0, 0.0, 1.5)


def source(change: float = 0.0) -> Source:
    """Heads whose slices' middles, which are hidden, are brighter by `change`."""
    hole = middle_hole((12, 12), 1)
    stacks = [packed(torch.from_numpy(head[:, 0]).float() + change * hole, hole | True) for head in tiny.stacks()]
    return Source("ixi", 1.0, (IDENTITY, IDENTITY), stacks)


def measured(state: TrainState, training: Source, validation: Source) -> dict[str, float]:
    return measure_inference(state.average, state.average_encoder, [training], Sources([validation]), heads=2, count=3)


def mean_error(numbers: dict[str, float]) -> float:
    return 4 / 10 ** (numbers["ixi_hole"] / 10)


def test_the_hole_is_filled_without_its_own_content() -> None:
    state = TrainState.new(tiny.ARCHITECTURE, seed=0, rate=0.0)
    plain = measured(state, source(), source())
    assert plain == measured(state, source(), source())
    assert set(plain) == {"ixi_thick", "ixi_hole", "inference"}
    assert plain["inference"] == (plain["ixi_thick"] + plain["ixi_hole"]) / 2
    # One fill, one pixel, two truths x and x + 1/2: the roots of their squared errors differ by 1/2, or add up to it.
    one = Sources([source()]).sources[0]
    first = dataclasses.replace(one, stacks=[one.stacks[0][2:4]])
    other = dataclasses.replace(first, stacks=[source(0.5).stacks[0][2:4]])
    alone = [
        mean_error(measure_inference(state.average, state.average_encoder, [one], Sources([v]), heads=2, count=1))
        ** 0.5
        for v in (first, other)
    ]
    sides: list[Tensor] = [torch.tensor(abs(alone[0] - alone[1])), torch.tensor(alone[0] + alone[1])]
    assert min(abs(float(s) - 0.5) for s in sides) < 1e-3
