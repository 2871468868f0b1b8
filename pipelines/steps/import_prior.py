"""`brgm-med prior import`: the generator of somebody else's file in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__
from brgm_med.files import check_new_folder, digest, new_folder
from brgm_med.priors.writing import data_format, describe_pictures, seal

if TYPE_CHECKING:
    from brgm_med.priors.foreign import Foreign

CARD = """# {name}

A StyleGAN2 generator that was not trained by brgm-med but imported from somebody else's file.

| | |
|---|---|
| source | `{file}` ({layout}) |
| SHA-256 of the source | `{sha256}` |
| pictures | {rows} x {columns}, {channels}, about [-1, 1] |
| condition | {condition} |
| discriminator | {discriminator} |

**Licence**: that of the source, which its maker states; importing changes nothing about it.
**Research only, not for diagnosis.** What it was trained on, and what it is not good for, only its maker knows.

It is a prior of pictures: `brgm-med sr` and `inpaint` take it for these, not for volumes; a conditional one is for
Python only. In Python, the paper's method:

    prior = load_prior("FOLDER")
    statistics = prior.w_statistics()  # a conditional prior: prior.w_statistics(c), c [1, c_dim]
    posterior = brgm_posterior(prior.generator, corruption, measured, statistics, features)
"""


def import_prior(file: Path, out: Path, name: str | None = None) -> Path:
    """Import the generator of `file` (see `brgm_med.priors.foreign`) into the new bundle folder `out`; returns `out`.

    `name` is by default the file's, without its ending. Weights are kept in float32, so that the pictures are the
    source's. Raises InputRefusedError where `out` exists, CannotWriteError where it cannot be made, and PriorError
    for a file that is missing, damaged, hostile or of another architecture: then nothing was run and nothing written.
    """
    check_new_folder(out)

    from safetensors.torch import save

    from brgm_med.priors import foreign

    networks = foreign.load(file)
    name = " ".join((name or file.stem).split())
    source = {"file": file.name, "sha256": digest(file), "layout": networks.layout}
    with new_folder(out) as folder:
        for sub in ("configs", "models", "docs"):
            (folder / sub).mkdir()
        for network, weights in ((networks.generator, "model"), (networks.discriminator, "discriminator")):
            if network is not None:
                tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
                (folder / "models" / f"{weights}.safetensors").write_bytes(save(tensors))
        seal(folder, card(name, source, networks), inference_config(networks), metadata(name, source, networks))
    print(f"wrote {out}, a prior of pictures; see brgm-med prior show {out}")
    return out


def inference_config(networks: Foreign) -> dict[str, Any]:
    """`configs/inference.json`: the networks as MONAI instantiates them, untrained, and the trained generator."""
    config: dict[str, Any] = {
        "bundle_root": ".",
        "network_def": {"_target_": "brgm_med.networks.stylegan2.StyleGAN2", **networks.generator_def},
        "prior": {"_target_": "brgm_med.priors.bundle.load", "prior": "@bundle_root"},
        "network": "$@prior.generator",
        "synthesis": "$@network.synthesis",
    }
    if networks.discriminator_def is not None:
        target = {"_target_": "brgm_med.networks.discriminator.Discriminator"}
        config["discriminator_def"] = target | networks.discriminator_def
    return config


def metadata(name: str, source: dict[str, str], networks: Foreign) -> dict[str, Any]:
    """The bundle's metadata, as MONAI's schema has them, with where the weights come from."""
    text = f"Pictures; imported from {source['file']}. Licence of the source, research only."
    return describe_pictures(name, text) | {
        "authors": f"the source's; imported by brgm-med {__version__}",
        "copyright": "that of the source",
        "image_classes": "pictures, about [-1, 1]",
        "source": source,
        "network_data_format": data_format(networks.generator, "pixels, about [-1, 1]", "n/a"),
    }


def card(name: str, source: dict[str, str], networks: Foreign) -> str:
    """The bundle's docs/README.md."""
    generator = networks.generator
    rows, columns = generator.image_shape
    return CARD.format(
        name=name,
        **source,
        rows=rows,
        columns=columns,
        channels={1: "grey", 3: "RGB"}.get(generator.image_channels, f"{generator.image_channels} channels"),
        condition=f"{generator.c_dim} numbers" if generator.c_dim else "none",
        discriminator="imported too" if networks.discriminator is not None else "none",
    )
