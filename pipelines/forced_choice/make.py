"""Folders of pictures -> one page that a rater opens in a browser, and the key to what he was shown."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.provenance import write_json
from brgm_med.pipelines.setting import say
from brgm_med.transforms.formats import check_output, for_reading, pictures_in, replacing

QUESTION = (
    "Which of the images ({letters}) best resembles the High-Quality (HQ) image on the left? Try to strike a balance "
    "between fidelity (to HQ image) and reconstruction quality."
)
"""The paper's own."""
MOST = 6


def make(
    truth: Path,
    methods: Mapping[str, Path],
    out: Path,
    *,
    question: str | None = None,
    seed: int = 0,
    first: int | None = None,
    force: bool = False,
) -> Path:
    """Write the page `out` (HTML, self-contained) and its key beside it, OUT_key.json; returns the key's path.

    `truth` and each of the 2 to 6 `methods` are folders with pictures of the same names and sizes. For every picture
    the methods are shuffled, with `seed`; the page shows the order only as letters, and the key alone says which letter
    was which method: keep it from raters. `first`: only the first so many pictures by name. Raises UsageError,
    InputRefusedError where a picture is missing, unreadable or of another size, CannotWriteError.
    """
    if not 2 <= len(methods) <= MOST:
        raise UsageError(f"--method: give 2 to {MOST} of them, as NAME=DIR, not {len(methods)}")
    key = out.with_name(f"{out.stem}_key.json")
    check_output(out, force)
    check_output(key, force)
    pictures = pictures_in(truth)[:first]
    random = np.random.default_rng(seed)
    names, items, orders = list(methods), [], []
    for path in pictures:
        picture, size = _png(path)
        shown = []
        for method in names:
            other = methods[method] / path.name
            if not other.is_file():
                raise InputRefusedError(f"{other}: is missing; every method needs the pictures that {truth} has")
            made, found = _png(other)
            if found != size:
                raise InputRefusedError(
                    f"{other}: has {found[0]} x {found[1]} pixels, and the truth {size[0]} x {size[1]}"
                )
            shown.append(made)
        order = random.permutation(len(names)).tolist()
        items.append({"truth": picture, "options": [shown[i] for i in order], "width": size[0]})
        orders.append([names[i] for i in order])
    letters = string.ascii_uppercase[: len(names)]
    asked = question or QUESTION.format(letters=f"{letters[0]}-{letters[-1]}")
    study = hashlib.sha256(json.dumps([asked, items]).encode()).hexdigest()[:16]
    data = {"study": study, "letters": letters, "items": items, "software": f"brgm-med {__version__}"}
    with replacing(out, force) as temporary:
        temporary.write_text(_page(asked, data), encoding="utf-8")
    record = {"study": study, "methods": names, "pictures": [p.name for p in pictures], "orders": orders, "seed": seed}
    write_json(key, record | {"question": asked, "software": f"brgm-med {__version__}"}, force)
    say(f"wrote {out} ({len(items)} pictures, {len(names)} methods); keep {key.name} from raters")
    return key


def _png(path: Path) -> tuple[str, tuple[int, int]]:
    """A picture as the address of a PNG in itself, 8 bits, and its width and height."""
    picture = for_reading(path, "picture").read(path)
    low, high = picture.range
    levels = np.clip((picture.array - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
    image.save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", image.size


def _page(question: str, data: Mapping[str, object]) -> str:
    folder = resources.files(__package__)
    parts = {name: (folder / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    content = json.dumps(data).replace("<", "\\u003c")
    page = parts["html"].replace("/*CSS*/", parts["css"]).replace("<!--QUESTION-->", html.escape(question))
    return page.replace("/*DATA*/", content).replace("/*JS*/", parts["js"])


def methods_of(texts: Sequence[str]) -> dict[str, Path]:
    """["ours=DIR", ...] as they are typed. Raises UsageError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in found:
            raise UsageError(f"--method {text}: give NAME=DIR, and each name once")
        found[name] = Path(folder)
    return found
