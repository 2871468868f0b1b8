"""Generators of others as ours: which architecture a file's tensors make, and whether it is one that we have.

The architecture is read off the names and shapes of the tensors, never believed from a setting; a setting that changes
the mathematics without changing a shape is checked against the one value that our networks have. Three sources:
pickles of StyleGAN2-ADA (also those of BRGM), checkpoints in rosinality's layout, and safetensors with a JSON.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brgm_med.errors import PriorError
from brgm_med.networks.discriminator import Discriminator
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.posterior import w_statistics
from brgm_med.priors import containers, rosinality
from brgm_med.priors.architecture import Arguments, State, discriminator_of, generator_of
from brgm_med.priors.records import Inert, MalformedError, Persistent, Stored

NESTED = ("mapping_kwargs", "synthesis_kwargs", "block_kwargs", "epilogue_kwargs")
MUST_BE: dict[str, tuple[Any, ...]] = {
    "activation": ("lrelu",),
    "architecture": ("skip", "resnet"),
    "lr_multiplier": (0.01,),
    "mbstd_num_channels": (1,),
    "num_channels": (1,),
    "resample_filter": ([1, 3, 3, 1],),
    "use_noise": (True,),
}
"""Settings that no shape tells, and the values for which our networks are the same."""
IN_SHAPES = """
    z_dim c_dim w_dim num_ws num_layers embed_features layer_features cmap_dim img_resolution img_channels resolution
    in_channels out_channels tmp_channels in_features out_features kernel_size up down bias is_last channel_base
    channel_max fmap_base fmap_decay fmap_min fmap_max
"""
"""Settings that the names and shapes of the tensors tell."""
NO_MATTER = """
    num_fp16_res use_fp16 fp16_channels_last channels_last conv_clamp fused_modconv_default w_avg_beta bias_init
    trainable freeze_layers first_layer_idx mbstd_group_size group_size
"""
"""Settings of training, of half precision (which alone needs the clamp) and of speed; the group is read apart."""


@dataclass(frozen=True)
class Foreign:
    """An imported generator and, where its file has one, discriminator, with the arguments of their constructors."""

    layout: str
    generator: StyleGAN2
    generator_def: Arguments
    discriminator: Discriminator | None = None
    discriminator_def: Arguments | None = None


def load(path: Path) -> Foreign:
    """Import the file at `path`: safetensors by the end of its name, all else by its content. Nothing of it is run.

    Raises PriorError, one line, for what is missing, damaged, hostile or of an architecture that is not ours.
    """
    try:
        if path.suffix == ".safetensors":
            return plain(path)
        try:
            tree, size = containers.read(path)
        except MalformedError:
            raise
        except containers.UNREADABLE as error:
            raise MalformedError(f"cannot be read as a network ({type(error).__name__})") from error
        if isinstance(tree, dict) and isinstance(tree.get("G_ema"), Persistent):
            return published(tree, size)
        if isinstance(tree, dict) and isinstance(tree.get("g_ema"), dict):
            return rosinalitys(tree, size)
        raise MalformedError("holds neither G_ema, as StyleGAN2-ADA's, nor g_ema, as rosinality's")
    except MalformedError as error:
        raise PriorError(f"{path}: {error}; it was not imported, and nothing in it was run") from error
    except OSError as error:
        raise PriorError(f"{path}: cannot be read ({error.strerror or error})") from error


def published(tree: dict[str, Any], size: int) -> Foreign:
    """The networks of a StyleGAN2-ADA pickle of `size` bytes."""
    named, _ = walk(tree["G_ema"], "G_ema")
    generator, generator_def = generator_of(tensors(named, size))
    if tree.get("D") is None:
        return Foreign("pickle of StyleGAN2-ADA", generator, generator_def)
    if not isinstance(tree["D"], Persistent):
        raise MalformedError("has a D that is no network")
    named, settings = walk(tree["D"], "D")
    if settings.get("architecture", "resnet") != "resnet":
        raise MalformedError("has a discriminator that is not residual (architecture: resnet)")
    group = settings.get("group_size", settings.get("mbstd_group_size", 4))
    discriminator = discriminator_of(tensors(named, size), generator_def, group)
    return Foreign("pickle of StyleGAN2-ADA", generator, generator_def, *discriminator)


def rosinalitys(tree: dict[str, Any], size: int) -> Foreign:
    """The networks of a checkpoint in rosinality's layout; without its `latent_avg`, the mean of W is ours."""
    average = {"latent_avg": tree["latent_avg"]} if tree.get("latent_avg") is not None else {}
    theirs = tensors(tree["g_ema"] | average, size)
    mean = theirs.pop("latent_avg", None)
    state = rosinality.generator(theirs)
    state["mapping.w_avg"] = torch.zeros_like(state["mapping.fc0.bias"]) if mean is None else mean
    generator, generator_def = generator_of(state)
    if mean is None:
        generator.mapping.w_avg.copy_(w_statistics(generator).mean)
    if tree.get("d") is None:
        return Foreign("checkpoint in rosinality's layout", generator, generator_def)
    if not isinstance(tree["d"], dict):
        raise MalformedError("has a d that is no state dict")
    discriminator = discriminator_of(rosinality.discriminator(tensors(tree["d"], size)), generator_def, group=4)
    return Foreign("checkpoint in rosinality's layout", generator, generator_def, *discriminator)


