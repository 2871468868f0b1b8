"""What every test starts from: few threads, fixed seeds, and the data folders where they are present."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.house import ROOT

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers for a test, alone or in a run with others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cuda_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The development data: `BRGM_MED_DATA`, or the folder beside the checkout; skips where it is absent."""
    return _folder(Path(os.environ.get("BRGM_MED_DATA", ROOT.parent / "shared" / "data")))


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Reference arrays of the generator and its ops; skips where they are absent."""
    return _folder(ROOT.parent / "shared" / "parity")


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path
