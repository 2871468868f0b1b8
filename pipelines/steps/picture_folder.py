"""Folders of pictures: one after another, each with its own mask and result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brgm_med.errors import CannotWriteError, InputRefusedError
from brgm_med.pipelines.console import say
from brgm_med.transforms.formats import pictures_in, stem
from brgm_med.transforms.formats.picture import default_output


def each(folder: Path, out: Path | None, work: Callable[[Path, Path], object]) -> None:
    """Call `work(picture, result)` for every picture in `folder`, by name; results go to the folder `out`.

    Its default is the folder's name + `_brgm`. A picture that is refused does not stop the others.

    Raises InputRefusedError at the end where any was refused, and what `pictures_in` raises.
    """
    pictures = pictures_in(folder)
    out = out or folder.with_name(f"{folder.name}_brgm")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    refused = []
    for number, path in enumerate(pictures, 1):
        say(f"{number} of {len(pictures)}: {path.name}")
        try:
            work(path, out / default_output(path).name)
        except InputRefusedError as error:
            say(f"refused: {error}")
            refused.append(path.name)
    if refused:
        raise InputRefusedError(f"{folder}: {len(refused)} of {len(pictures)} pictures refused ({', '.join(refused)})")


def mask_of(mask: Path, scan: Path) -> Path:
    """The mask of a picture: `mask` itself, or the picture of the same stem in the folder `mask`.

    Raises InputRefusedError where that folder has none.
    """
    if not mask.is_dir():
        return mask
    masks = [path for path in pictures_in(mask) if stem(path) == stem(scan)]
    if not masks:
        raise InputRefusedError(f"{scan}: {mask} holds no mask of that name; add one")
    return masks[0]