def plain(path: Path) -> Foreign:
    """A generator in our own names, in safetensors, with its constructor's arguments in a JSON of the same stem."""
    from safetensors.torch import load_file

    config = path.with_suffix(".json")
    if not path.is_file():
        raise MalformedError("does not exist, or is no file")
    try:
        state = {name.removeprefix("G_ema."): t for name, t in load_file(path).items()}
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as safetensors and torch have
        raise MalformedError(f"is no safetensors file ({type(error).__name__})") from error
    try:
        stated = json.loads(config.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedError(f"needs a readable {config.name} beside it, with StyleGAN2's arguments") from error
    if any(not t.is_floating_point() for t in state.values()):
        raise MalformedError("holds a weight that is no floating-point number")
    try:
        generator, arguments = generator_of({name: t.float() for name, t in state.items()})
    except MalformedError:
        raise
    except containers.UNREADABLE as error:
        raise MalformedError(f"has tensors with which there is no network ({type(error).__name__})") from error
    signature = inspect.signature(StyleGAN2).parameters
    default = {name: list(p.default) if isinstance(p.default, tuple) else p.default for name, p in signature.items()}
    if not isinstance(stated, dict) or stated.keys() - default.keys() or default | stated != arguments:
        raise MalformedError(f"has weights of another network than {config.name} says")
    return Foreign("safetensors", generator, arguments)


def walk(network: Persistent, title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of a network by their full names, and the settings of all its modules, checked."""
    named: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    seen, rest = set(), [("", network)]
    while rest:
        prefix, module = rest.pop()
        if not isinstance(module, Persistent) or id(module) in seen or prefix.count(".") > 8:
            raise MalformedError(f"has a {title} that is no network")
        seen.add(id(module))
        groups = [module.state.get(key, {}) for key in ("_parameters", "_buffers", "_modules", "_init_kwargs")]
        positional = module.state.get("_init_args", ())
        if not all(isinstance(g, dict) for g in groups) or not isinstance(positional, tuple | list):
            raise MalformedError(f"has a {title} that is no network")
        parameters, buffers, modules, keywords = groups
        named |= {f"{prefix}{name}": t for name, t in (parameters | buffers).items() if t is not None}
        rest += [(f"{prefix}{name}.", child) for name, child in modules.items()]
        check(keywords, settings)
        for argument in positional:
            if isinstance(argument, dict):
                check(argument, settings)
            elif not isinstance(argument, int | Inert):
                raise MalformedError("was made with arguments that are not StyleGAN2's")
    return named, settings


def check(keywords: dict[str, Any], settings: dict[str, Any], depth: int = 0) -> None:
    """Add a constructor's keywords to `settings`; refuse one that our networks have not."""
    for name, value in keywords.items():
        shown = ascii(name)[:40]
        if name in NESTED and isinstance(value, dict) and depth < 3:
            check(value, settings, depth + 1)
        elif name in MUST_BE:
            if value not in MUST_BE[name]:
                known = " or ".join(str(v) for v in MUST_BE[name])
                raise MalformedError(f"has a setting that is not supported: {shown} must be {known}")
            settings[name] = value
        elif name in ("group_size", "mbstd_group_size"):
            settings[name] = value
        elif name not in (*IN_SHAPES.split(), *NO_MATTER.split()):
            raise MalformedError(f"has a setting that StyleGAN2 has not: {shown}")


def tensors(named: dict[str, Any], size: int) -> State:
    """The tensors of a file of `size` bytes, float32. Refuses such as share their numbers until they are larger."""
    if not all(isinstance(name, str) and isinstance(t, Stored) for name, t in named.items()):
        raise MalformedError("has a network in which something is no tensor")
    if sum(t.count for t in named.values()) > size:  # at least two bytes each, so this leaves room for shared ones
        raise MalformedError("has more weights than it holds numbers")
    return {name: torch.from_numpy(t.array()) for name, t in named.items()}
