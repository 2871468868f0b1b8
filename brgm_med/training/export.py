"""Export: from a training state to a bundle folder that can be shipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.gaussian import LinearGaussian
from brgm_med.networks.condition import position_code
from brgm_med.networks.discriminator import Encoder
from brgm_med.priors.bundle import UNFINISHED, WPlusStatistics
from brgm_med.priors.writing import data_format, seal
from brgm_med.training.state import Architecture, TrainState

LINEAR_RANK = 768
"""Components of the linear-Gaussian prior that are kept: 3 MB."""

PAIRS = 16
"""So many pairs of neighbouring slices a head, spread evenly, are enough for the statistics of W+."""


def neighbours(positions: int) -> np.ndarray:
    """Indices of up to `PAIRS` pairs of neighbours, spread evenly over all positions: i, i + 1, j, j + 1, ..."""
    first = np.linspace(0, positions - 2, min(PAIRS, positions - 1)).round().astype(int)
    return np.stack([first, first + 1], 1).ravel()


def encode(
    encoder: Encoder, stacks: Sequence[Tensor], chosen: Sequence[int] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """W+ [heads, positions, K] and noise maps [heads, positions, h, w] for the slices `chosen` (None: all) of `stacks`,
    whose item h is head h's [Y, C, H, W]."""
    latents, maps = [], []
    device = next(encoder.parameters()).device
    with torch.no_grad():
        for h in range(len(stacks)):
            slices = torch.as_tensor(stacks[h]).float().to(device)
            picked = slices if chosen is None else slices[torch.as_tensor(chosen, device=slices.device)]
            ws, noise = encoder(picked)
            latents.append(ws.flatten(1).cpu())
            maps.append({name: m[:, 0].cpu() for name, m in noise.items()})
    return torch.stack(latents), {name: torch.stack([m[name] for m in maps]) for name in maps[0]}


