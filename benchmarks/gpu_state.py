"""A training state in files that are small enough to be returned, and back.

    python benchmarks/gpu_state.py FOLDER --run RUN    joins them into RUN/state.pt, from which `brgm-med train` goes on

The full state of the shipped architecture has 76 MB. Returned are the snapshot (averaged networks and discriminator in
float16, 10 MB: what a prior is exported from) and, in parts, the weights in float32 to the last bit and Adam's moments
in bfloat16, 40 MB. Moments need the range of float32 (squared gradients are far below float16's least number) but not
its digits: an update is changed by less than 1 %, and moments are forgotten after some 1 / (1 - beta_2) = 100 more. The
averages lose what the shipped prior's weights lose.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load, save

from brgm_med.errors import PriorError
from brgm_med.training.state import Architecture, TrainState

LIMIT = 15_000_000
"""Bytes of a part."""
SNAPSHOT = "snapshot.safetensors"
FACTS = ("iteration", "images", "probability", "sign", "path_mean", "record")
NETWORKS = ("generator", "discriminator", "encoder")


def split(state: TrainState, folder: Path, limit: int = LIMIT) -> list[Path]:
    """Write the snapshot and the parts state-1, state-2, ... into `folder`; returns all of them."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name in NETWORKS
        for key, value in getattr(state, name).state_dict().items()
    }
    for name, optimiser in state.optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                kept = value.float() if key == "step" else value.bfloat16()
                tensors[f"adam.{name}.{index}.{key}"] = kept.cpu().contiguous()
    facts = json.dumps({name: getattr(state, name) for name in FACTS})
    content = save(tensors, {"facts": facts})
    content = hashlib.sha256(content).digest() + content
    for old in folder.glob("*.partial"):
        old.unlink()
    parts = [folder / f"state-{number + 1}" for number in range(-(-len(content) // limit))]
    files = [folder / SNAPSHOT, *parts]
    for number, part in enumerate(parts):
        (folder / f"{part.name}.partial").write_bytes(content[number * limit : (number + 1) * limit])
    state.save_snapshot(folder / "new")
    os.replace(folder / "new", folder / f"{SNAPSHOT}.partial")
    for old in folder.glob("state-*"):
        if old not in parts and old.suffix != ".partial":
            old.unlink()
    for file in files:  # one right after the other, so that a kill leaves the old files or the new ones
        os.replace(folder / f"{file.name}.partial", file)
    return files


def join(folder: Path, architecture: Architecture) -> TrainState:
    """The state that `split` wrote. It is of no recipe and data yet: the run that goes on from it marks it.

    Raises PriorError where parts are missing or do not belong together.
    """
    parts = sorted(folder.glob("state-*"), key=lambda part: int(part.name.removeprefix("state-")))
    content = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise PriorError(f"{folder}: its {len(parts)} files state-* are not one whole state; copy all of them again")
    content = content[32:]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = load(content)
    state = TrainState.new(architecture, seed=0, rate=0.0)
    state.load_snapshot(folder / SNAPSHOT)
    for name in NETWORKS:
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        getattr(state, name).load_state_dict(own)
    for name, optimiser in state.optimisers.items():
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"adam.{name}."):
                _, _, index, which = key.split(".")
                moments.setdefault(int(index), {})[which] = value.float()
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": moments, "param_groups": groups})
    facts = json.loads(header["__metadata__"]["facts"])
    if facts["iteration"] != state.iteration:
        raise PriorError(f"{folder}: {SNAPSHOT} is of update {state.iteration}, the rest of {facts['iteration']}")
    for name, value in facts.items():
        setattr(state, name, value)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what benchmarks/gpu.py returned")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run that goes on; its state is replaced")
    options = parser.parse_args()
    described = json.loads((options.folder / "gpu.json").read_text())["training"]
    try:
        state = join(options.folder, Architecture(**described["architecture"]))
    except PriorError as error:
        parser.exit(5, f"{error}\n")
    options.run.mkdir(parents=True, exist_ok=True)
    state.save(options.run / "state.pt")
    print(f"{options.run / 'state.pt'}: {state.images} images, {state.iteration} updates")


if __name__ == "__main__":
    main()
