"""A run's pictures: a folder of them in; RUN/pictures.safetensors, all in the prior's frame, and their record out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, PriorError
from brgm_med.files import digest, overwriting, write_json
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.training.run import LICENCE, TrainingSet, finished_state, prepared, refuse_others, split
from brgm_med.priors.writing import describe_pictures
from brgm_med.training.export import export_bundle
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture
from brgm_med.transforms.formats import endings, for_reading, pictures_in
from brgm_med.transforms.formats.picture import Picture
from brgm_med.transforms.formats.visible import visible_files
from brgm_med.transforms.formats.zipped import is_zip, unpacked_pictures
from brgm_med.transforms.frame import Frame
from brgm_med.transforms.intensity import Normalisation

SIZE = (64, 64)
"""Rows and columns of a prior of pictures."""

FILE = "pictures.safetensors"
Part = Literal["pictures", "held_out"]


def holds_pictures(data: Path, without: Path) -> bool:
    """True where the folder `data` is one of pictures, and not of volumes; the folder `without` aside.

    Raises InputRefusedError where it holds both.
    """
    if not data.is_dir():
        return False
    run = without.resolve()
    files = [p for p in visible_files(data) if not p.is_dir()]
    names = [p.name.lower() for p in files if not p.resolve().is_relative_to(run)]
    volumes = any(name.endswith(endings("volume")) for name in names)
    try:
        pictures = bool(_paths(data, without))
    except InputRefusedError:
        pictures = False
    if volumes and pictures:
        raise InputRefusedError(f"{data}: holds volumes and pictures; give a folder of one kind")
    return pictures


@contextmanager
def unpacked(data: Path) -> Iterator[Path]:
    """The folder of a data set of pictures; of a zip (StyleGAN2-ADA's data sets), one into which it is unpacked.

    The prior is of pictures without a condition: labels do not enter, and that is said. Refusals name the zip.
    """
    if not (is_zip(data) and data.is_file()):
        yield data
        return
    folder, labelled = unpacked_pictures(data, endings("picture"))
    if labelled:
        announce(f"{data}: its labels (dataset.json) do not enter; the prior is of all its pictures together")
    try:
        yield folder
    except InputRefusedError as error:
        raise InputRefusedError(str(error).replace(str(folder), str(data))) from error


def prepare(data: Path, out: Path, count: int | None, held_out: int | None) -> None:
    """Bring the first `count` pictures of `data`, by name, and the `held_out` ones after them into the prior's frame,
    -1 to 1, and write them into `out`.

    Grey if all are, else RGB. Raises PriorError where `out` was trained on others, InputRefusedError for a picture
    that cannot be read.
    """
    paths = _paths(data, out)
    first, after = split(len(paths), count, held_out, "pictures")
    paths = paths[: first + after]
    say_identical(paths, paths[:first])
    entries = [{"name": path.name, "sha256": digest(path)} for path in paths]
    record = {"frame": list(SIZE), "pictures": entries[:first], "held_out": entries[first:]}
    hashes = [entry["sha256"] for entry in entries]
    refuse_others(out, "pictures", hashes[:first], hashes[first:])
    images = [framed(for_reading(path, "picture").read(path), SIZE).half() for path in paths]
    channels = max(len(image) for image in images)
    stack = torch.stack([image.expand(channels, -1, -1) for image in images])
    with overwriting(out / FILE) as partial:
        save_file({"pictures": stack}, partial)
    write_json(out / "prepared.json", record, force=True)
    announce(f"prepared {len(paths)} pictures, {'grey' if channels == 1 else 'RGB'}")


def framed(picture: Picture, shape: tuple[int, int]) -> Tensor:
    """A picture -> [C, *shape], its own range being -1 to 1; what does not fit the frame is cut off."""
    values = Normalisation.of_range(*picture.range).forward(torch.from_numpy(picture.array)[None])
    return Frame.fit(picture.shape, shape, "crop").to_frame(values)[0]


def pictures_of(run: Path, part: Part = "pictures") -> list[Tensor]:
    """The pictures of a run that are trained on, or held out: each a stack of one, [1, C, 64, 64], float16.

    Raises PriorError where the file is missing or damaged.
    """
    count = len(prepared(run, "pictures")["pictures"])
    try:
        stack = load_file(run / FILE)["pictures"]
    except (OSError, KeyError, SafetensorError) as error:
        raise PriorError(f"{run / FILE}: missing or damaged; run brgm-med train again") from error
    return list((stack[:count] if part == "pictures" else stack[count:]).split(1))


def _paths(data: Path, without: Path) -> list[Path]:
    run = without.resolve()
    return [p for p in pictures_in(data) if not p.resolve().is_relative_to(run)]


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


def training_set(run: Path, seed: int) -> TrainingSet:
    """The pictures of a run. They are not mirrored: a chest has its heart on the left."""
    stacks, held_out = pictures_of(run), pictures_of(run, "held_out")
    text = f"{len(stacks)} pictures, {len(held_out)} held out, {torch.get_num_threads()} threads"
    return TrainingSet(stacks, held_out, architecture(stacks[0].shape[1]), Recipe(seed=seed, flip=False), text)


def finish(data: Path, run: Path) -> None:
    """Write the prior of the run into `run/prior`, with a card that says what is known of it."""
    stacks, record = pictures_of(run), prepared(run, "pictures")
    networks = architecture(stacks[0].shape[1])
    state, metrics = finished_state(run, networks)
    count = len(record["pictures"])
    text = f"Trained by brgm-med {__version__} on {count} pictures of {data.name}. Research only."
    metadata = describe_pictures(run.name, text) | {
        "image_classes": "pictures, -1 to 1",
        "normalisation": "-1 and 1 are the ends of each picture's own range",
        "pictures": [one["name"] for one in record["pictures"]],
        "held_out": [one["name"] for one in record["held_out"]],
        "eval_metrics": metrics,
    }
    card = CARD.format(name=run.name, version=__version__, count=count, data=data.name, images=state.images)
    export_bundle(state, networks, stacks, run / "prior", metadata=metadata, card=card, licence=LICENCE)
