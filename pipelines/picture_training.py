"""`brgm-med train` of a folder of pictures: RUN/pictures.safetensors, prepared.json, and the rest of a run."""

from __future__ import annotations

from pathlib import Path

import torch

from brgm_med._version import __version__
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.picture_preparation import pictures_of, prepare_pictures, prepared_pictures
from brgm_med.pipelines.provenance import describe
from brgm_med.pipelines.training import finished_state, run
from brgm_med.training import distributed
from brgm_med.training.export import export_pictures
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture

CARD = """# {name}

A prior of pictures of 64 x 64 pixels, trained by brgm-med {version} on {count} pictures of {data} (named
in configs/metadata.json), without mirror images. Research only, not for diagnosis.

It was shown {images} images. Pictures were cut to their central square and made 64 x 64; finer detail
is not known to it.
"""


def architecture(channels: int) -> Architecture:
    """The three networks for 64 x 64 pictures of 1 (grey) or 3 (RGB) channels, without a condition."""
    return Architecture(
        base_shape=(4, 4),
        c_dim=0,
        generator_channels=(128, 128, 96, 48, 24),
        discriminator_channels=(128, 128, 64, 32, 16),
        encoder_channels=(128, 96, 64, 48, 24),
        image_channels=channels,
    )


def train_pictures(
    data: Path,
    out: Path,
    *,
    kimg: float,
    count: int | None,
    held_out: int | None,
    seed: int,
    lpips_weights: Path | None,
) -> None:
    """`training.train` for pictures: on the first `count` of them, by name. Without flips: a chest has its heart on the
    left."""
    with distributed.process_group():
        if distributed.rank() == 0:
            prepare_pictures(data, out, count, held_out)
        distributed.anyone(False, distributed.device())  # the others wait
        stacks, measured = pictures_of(out), pictures_of(out, "held_out")
        recipe, networks = Recipe(seed=seed, flip=False), architecture(stacks[0].shape[1])
        text = f"{len(stacks)} pictures, {len(measured)} held out, {torch.get_num_threads()} threads"
        run(out, networks, recipe, stacks, measured, kimg=kimg, lpips_weights=lpips_weights, text=text)
        if distributed.rank() == 0:
            finish(data, out)


def finish(data: Path, out: Path) -> None:
    """Write the prior of the run `out` into `out/prior`."""
    announce("writing the prior")
    stacks, record = pictures_of(out), prepared_pictures(out)
    networks = architecture(stacks[0].shape[1])
    state, metrics = finished_state(out, networks)
    count = len(record["pictures"])
    text = f"Trained by brgm-med {__version__} on {count} pictures of {data.name}. Research only."
    described = describe(out.name, text)
    described["required_packages_version"].pop("nibabel")
    metadata = described | {
        "task": "Prior of pictures, for their Bayesian reconstruction",
        "data_type": "tensor",
        "image_classes": "pictures, -1 to 1",
        "normalisation": "-1 and 1 are the ends of each picture's own range",
        "pictures": [one["name"] for one in record["pictures"]],
        "held_out": [one["name"] for one in record["held_out"]],
        "eval_metrics": metrics,
    }
    card = CARD.format(name=out.name, version=__version__, count=count, data=data.name, images=state.images)
    licence = "As the training data's.\n"
    export_pictures(state, networks, stacks, out / "prior", metadata=metadata, card=card, licence=licence)
    announce(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
