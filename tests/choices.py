"""A forced-choice study of small pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brgm_med.pipelines.forced_choice import make

METHODS = ("ours", "cubic", "lanczos", "gaussian-map")


def pixels(method: int, image: int, shape: tuple[int, ...] = (12, 10)) -> np.ndarray:
    return np.random.default_rng([method, image]).integers(0, 256, shape, np.uint8)


def folders(root: Path, images: int = 5, methods: tuple[str, ...] = METHODS) -> dict[str, Path]:
    """Pictures of noise, no two alike: of the truth, under "truth", and of every method."""
    made = {name: root / name for name in ("truth", *methods)}
    for m, folder in enumerate(made.values()):
        (folder / "sub").mkdir(parents=True)
        for i in range(images):
            Image.fromarray(pixels(m, i)).save(folder / ("sub" if i == 0 else "") / f"secret{i}.png")
    return made


def study(root: Path, images: int = 5, methods: tuple[str, ...] = METHODS, **options: Any) -> tuple[Path, Any, Any]:
    """The page, its content for its script, and its key."""
    made = folders(root, images, methods)
    truth = made.pop("truth")
    page = make(truth, made, root / "forced_choice.html", **{"seed": 1, **options})
    return page, content(page), json.loads((root / "forced_choice_key.json").read_text())


def content(page: Path) -> Any:
    """The study's data in the page's script element."""
    script = re.search(r'<script type="application/json" id="study">(.*?)</script>', page.read_text(), flags=re.S)
    assert script
    return json.loads(script[1])
