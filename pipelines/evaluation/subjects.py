"""Images to reconstruct: heads, brought to the prior's box, or pictures, brought to its frame."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError, PriorError, UsageError
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.training.pictures import framed, holds_pictures
from brgm_med.priors.bundle import PriorBundle
from brgm_med.transforms.cache import read_head
from brgm_med.transforms.formats import for_reading, pictures_in
from brgm_med.transforms.prepare import heads_in, prepare_heads
from brgm_med.transforms.template import load_template

Range = tuple[int | None, int | None]
"""First, and the one after the last, as Python counts."""

EVERY = 10
"""Of a head every tenth slice of the box is taken: seven slices, 20 mm apart."""


@dataclass(frozen=True)
class Subject:
    """One head, or one picture: `images` [N, C, H, W] in [-1, 1] (air -1; fat may exceed 1), their positions in the
    prior's box, and the grey `window` (lowest, highest) in which they are judged: the 0.5th to the 99.5th percentile of
    a head's, the whole range of a picture."""

    name: str
    images: Tensor
    index: tuple[int, ...]
    window: tuple[float, float]


@dataclass(frozen=True)
class Source:
    """The origin of a subject: a scan or a picture, or the file in which its prepared head is kept."""

    path: Path
    stored: Path | None = None

    def load(self, bundle: PriorBundle, every: int = EVERY) -> Subject:
        """Raises InputRefusedError for a picture that cannot be read, PriorError for a damaged kept head."""
        if self.stored is None:
            image = _framed(self.path, bundle)
            return Subject(self.path.name, image[None], (0,), (-1.0, 1.0))
        head = read_head(self.stored)
        if head is None:
            raise PriorError(f"{self.stored}: missing or damaged; run the same command again, which makes it anew")
        images = head["stack"][::every].float()
        shares = torch.tensor([0.005, 0.995], dtype=torch.float64)
        low, high = torch.quantile(images.flatten().double(), shares).tolist()
        return Subject(self.path.name, images, tuple(range(0, len(head["stack"]), every)), (low, high))


def find(data: Path, which: Range, out: Path, bundle: PriorBundle, workers: int) -> list[Source]:
    """The subjects of `data` in the range `which` of their sorted file names; heads are registered, once, in `out`.

    Raises UsageError where the prior is of another kind, InputRefusedError where nothing is found or cannot be read.
    """
    pictures = holds_pictures(data, out)
    if pictures == bundle.volumetric:
        content, wanted = ("pictures", "heads") if pictures else ("volumes", "pictures")
        raise UsageError(
            f"{data}: holds {content} and the prior {bundle.name} is of {wanted}; name another with --prior"
        )
    paths = chosen(pictures_in(data) if pictures else heads_in(data, out), which, data)
    say_identical(paths)
    if pictures:
        return [Source(path) for path in paths]
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copyfile(bundle.folder / name, out / name)
    registered = prepare_heads(paths, out, load_template(bundle).box, workers=workers)
    return [Source(path, file) for path, file in zip(paths, registered.files, strict=True)]


def chosen(paths: Sequence[Path], which: Range, data: Path) -> Sequence[Path]:
    """The paths in the range `which`. Raises UsageError, which names their folder `data`, where it holds none."""
    selected = paths[slice(*which)]
    if not selected:
        first, last = ("" if n is None else n for n in which)
        raise UsageError(f"{data}: holds {len(paths)} images, and none in the range {first}:{last}")
    return selected


def stacks(sources: Sequence[Source], bundle: PriorBundle) -> Sequence[Tensor]:
    """All slices of each head [Y, 1, H, W], or each picture [1, C, H, W], float16: the training set of baselines."""
    return [source.load(bundle, 1).images.half() for source in sources]


def _framed(path: Path, bundle: PriorBundle) -> Tensor:
    """A picture -> [C, H, W] in the prior's frame and channels, see `framed`."""
    image = framed(for_reading(path, "picture").read(path), bundle.image_shape).float()
    if len(image) > bundle.image_channels:
        raise InputRefusedError(f"{path}: is in colour and the prior {bundle.name} is of grey pictures; make it grey")
    return image.expand(bundle.image_channels, -1, -1)
