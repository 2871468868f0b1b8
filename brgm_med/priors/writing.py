"""Files that every bundle folder has, however its prior was made."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.files import digest
from brgm_med.networks.stylegan2 import StyleGAN2

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def describe(name: str, description: str) -> dict[str, Any]:
    """Entries that MONAI's schema of a bundle's metadata requires, but for `network_data_format`."""
    version = importlib.metadata.version
    return {
        "schema": SCHEMA,
        "name": name,
        "version": __version__,
        "changelog": {__version__: description},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "brgm-med": __version__,
            "nibabel": version("nibabel"),
            "safetensors": version("safetensors"),
        },
        "supported_apps": {},
        "task": "Prior of coronal slices of heads, for their Bayesian reconstruction",
        "description": description,
        "authors": f"trained by brgm-med {__version__}",
        "copyright": "see LICENSE",
        "data_type": "nibabel",
        "image_classes": "coronal slices of registered heads; air -1, mean of the brain 0",
        "intended_use": "research only, not for diagnosis",
        "references": [
            "Marinescu, Moyer, Golland. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567",
            "Karras et al. Analyzing and Improving the Image Quality of StyleGAN. arXiv:1912.04958",
        ],
    }


def data_format(generator: StyleGAN2, pixels: str, modality: str) -> dict[str, Any]:
    """`network_data_format` of MONAI's metadata, for `synthesis`: W+ in (MONAI's tools call every input "image").

    `pixels` says what the image's values are, `modality` where they come from.
    """

    def entry(kind: str, form: str, modality: str, shape: Sequence[int], channels: list[str]) -> dict[str, Any]:
        return {
            "type": kind,
            "format": form,
            "modality": modality,
            "num_channels": len(channels),
            "spatial_shape": list(shape),
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": False,
            "channel_def": {str(i): channel for i, channel in enumerate(channels)},
        }

    layers = [f"w of layer {i}" for i in range(generator.num_ws)]
    latent = entry("tuples", "latent", "n/a", [generator.w_dim], layers)
    image = entry("image", "magnitude", modality, generator.image_shape, [pixels] * generator.image_channels)
    return {"inputs": {"image": latent}, "outputs": {"pred": image}}


def describe_pictures(name: str, description: str) -> dict[str, Any]:
    """`describe`, of a prior of pictures."""
    metadata = describe(name, description)
    metadata["required_packages_version"].pop("nibabel")
    return metadata | {"task": "Prior of pictures, for their Bayesian reconstruction", "data_type": "tensor"}


def seal(folder: Path, card: str, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write the model card, `configs/inference.json`, and `configs/metadata.json` with the SHA-256 of every other file
    that is in the bundle `folder` by now."""
    (folder / "docs" / "README.md").write_text(card)
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=2) + "\n")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {p.relative_to(folder).as_posix(): digest(p) for p in files}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata | {"sha256": hashes}, indent=2) + "\n")
