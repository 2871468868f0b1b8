"""The table of benchmarks/holes.py."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.house import ROOT

SCRIPT = ROOT / "benchmarks" / "holes.py"


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


def test_the_table_counts_heads_and_wins(holes: ModuleType) -> None:
    rows = []
    for head in ("0", "1"):
        for method, psnr, distance in (("ours", 20 + int(head), 0.01), *((m, 18.0, 0.02) for m in holes.OTHERS)):
            row = {"head": head, "mask": "disc", "pixels": "9", "method": method}
            rows.append(row | {"PSNR": str(psnr), "LPIPS": str(distance)})
    text = holes.summary(rows)
    assert "means over 2 heads" in text
    assert "| disc (9) | 20.50 / 0.0100 | 18.00 / 0.0200 |" in text
    assert "telea in PSNR on 2 and in LPIPS on 2 of 2" in text
