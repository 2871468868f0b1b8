"""From a training state to a bundle folder that can be shipped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from brgm_med.networks.condition import position_code
from brgm_med.priors.bundle import WPlusStatistics, digest
from brgm_med.training.state import Architecture, TrainState

PAIRS = 16
"""So many pairs of neighbouring slices a head, spread evenly, are enough for the statistics of W+."""


def neighbours(positions: int) -> np.ndarray:
    """Indices of up to `PAIRS` pairs of neighbours, spread evenly over all positions: i, i + 1, j, j + 1, ..."""
    first = np.linspace(0, positions - 2, min(PAIRS, positions - 1)).round().astype(int)
    return np.stack([first, first + 1], 1).ravel()


def encode(state: TrainState, stacks: np.ndarray, batch: int = 64) -> Tensor:
    """W+ [heads, positions, K] of the averaged encoder for slices [heads, positions, C, H, W]."""
    flat = stacks.reshape(-1, *stacks.shape[2:])
    with torch.no_grad():
        parts = [
            state.average_encoder(torch.from_numpy(flat[i : i + batch].astype(np.float32))).flatten(1)
            for i in range(0, len(flat), batch)
        ]
    return torch.cat(parts).reshape(*stacks.shape[:2], -1)


def wplus_statistics(latents: Tensor, position: Tensor, c_dim: int, rank: int) -> WPlusStatistics:
    """Mean (a linear function of the position's code), principal covariance, and correlation of neighbours.

    `latents` [heads, positions, K] and `position` [positions] in [-1, 1]: pairs of neighbouring slices, one pair
    after the other.
    """
    heads, positions, k = latents.shape
    code = position_code(position, c_dim)
    design = torch.cat([torch.ones(positions, 1), code], 1).double()
    target = latents.mean(0).double()
    # A little ridge: the bumps of the code are nearly collinear with the constant.
    gram = design.T @ design + 1e-6 * torch.eye(design.shape[1], dtype=torch.float64)
    coefficients = torch.linalg.solve(gram, design.T @ target)
    rest = (latents.double() - design @ coefficients).reshape(-1, k)
    values, vectors = torch.linalg.eigh(rest.T @ rest / (heads * positions - 1))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    deviation = values[:rank].sqrt().clamp_min(1e-3 * float(values[0].sqrt()))
    pairs = (rest @ vectors[:, :rank]).reshape(heads, positions // 2, 2, -1)
    product = (pairs[:, :, 0] * pairs[:, :, 1]).mean((0, 1))
    correlation = (product / pairs.square().mean((0, 1, 2)).clamp_min(1e-12)).clamp(0.0, 0.98)
    basis = vectors[:, :rank].float().contiguous()
    return WPlusStatistics(coefficients.float(), basis, deviation.float(), correlation.float())


def export_bundle(
    state: TrainState,
    architecture: Architecture,
    stacks: np.ndarray,
    out: Path,
    *,
    metadata: dict[str, Any],
    template: Path,
    mask: Path,
    card: str,
    licence: str,
    rank: int = 512,
) -> None:
    """Write the averaged generator, discriminator and W+ statistics as a MONAI bundle into the new folder `out`.

    `metadata` needs `name` and `grid` ({"shape", "affine"}); everything else in it is carried along. Whatever
    stood at `out` is replaced only once the new folder is complete.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for sub in ("configs", "models", "docs"):
        (partial / sub).mkdir(parents=True)

    def half(tensors: dict[str, Tensor], name: str) -> None:
        save_file({k: v.half().contiguous() for k, v in tensors.items()}, partial / "models" / name)

    def weights(module: nn.Module) -> dict[str, Tensor]:
        return {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in module.state_dict().items()}

    half(weights(state.average), "model.safetensors")
    half(weights(state.discriminator), "discriminator.safetensors")
    chosen = neighbours(stacks.shape[1])
    position = torch.linspace(-1, 1, stacks.shape[1])[torch.from_numpy(chosen)]
    found = wplus_statistics(encode(state, stacks[:, chosen]), position, architecture.c_dim, rank)
    half(
        {
            "coefficients": found.coefficients,
            "basis": found.basis,
            "deviation": found.deviation,
            "correlation": found.correlation,
        },
        "w_statistics.safetensors",
    )
    shutil.copyfile(template, partial / "template.nii.gz")
    shutil.copyfile(mask, partial / "mask.nii.gz")
    (partial / "docs" / "README.md").write_text(card)
    (partial / "LICENSE").write_text(licence)
    common = {"c_dim": architecture.c_dim, "base_shape": list(architecture.base_shape)}
    common |= {"image_channels": architecture.image_channels, "mapping_layers": architecture.mapping_layers}
    inference = {
        "network_def": {
            "_target_": "brgm_med.networks.stylegan2.StyleGAN2",
            "z_dim": architecture.z_dim,
            "w_dim": architecture.w_dim,
            "channels": list(architecture.generator_channels),
            **common,
        },
        "discriminator_def": {
            "_target_": "brgm_med.networks.discriminator.Discriminator",
            "channels": list(architecture.discriminator_channels),
            **common,
        },
    }
    (partial / "configs" / "inference.json").write_text(json.dumps(inference, indent=2) + "\n")
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    hashes = {p.relative_to(partial).as_posix(): digest(p) for p in files}
    record = {**metadata, "training": {"images": state.images, **state.record}, "sha256": hashes}
    (partial / "configs" / "metadata.json").write_text(json.dumps(record, indent=2) + "\n")
    if out.exists():
        shutil.rmtree(out)
    os.replace(partial, out)
