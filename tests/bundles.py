"""A tiny bundle, and what a bundle's metadata must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from brgm_med.priors import bundle
from brgm_med.training.export import export_bundle
from brgm_med.training.state import TrainState
from tests import tiny

AFFINE = [[2.0, 0, 0, -11], [0, 2.0, 0, -4], [0, 0, 2.0, -11], [0, 0, 0, 1]]
METADATA = {"name": "tiny", "version": "0", "description": "d", "grid": {"shape": [12, 5, 12], "affine": AFFINE}}


def export(state: TrainState, out: Path, rank: int = 6) -> Path:
    out.parent.mkdir(exist_ok=True)
    for name in ("template", "mask"):
        (out.parent / name).write_bytes(name.encode())
    export_bundle(
        state,
        tiny.ARCHITECTURE,
        tiny.stacks(),
        out,
        metadata=METADATA,
        space=(out.parent / "template", out.parent / "mask"),
        card="# Tiny\n",
        licence="Free.\n",
        rank=rank,
    )
    return out


MANDATORY = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task"}
MANDATORY |= {"description", "authors", "copyright", "network_data_format"}
FORMAT = {"type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"}


def check_data_format(metadata: dict[str, Any], prior: bundle.PriorBundle) -> None:
    """`network_data_format` is that of MONAI's bundle specification, and the network's."""
    found = metadata["network_data_format"]
    ((inputs,), (outputs,)) = (found["inputs"].items(), found["outputs"].items())
    assert (inputs[0], outputs[0]) == ("image", "pred")  # so MONAI's tools name them
    for shape in (inputs[1], outputs[1]):
        assert set(shape) == FORMAT | {"channel_def"}
        assert set(shape["channel_def"]) == {str(i) for i in range(shape["num_channels"])}
    ws = torch.zeros(1, inputs[1]["num_channels"], *inputs[1]["spatial_shape"])
    image = prior.generator.synthesis(ws)
    assert image.shape == (1, outputs[1]["num_channels"], *outputs[1]["spatial_shape"])
    assert str(image.dtype) == f"torch.{outputs[1]['dtype']}"
