"""The parts of benchmarks/holes.py: its masks, its baselines, its table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "holes.py"


@pytest.fixture(scope="module")
def holes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("holes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_seven_masks_from_a_lesion_to_half_a_head(holes: ModuleType) -> None:
    masks = holes.masks(80, 96)
    assert len(masks) == 7
    fractions = [float(mask.mean()) for mask in masks.values()]
    assert min(fractions) > 0.01
    assert max(fractions) < 0.5
    assert all(np.array_equal(mask, holes.masks(80, 96)[name]) for name, mask in masks.items())
    different = {mask.tobytes() for mask in masks.values()}
    assert len(different) == 7


@pytest.mark.parametrize("method", ["biharmonic", "Telea", "Navier-Stokes"])
def test_baselines_keep_what_is_known_and_never_see_the_hole(holes: ModuleType, method: str) -> None:
    y, x = np.mgrid[:24, :30]
    ramp = torch.from_numpy(0.03 * y - 0.02 * x)[None, None].float()
    hole = np.zeros((24, 30), bool)
    hole[8:15, 10:18] = True
    hidden = torch.from_numpy(hole)
    found = holes.filled(ramp.where(~hidden, 5.0), hole, method)
    assert torch.equal(found, holes.filled(ramp, hole, method))
    assert torch.equal(found[..., ~hidden], ramp[..., ~hidden])
    assert float((found - ramp)[..., hidden].abs().max()) < (1e-3 if method == "biharmonic" else 0.35)


def test_the_table_counts_heads_and_wins(holes: ModuleType) -> None:
    rows = []
    for head in ("0", "1"):
        for method, psnr, distance in (("ours", 20 + int(head), 0.01), *((m, 18.0, 0.02) for m in holes.OTHERS)):
            row = {"head": head, "mask": "disc", "pixels": "9", "method": method}
            rows.append(row | {"PSNR": str(psnr), "LPIPS": str(distance)})
    text = holes.summary(rows)
    assert "means over 2 heads" in text
    assert "| disc (9) | 20.50 / 0.0100 | 18.00 / 0.0200 |" in text
    assert "Telea in PSNR on 2 and in LPIPS on 2 of 2" in text
