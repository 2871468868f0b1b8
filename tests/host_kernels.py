"""Fixtures for kernels that run on the host (`host_compiler`); their tests are skipped where there is no g++."""

from __future__ import annotations

import pytest

from brgm_med.ops import nvrtc
from tests import host_compiler


@pytest.fixture
def host_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on the host: an op's CUDA body may be called with CPU tensors."""
    if not host_compiler.available():
        pytest.skip("no g++ on this machine")
    monkeypatch.setattr(nvrtc, "launch", host_compiler.launch)
