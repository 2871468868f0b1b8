"""Fixtures of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights for LPIPS anywhere."""
    monkeypatch.delenv("BRGM_MED_LPIPS_WEIGHTS", raising=False)
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
