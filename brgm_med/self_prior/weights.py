"""The shipped network, pre-trained on heads of several scanners and contrasts."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from brgm_med.errors import PriorError
from brgm_med.self_prior.network import SubSliceNetwork

FILE = Path(__file__).with_name("weights.safetensors")


def save(network: SubSliceNetwork, path: Path, record: dict[str, Any]) -> None:
    """Write the weights, float16, and `record` (JSON) in the file's metadata and beside it."""
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, {"widths": json.dumps(network.widths)})
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def load(path: Path) -> SubSliceNetwork:
    """Read what `save` wrote. Raises PriorError where that is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            network = SubSliceNetwork(json.loads(file.metadata()["widths"]))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise PriorError(f"{path}: no weights of a sub-slice network ({str(error).splitlines()[0]})") from error
    return network.to(memory_format=torch.channels_last).eval()


@cache
def pretrained() -> SubSliceNetwork:
    """The shipped network; not to be changed in place."""
    return load(FILE)