def wplus_statistics(
    latents: Tensor, maps: dict[str, Tensor], position: Tensor, c_dim: int, rank: int
) -> WPlusStatistics:
    """Mean (a linear function of the position's code), principal covariance, and correlation of neighbours.

    `latents` [heads, positions, K] and `maps` [heads, positions, h, w] as `encode` gives them, at `position`
    [positions] in [-1, 1]: pairs of neighbouring slices, one pair after the other.
    """
    heads, positions, k = latents.shape
    code = position_code(position, c_dim)
    design = torch.cat([torch.ones(positions, 1), code], 1).double()
    target = latents.mean(0).double()
    # A little ridge: the bumps of the code are nearly collinear with the constant.
    gram = design.T @ design + 1e-6 * torch.eye(design.shape[1], dtype=torch.float64)
    coefficients = torch.linalg.solve(gram, design.T @ target)
    rest = (latents.double() - design @ coefficients).reshape(-1, k)
    basis, deviation = principal(rest, rank)
    pairs = (rest @ basis).reshape(heads, positions // 2, 2, -1)
    product = (pairs[:, :, 0] * pairs[:, :, 1]).mean((0, 1))
    correlation = (product / pairs.square().mean((0, 1, 2)).clamp_min(1e-12)).clamp(0.0, 0.98)
    # A map's pixels are known up to noise that neighbours do not share: part of their unit variance.
    shared = [(m[:, 0::2] * m[:, 1::2]).mean().clamp(0.0, 0.98) for m in maps.values()]
    map_correlation = torch.stack(shared) if shared else torch.zeros(0)
    return WPlusStatistics(
        coefficients.float(), basis.float().contiguous(), deviation.float(), correlation.float(), map_correlation
    )


def head_statistics(encoder: Encoder, stacks: Sequence[Tensor], c_dim: int, rank: int) -> WPlusStatistics:
    """`wplus_statistics` of encoded heads, of which item h of `stacks` holds the slices [Y, C, H, W]."""
    pairs = neighbours(len(stacks[0]))
    position = torch.linspace(-1, 1, len(stacks[0]))[torch.from_numpy(pairs)]
    return wplus_statistics(*encode(encoder, stacks, pairs.tolist()), position, c_dim, rank)


def principal(rest: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Principal directions [K, R] of samples [N, K] around 0, R <= `rank`, and the deviations along them, [R]."""
    values, vectors = torch.linalg.eigh(rest.T @ rest / (len(rest) - 1))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    return vectors[:, :rank], values[:rank].sqrt().clamp_min(1e-3 * float(values[0].sqrt()))


def picture_statistics(latents: Tensor, maps: int, rank: int) -> WPlusStatistics:
    """Mean and principal covariance of encoded pictures' W+ [N, K], of as many `maps`. They have no neighbours: all
    correlations are 0. Raises ValueError for fewer than two pictures."""
    if len(latents) < 2:
        raise ValueError("the spread of a single picture is not known; train on two or more")
    mean = latents.double().mean(0, keepdim=True)
    basis, deviation = principal(latents.double() - mean, min(rank, len(latents) - 1))
    zero = torch.zeros(len(deviation))
    return WPlusStatistics(mean.float(), basis.float().contiguous(), deviation.float(), zero, torch.zeros(maps))


def stored(linear: LinearGaussian) -> dict[str, Tensor]:
    """A linear-Gaussian prior in few bytes: left halves, the components' in 8 bits, each with its own scale."""
    half, parity = linear.half()
    scale = half.abs().amax((1, 2)) / 127
    return {
        "half": (half / scale[:, None, None]).round().to(torch.int8),
        "scale": scale,
        "parity": parity,
        "deviation": linear.deviation,
        "mean": linear.mean[:, 0, :, : linear.mean.shape[3] // 2].half().contiguous(),
        "nugget": torch.tensor(linear.nugget),
    }


def inference_config(architecture: Architecture) -> dict[str, Any]:
    """`configs/inference.json`: the networks as MONAI instantiates them, and workflows: `run` draws a head, and
    `reconstruct` super-resolves the file `scan` into `result`.

    `network_def` and `discriminator_def` are untrained networks, in plain numbers; `network` is the trained generator,
    verified as every reader of a bundle does it, and `synthesis` its part from W+ to the image. `bundle_root` is to be
    given where the working folder is another one.
    """
    return {
        "imports": [
            "$import torch",
            "$from pathlib import Path",
            "$from monai.data import MetaTensor",
            "$from brgm_med.transforms.slices import restack",
        ],
        "output": "sample.nii.gz",
        "seed": 0,
        **networks_config(architecture),
        "stack": "$@prior.sample(@seed)",
        "affine": "$torch.tensor(@prior.metadata['grid']['affine'], dtype=torch.float64)",
        "save": {
            "_target_": "brgm_med.transforms.save.SaveScan",
            "path": "@output",
            "description": "brgm-med: a head drawn from a prior, nobody's",
            "force": True,
        },
        "run": ["$@save(MetaTensor(restack(@stack), @affine))"],
        "scan": "scan.nii.gz",
        "result": "result.nii.gz",
        "steps": None,
        "super_resolved": {
            "_target_": "brgm_med.pipelines.steps.super_resolve",
            "scan": "$Path(@scan)",
            "out": "$Path(@result)",
            "prior": "@bundle_root",
            "steps": "@steps",
        },
        "reconstruct": ["$@super_resolved"],
    }


def networks_config(architecture: Architecture) -> dict[str, Any]:
    """The networks of every `configs/inference.json`, see `inference_config`."""
    return {
        "bundle_root": ".",
        "network_def": {"_target_": "brgm_med.networks.stylegan2.StyleGAN2", **architecture.generator_arguments()},
        "discriminator_def": {
            "_target_": "brgm_med.networks.discriminator.Discriminator",
            **architecture.discriminator_arguments(),
        },
        "prior": {"_target_": "brgm_med.priors.bundle.load", "prior": "@bundle_root"},
        "network": "$@prior.generator",
        "synthesis": "$@network.synthesis",
    }


@contextmanager
def new_bundle(out: Path) -> Iterator[Path]:
    """An empty bundle folder to fill, which then replaces whatever stood at `out`.

    Until then, and where this is killed, the names at `out` are `UNFINISHED`.
    """
    partial, replaced = (out.with_name(out.name + ending) for ending in UNFINISHED)
    for left in (partial, replaced):
        shutil.rmtree(left, ignore_errors=True)
    for sub in ("configs", "models", "docs"):
        (partial / sub).mkdir(parents=True)
    yield partial
    if out.exists():
        os.replace(out, replaced)
    os.replace(partial, out)
    shutil.rmtree(replaced, ignore_errors=True)


def export_bundle(
    state: TrainState,
    architecture: Architecture,
    stacks: Sequence[Tensor],
    out: Path,
    *,
    metadata: dict[str, Any],
    card: str,
    licence: str,
    space: tuple[Path, Path] | None = None,
    rank: int = 512,
) -> None:
    """Write the averaged generator, discriminator and W+ statistics as a MONAI bundle into the new folder `out`.

    Of heads, item h of `stacks` holds head h's slices [Y, C, H, W], `space` are the NIfTI files of their template and
    its mask, and `metadata` needs `name` and `grid` ({"shape", "affine"}). Of pictures, item i is [1, C, H, W], and
    there is neither template nor grid nor linear prior. Everything else in `metadata` is carried along. Whatever stood
    at `out` is replaced only once the new folder is complete; until then, and where this is killed, the names at `out`
    are `UNFINISHED`. Raises ValueError for fewer than two pictures.
    """
    if space is None:
        latents, maps = encode(state.average_encoder, stacks)
        statistics = picture_statistics(latents[:, 0], len(maps), rank)
        config, form = networks_config(architecture), data_format(state.average, "pixels, -1 to 1", "n/a")
    else:
        pairs = neighbours(len(stacks[0]))
        position = torch.linspace(-1, 1, len(stacks[0]))[torch.from_numpy(pairs)]
        statistics = wplus_statistics(
            *encode(state.average_encoder, stacks, pairs.tolist()), position, architecture.c_dim, rank
        )
        config = inference_config(architecture)
        form = data_format(state.average, "coronal slice, air -1, brain 0", "MR")
    with new_bundle(out) as folder:
        networks = {"model": state.average.state_dict(), "discriminator": state.discriminator.state_dict()}
        for name, tensors in {**networks, "w_statistics": vars(statistics)}.items():
            half = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
            save_file(half, folder / "models" / f"{name}.safetensors")
        if space is not None:
            save_file(stored(LinearGaussian.fit(stacks, LINEAR_RANK)), folder / "models" / "linear.safetensors")
            for file, name in zip(space, ("template.nii.gz", "mask.nii.gz"), strict=True):
                shutil.copyfile(file, folder / name)
        (folder / "LICENSE").write_text(licence)
        training = {"images": state.images, **state.record}
        seal(folder, card, config, {**metadata, "network_data_format": form, "training": training})
