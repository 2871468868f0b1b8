"""Precision by measurement: what decides, that it is kept, and how closely the two formats agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brgm_med.ops import kernel_cache, precision
from brgm_med.ops.precision import native_precision
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    precision._measured.cache_clear()
    yield
    precision._measured.cache_clear()


@pytest.mark.parametrize(
    ("half", "expected"), [(0.5, torch.bfloat16), (0.95, torch.float32), (1.0, torch.float32), (2.0, torch.float32)]
)
def test_the_faster_format_is_taken_and_float32_where_it_is_close(
    half: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "seconds", lambda device, dtype: half if dtype == torch.bfloat16 else 1.0)
    assert native_precision(CPU) == expected


def test_it_is_measured_once_per_processor_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def seconds(device: torch.device, dtype: torch.dtype) -> float:
        calls.append(dtype)
        return 0.1 if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, "seconds", seconds)
    native_precision(CPU)
    native_precision(CPU)
    precision._measured.cache_clear()  # another process
    assert native_precision(CPU) == torch.bfloat16
    assert len(calls) == 2
    monkeypatch.setattr(precision, "_processor", lambda device: "another")
    native_precision(CPU)
    assert len(calls) == 4


def test_a_damaged_or_missing_cache_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "seconds", lambda device, dtype: 0.1 if dtype == torch.bfloat16 else 1.0)
    native_precision(CPU)
    (entry,) = kernel_cache.folder().iterdir()
    entry.write_bytes(b"nonsense")
    precision._measured.cache_clear()
    assert native_precision(CPU) == torch.bfloat16
    assert entry.read_bytes() != b"nonsense"


def test_both_formats_are_really_timed() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert 0 < precision.seconds(CPU, dtype) < 10


def test_images_of_the_two_precisions_agree() -> None:
    """bfloat16 has 8 bits: each of a few roundings in a row is at most 1/256 of a value."""
    state = tiny.state()
    ws = torch.randn(4, state.generator.num_ws, state.generator.w_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, half = (state.generator.synthesis(ws, noise="none", dtype=d) for d in (torch.float32, torch.bfloat16))
    assert exact.dtype == half.dtype == torch.float32
    assert not torch.equal(exact, half)
    assert float((exact - half).norm() / exact.norm()) < 0.02


def test_encoded_latents_of_the_two_precisions_agree() -> None:
    state = tiny.state()
    images = torch.from_numpy(tiny.stacks()[0]).float()
    with torch.no_grad():
        exact, half = (state.encoder(images.to(d))[0].float() for d in (torch.float32, torch.bfloat16))
    assert float((exact - half).norm() / exact.norm()) < 0.02
