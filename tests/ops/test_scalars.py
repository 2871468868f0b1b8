"""binary16 and bfloat16 as the kernels' headers convert them, against torch: every pattern, and floats of all sizes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from tests.host_compiler import available, library

SOURCE = """
#include "common.cuh"
extern "C" void widen_all(const SCALAR* from, float* to, long long count) {
    for (long long i = 0; i < count; i++) to[i] = widen(from[i]);
}
extern "C" void narrow_all(const float* from, SCALAR* to, long long count) {
    for (long long i = 0; i < count; i++) to[i] = narrow<SCALAR>(from[i]);
}
"""
pytestmark = pytest.mark.skipif(not available(), reason="no g++ on this machine")
SCALARS = [("Half", torch.float16), ("BFloat16", torch.bfloat16)]


def converted(name: str, scalar: str, values: torch.Tensor, dtype: torch.dtype, folder: Path) -> torch.Tensor:
    source = folder / "scalars.cu"
    source.write_text(SOURCE)
    result = torch.empty(values.shape, dtype=dtype)
    function = getattr(library(str(source), (("SCALAR", scalar), ("INDEX", "unsigned"))), name)
    function(*(ctypes.c_void_p(t.data_ptr()) for t in (values, result)), ctypes.c_longlong(values.numel()))
    return result


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit by bit (signs of zeros too), but any NaN for any other."""
    whole = torch.int32 if a.dtype == torch.float32 else torch.int16
    return bool(((a.view(whole) == b.view(whole)) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize(("scalar", "dtype"), SCALARS)
def test_every_pattern_is_widened_and_comes_back(scalar: str, dtype: torch.dtype, tmp_path: Path) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = converted("widen_all", scalar, every, torch.float32, tmp_path)
    assert same(wide, every.float())
    assert same(converted("narrow_all", scalar, wide, dtype, tmp_path), every)


@pytest.mark.parametrize(("scalar", "dtype"), SCALARS)
def test_floats_are_rounded_as_torch_rounds_them(scalar: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Random patterns, which have all exponents; all numbers of the type, halfway between, and one float beside."""
    patterns = torch.randint(-(2**31), 2**31, (4_000_000,), dtype=torch.int64).to(torch.int32).view(torch.float32)
    every = torch.arange(0, 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    every = every[every.isfinite()]
    halves = (every[1:].double() + every[:-1].double()).div(2).float()
    top = torch.tensor([65504.0, 65519.996, 65520.0, 65536.0, 3.3895e38, 3.3961776e38, torch.inf, torch.nan, 0.0])
    near = torch.cat([every, halves, top, 2.0 ** torch.arange(-149.0, 128.0)])
    beside = [torch.nextafter(near, torch.tensor(end)) for end in (torch.inf, -torch.inf)]
    values = torch.cat([patterns, near, *beside])
    values = torch.cat([values, -values])
    assert same(converted("narrow_all", scalar, values, dtype, tmp_path), values.to(dtype))
