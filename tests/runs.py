"""Runs of training in files."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.cache import fingerprint
from brgm_med.transforms.template import BOX_SHAPE
from tests import phantom


def same(a: object, b: object) -> bool:
    """Whether nested dictionaries, lists and tensors are equal to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def save_run(run: Path, heads: int = 2) -> TrainState:
    """A run folder that was trained for 32 images, without the hours."""
    (run / "cache").mkdir(parents=True)
    phantom.template().save(run)
    x, y, z = BOX_SHAPE
    entries = []
    for h in range(heads + 1):
        head = {"stack": torch.rand(y, 1, z, x, generator=torch.Generator().manual_seed(h)).half()}
        torch.save({"head": head, "sha256": fingerprint(head)}, run / "cache" / f"{h}.pt")
        entries.append({"name": f"head{h}.nii.gz", "sha256": str(h), "file": f"{h}.pt"})
    grid = {"shape": BOX_SHAPE, "affine": phantom.template().box.affine.tolist()}
    record = {"grid": grid, "heads": entries[:heads], "held_out": entries[heads:]}
    (run / "prepared.json").write_text(json.dumps(record))
    state = TrainState.new(Architecture(), seed=0, rate=0.0)
    state.images, state.iteration = 32, 2
    state.record = {
        "snapshots": [{"images": 16, "seconds": 1.5, "score": 3.0}, {"images": 32, "seconds": 3, "score": 2}]
    }
    state.save(run / "state.pt")
    return state
