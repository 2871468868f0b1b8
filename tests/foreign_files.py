"""Files of networks as others write them, made without any of their code."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.networks.discriminator import Discriminator
from brgm_med.networks.stylegan2 import StyleGAN2

State = dict[str, Tensor]
BUFFERS = ("resample_filter", "noise_const", "w_avg")
SOURCE = "raise SystemExit('the source of a module must never run')\n"


class Easy(dict):  # type: ignore[type-arg]
    """A dictionary of the published settings."""


def reconstruct(meta: object) -> None:
    raise AssertionError("nothing of a pickle may be run")


def _rename(thing: Any, module: str, name: str) -> None:
    thing.__module__, thing.__qualname__, thing.__name__ = module, name, name


_rename(Easy, "dnnlib.util", "EasyDict")
_rename(reconstruct, "torch_utils.persistence", "_reconstruct_persistent_obj")


@contextmanager
def published_modules() -> Iterator[None]:
    """The names that the published pickles call, importable so that `pickle` can write them, and only meanwhile."""
    made = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}
    vars(made["torch_utils.persistence"])["_reconstruct_persistent_obj"] = reconstruct
    vars(made["dnnlib.util"])["EasyDict"] = Easy
    assert not made.keys() & sys.modules.keys()
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


class Kept:
    """An object as StyleGAN2-ADA's persistence keeps it: a call with one record, and no state of its own."""

    def __init__(self, kind: str, state: dict[str, Any], source: Any = SOURCE) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": kind, "state": state}

    def __reduce__(self) -> tuple[Any, ...]:
        return reconstruct, (self.meta,), None

    def child(self, path: str) -> dict[str, Any]:
        """The attributes of the module at the dotted `path` below this one."""
        state: dict[str, Any] = self.meta["state"]
        for name in path.split("."):
            state = state["_modules"][name].meta["state"]
        return state


def keep(kind: str, state: State, **keywords: Any) -> Kept:
    """A network, as a tree of kept modules, that holds the tensors of a state dict."""
    attributes = dict(nn.Module().__dict__)  # the hooks and sets that every module of torch has
    attributes |= {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_args": (), "_init_kwargs": keywords}
    attributes["weight_gain"] = 1 / np.sqrt(7)  # published layers hold such numpy numbers
    inside: dict[str, State] = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if rest:
            inside.setdefault(first, {})[rest] = tensor
        elif first in BUFFERS:
            attributes["_buffers"][first] = tensor
        else:
            attributes["_parameters"][first] = nn.Parameter(tensor)
    for name, part in inside.items():
        attributes["_modules"][name] = keep(f"Module_{name}", part)
    return Kept(kind, attributes)


def tiny(**changes: Any) -> StyleGAN2:
    """A generator of 16 x 16 pictures whose every weight, noise strengths and means included, is random."""
    g = StyleGAN2(**({"z_dim": 6, "w_dim": 5, "channels": (8, 6, 4), "mapping_layers": 2} | changes))
    _randomise(g, "mapping.w_avg", "noise_strength", ".bias")
    return g.eval().requires_grad_(False)


def tiny_critic(**changes: Any) -> Discriminator:
    """A discriminator of 16 x 16 pictures."""
    d = Discriminator(**({"channels": (8, 6, 4), "mapping_layers": 8} | changes))
    _randomise(d, ".bias")
    return d.eval().requires_grad_(False)


def _randomise(module: nn.Module, *endings: str) -> None:
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(endings):
                tensor.add_(0.3 * torch.randn(tensor.shape))


def snapshot(g: State, d: State | None = None, **content: Any) -> dict[str, Any]:
    """What a published pickle holds, with the settings that a user gives its networks."""
    synthesis = {"channel_base": 32768, "channel_max": 512, "num_fp16_res": 4, "conv_clamp": 256}
    settings = {"mapping_kwargs": Easy(num_layers=8), "synthesis_kwargs": Easy(**synthesis)}
    made = {
        "training_set_kwargs": Easy(path="data.zip", use_labels=False, max_size=None, xflip=True),
        "G": keep("Generator", g, **settings),
        "D": None if d is None else keep("Discriminator", d, epilogue_kwargs=Easy(mbstd_group_size=3)),
        "G_ema": keep("Generator", g, **settings),
        "augment_pipe": Kept("AugmentPipe", {"_buffers": {"p": torch.zeros(())}}),
    }
    return made | content


def pickled(content: Any, protocol: int = 4) -> bytes:
    with published_modules():
        return pickle.dumps(content, protocol)


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickled(content, protocol))
    return path


class Call:
    """What makes Python's own unpickler call a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments
