"""A tiny prior of pictures, a scene, and the command in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.steps.import_prior import import_prior

SIZES = {"z_dim": 8, "w_dim": 8, "base_shape": [4, 4], "channels": [8, 8, 8, 6], "mapping_layers": 2}


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior of 32 x 32 pictures, imported from safetensors."""
    folder = tmp_path_factory.mktemp("prior")
    torch.manual_seed(0)
    network = StyleGAN2(image_channels=request.param, **SIZES)  # type: ignore[arg-type]
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "tiny.safetensors")
    (folder / "tiny.json").write_text(json.dumps(SIZES | {"image_channels": request.param}))
    return import_prior(folder / "tiny.safetensors", folder / "tiny")


def scene(height: int, width: int, levels: int) -> NDArray[np.int64]:
    """A picture that tells up from down and left from right."""
    y, x = np.mgrid[:height, :width]
    bright = 0.25 + 0.4 * y / height + 0.25 * (x > 0.7 * width) * (y < 0.3 * height)
    return np.rint(bright * levels).astype(np.int64)


def run(*arguments: object) -> int:
    return main([str(a) for a in (*arguments, "--steps", 3, "--threads", 1)])
