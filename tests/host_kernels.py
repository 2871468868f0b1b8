"""Fixtures and reports of kernels: run on the host (`host_compiler`), skipped where there is no g++, and compiled."""

from __future__ import annotations

import re

import pytest

from brgm_med.ops import nvrtc
from tests import host_compiler

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
STRICT = ("--ptxas-options=-v", "--ptxas-options=--warning-as-error")


@pytest.fixture
def host_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on the host: an op's CUDA body may be called with CPU tensors."""
    if not host_compiler.available():
        pytest.skip("no g++ on this machine")
    monkeypatch.setattr(nvrtc, "launch", host_compiler.launch)


@pytest.fixture
def installed() -> None:
    """NVRTC compiles here, or the test is skipped."""
    try:
        nvrtc.version()
    except nvrtc.Refused as reason:
        pytest.skip(str(reason))


def usage(report: str) -> dict[str, tuple[int, int]]:
    """Entry function -> (registers, bytes spilled), from the assembler's report."""
    entries = {}
    for part in report.split("Compiling entry function '")[1:]:
        registers, spilled = (re.search(p, part) for p in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
        assert registers
        assert spilled
        entries[part.partition("'")[0]] = (int(registers[1]), int(spilled[1]))
    return entries
