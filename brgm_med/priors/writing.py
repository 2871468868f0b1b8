"""What every bundle folder has, however its prior was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brgm_med.files import digest
from brgm_med.networks.stylegan2 import StyleGAN2


def data_format(generator: StyleGAN2, pixels: str, modality: str) -> dict[str, Any]:
    """`network_data_format` of MONAI's metadata, for `synthesis`: W+ in (MONAI's tools call every input "image").

    `pixels` says what the image's values are, `modality` where they come from.
    """
    latent = {
        "type": "tuples",
        "format": "latent",
        "modality": "n/a",
        "num_channels": generator.num_ws,
        "spatial_shape": [generator.w_dim],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(i): f"w of layer {i}" for i in range(generator.num_ws)},
    }
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": modality,
        "num_channels": generator.image_channels,
        "spatial_shape": list(generator.image_shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(i): pixels for i in range(generator.image_channels)},
    }
    return {"inputs": {"image": latent}, "outputs": {"pred": image}}


def seal(folder: Path, metadata: dict[str, Any]) -> None:
    """Write `configs/metadata.json`, with the SHA-256 of every file that is in the bundle `folder` by now."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {p.relative_to(folder).as_posix(): digest(p) for p in files}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata | {"sha256": hashes}, indent=2) + "\n")
