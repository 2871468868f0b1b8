"""`brgm-med study make`: pictures of several methods to a page on which raters choose blindly."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from brgm_med._version import __version__
from brgm_med.errors import UsageError, refuse
from brgm_med.files import check_apart, check_output, moved
from brgm_med.pipelines.console import say
from brgm_med.pipelines.forced_choice.key import LETTERS, key_of
from brgm_med.pipelines.report.images import bytes_of
from brgm_med.pipelines.report.page import asset, data_block, document, e
from brgm_med.transforms.formats import for_reading, pictures_in
from brgm_med.transforms.formats.picture import Picture
from brgm_med.transforms.formats.picture_encode import encode

QUESTION = (
    "Which of the images ({letters}) best resembles the High-Quality (HQ) image on the left? Try to strike a balance "
    "between fidelity (to HQ image) and reconstruction quality."
)
"""As the paper's raters were asked (Marinescu et al., Fig. 12)."""

STATEMENT = "The images with letters are derived images. For research, not for diagnosis."
MAX_BYTES = 256 << 20
"""Of a page; browsers still open one so large."""


def make(
    truth: Path,
    methods: Mapping[str, Path],
    out: Path,
    *,
    question: str | None = None,
    seed: int | None = None,
    first: int | None = None,
    force: bool = False,
) -> Path:
    """Write the page of a study to `out`, and which letter is which method to the key beside it (`key_of`).

    `truth`: a folder of pictures, subfolders included; `methods`: name -> folder with pictures of the same names (2 to
    6). Both the order of the images and that of the letters of each are drawn from `seed`, by default one that nobody
    can guess; the key holds it, and nothing in the page tells one method from another but its pixels. `first`: only the
    first so many pictures by name.

    Pictures are shown in 8 bits, those of an image all by the truth's own range (of a DICOM image: its window), colour
    profiles ignored. Raises UsageError for fewer or more methods; InputRefusedError for a method that lacks a picture,
    or has one of another size, channels or bits, and for a page over 256 MiB; and as `check_output` does.
    """
    if not 2 <= len(methods) <= len(LETTERS):
        raise UsageError(f"--method: {len(methods)} given; a study compares 2 to {len(LETTERS)} methods")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: the page's name must end in .html")
    check_apart((out, key_of(out)), [truth, *methods.values()])
    for path in (out, key_of(out)):
        check_output(path, force)
    files = pictures_in(truth)
    if first is not None and first > len(files):
        refuse(truth, f"holds {len(files)} pictures, fewer than --first {first}", "ask for fewer")
    names = [path.relative_to(truth) for path in files[:first]]
    for method, folder in methods.items():
        if not folder.is_dir():
            refuse(folder, f"(the method {method}) is not a folder", "give a folder of pictures")
        missing = next((n for n in names if not (folder / n).is_file()), None)
        if missing is not None:
            refuse(folder / missing, f"no such file: the method {method} lacks an image of the truth", "add it")
    seed = secrets.randbits(63) if seed is None else seed
    draw = np.random.default_rng(seed)
    names = [names[i] for i in draw.permutation(len(names))]
    orders = [[list(methods)[m] for m in draw.permutation(len(methods))] for _ in names]

    images, size = [], 0
    for name, order in zip(names, orders, strict=True):
        images.append(_inlined(truth / name, [methods[m] / name for m in order]))
        size += sum(len(png) for png in images[-1]["png"])
        if size > MAX_BYTES:
            advice = f"take fewer of them (--first {max(1, len(images) - 1)}) or smaller ones"
            refuse(out, f"{len(images)} of the {len(names)} images make more than {MAX_BYTES >> 20} MiB", advice)
    letters = LETTERS[: len(methods)]
    question = question or QUESTION.format(letters=f"{letters[0]}-{letters[-1]}")
    content = {"question": question, "letters": list(letters), "images": images}
    study = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    page = _page({"study": study, "page": f"brgm-med {__version__}", **content})
    key = {
        "statement": STATEMENT,
        "keep": "Whoever rates must not see this file. Without it, nothing can be tallied.",
        "software": f"brgm-med {__version__}",
        "study": study,
        "question": question,
        "seed": seed,
        "methods": list(methods),
        "images": [{"image": n.as_posix(), "methods": order} for n, order in zip(names, orders, strict=True)],
    }
    with moved([out, key_of(out)], force) as (new_page, new_key):
        new_page.write_text(page, encoding="utf-8")
        new_key.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    say(
        f"wrote {out} ({len(names)} images, {len(page) / 1e6:.1f} MB) and {key_of(out).name}: keep that from the raters"
    )
    return out


def _inlined(truth: Path, results: list[Path]) -> dict[str, Any]:
    """`png`: base64 of the truth and the results as PNG of 8 bits; their width and height."""
    pictures: list[Picture] = [for_reading(path, "picture").read(path) for path in (truth, *results)]
    true = pictures[0]
    for picture in pictures[1:]:
        for own, wanted in zip(_form(picture), _form(true), strict=True):
            if own != wanted:
                problem = f"has {own} and the true image {truth} {wanted}"
                refuse(picture.path, problem, "give pictures that differ in content only")
    low, high = true.window or true.range
    png = [encode(bytes_of(p.array.astype(np.float64), low, high), "PNG", None, None, None) for p in pictures]
    height, width = true.shape
    return {"width": width, "height": height, "png": [base64.b64encode(data).decode("ascii") for data in png]}


def _form(picture: Picture) -> tuple[str, str, str]:
    rows, columns = picture.shape
    return f"{columns} x {rows} pixels", f"{picture.channels} channels", f"{picture.bits} bits"


def _page(content: dict[str, Any]) -> str:
    html, css, js = (asset(f"page.{kind}", "brgm_med.pipelines.forced_choice") for kind in ("html", "css", "js"))
    letters = content["letters"]
    body = Template(html).substitute(
        question=e(content["question"]),
        statement=e(STATEMENT),
        count=len(content["images"]),
        last=letters[-1],
        digit=len(letters),
        data=data_block("study", content),
    )
    return document("Which image is most like the true one?", body, [js], css, 2 * MAX_BYTES)
