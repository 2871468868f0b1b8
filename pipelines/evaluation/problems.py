"""Measurements of an image: averages of pixels, thick slices, holes, and those that no baseline was trained for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from brgm_med.corruptions import Mask, SliceProfile, profile_matrix
from brgm_med.corruptions.profile import Profile
from brgm_med.errors import UsageError

TASKS = ("sr", "slices", "inpaint", "shift")


@dataclass(frozen=True)
class Problem:
    """One measurement of images [N, C, H, W] in [-1, 1]: y = corruption(truth(x)) + noise n, n ~ N(0, 1).

    `block`: pixels that one sample averages, (rows, columns), (1, 1) for a hole. `trained_for`: for which problem a
    trained baseline that meets it was trained. `truth` makes of an image the one that is to be reconstructed.
    """

    task: str
    level: str
    corruption: nn.Module
    block: tuple[int, int] = (1, 1)
    trained_for: str = ""
    noise: float = 0.0
    truth: Callable[[Tensor], Tensor] = lambda images: images

    def measure(self, truth: Tensor, seed: int) -> Tensor:
        """y, with the noise of this seed."""
        y = self.corruption(truth)
        if self.noise:
            y = y + self.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        return y


def problem_at(task: str, level: str, shape: tuple[int, int], spacing: float | None, trained: str = "sr-4") -> Problem:
    """The problem of a task at a level for images of `shape` (rows, columns), pixels of `spacing` mm (None: not known).

    Levels: of "sr" whole factors; of "slices" thicknesses in mm; of "inpaint" names of `holes`; of "shift" names of
    `shifts`, which a trained baseline meets as the one for `trained`. Raises UsageError for another.
    """
    if task == "sr":
        factor = _number(level)
        if not (factor == int(factor) and 2 <= factor <= min(shape)):
            raise UsageError(f"--levels {level}: give a factor that is a whole number from 2 to {min(shape)}")
        block = (int(factor), int(factor))
    elif task == "slices":
        if spacing is None:
            raise UsageError("--task slices: is for heads; pictures have no slices")
        rows = _number(level) / spacing
        if not (rows == int(rows) and 1 < rows <= shape[0]):
            raise UsageError(f"--levels {level}: give a thickness in mm that is a multiple of {spacing:g}")
        block = (int(rows), 1)
    else:
        named = shifts(shape, trained)
        if task == "inpaint":
            named = {name: Problem(task, name, Mask(~hole)) for name, hole in holes(*shape).items()}
        if level not in named:
            raise UsageError(f"--levels {level!r}: --task {task} has {', '.join(map(repr, named))}")
        return named[level]
    return Problem(task, level, averages(shape, block), block, f"{task}-{level}")


def default_levels(task: str, shape: tuple[int, int]) -> list[str]:
    """The levels of a task that are meant when none are named."""
    if task in ("inpaint", "shift"):
        return list(holes(*shape) if task == "inpaint" else shifts(shape))
    return ["2", "3", "4", "6", "8"] if task == "sr" else ["4", "6", "8"]


def averages(
    shape: tuple[int, int], block: tuple[int, int], profile: Profile = "box", width: float = 1.0
) -> SliceProfile:
    """Samples `block` (rows, columns) pixels apart, each a `profile` that is `width` times as wide; from the first edge
    on, so that rows and columns which are left over at the end are not measured."""

    def matrix(size: int, step: int) -> Tensor | None:
        return None if step == 1 else profile_matrix(size, 1.0, size // step, step, width * step, profile)

    return SliceProfile([None, matrix(shape[0], block[0]), matrix(shape[1], block[1])])


def holes(rows: int, columns: int) -> dict[str, Tensor]:
    """Seven holes [rows, columns], True = unknown: rectangles and arbitrary shapes, from lesion to half a head."""
    y, x = np.mgrid[:rows, :columns] / np.array([rows, columns])[:, None, None]

    def rectangle(top: float, bottom: float, left: float, right: float) -> np.ndarray:
        return (y >= top) & (y < bottom) & (x >= left) & (x < right)

    strokes = Image.new("1", (columns, rows))
    random = np.random.default_rng(0)
    for _ in range(6):
        line = random.uniform((0.1, 0.2), (0.9, 0.8), (4, 2)) * (columns, rows)
        ImageDraw.Draw(strokes).line([tuple(point) for point in line], 1, max(1, rows // 20), "curve")
    shapes = {
        "disc": np.hypot((y - 0.38) * rows, (x - 0.36) * columns) < 0.09 * rows,
        "square": rectangle(0.25, 0.5, 0.55, 0.75),
        "band": rectangle(0.38, 0.5, 0.1, 0.9),
        "centre": rectangle(0.3, 0.62, 0.33, 0.66),
        "ellipse": np.hypot((y - 0.42) / 0.22, (x - 0.66) / 0.12) < 1,
        "half": rectangle(0.05, 0.9, 0.05, 0.5),
        "strokes": np.asarray(strokes),
    }
    return {name: torch.from_numpy(hole.copy()) for name, hole in shapes.items()}


def shifts(shape: tuple[int, int], trained: str = "sr-4") -> dict[str, Problem]:
    """Measurements unlike the one that an baseline was trained for, averages of 4 x 4 pixels: by name."""

    def problem(name: str, factor: int = 4, profile: Profile = "box", width: float = 1.0, **more: Any) -> Problem:
        corruption = averages(shape, (factor, factor), profile, width)
        return Problem("shift", name, corruption, (factor, factor), trained, **more)

    posed = (
        problem("as trained"),
        problem("factor 3", 3),
        problem("factor 5", 5),
        problem("factor 8", 8),
        problem("Gaussian kernel", profile="gaussian"),
        problem("wide kernel, 6 pixels", width=1.5),
        problem("narrow kernel, 2 pixels", width=0.5),
        problem("noise 2 %", noise=0.04),
        problem("noise 5 %", noise=0.1),
        problem("noise 10 %", noise=0.2),
        problem("turned 10 degrees", truth=lambda x: turned(x, 10)),
        problem("turned 30 degrees", truth=lambda x: turned(x, 30)),
        problem("upside down", truth=lambda x: x.flip(2)),
        problem("contrast flatter", truth=lambda x: contrast(x, 0.5)),
        problem("contrast steeper", truth=lambda x: contrast(x, 2.0)),
        problem("contrast inverted", truth=inverted),
    )
    return {p.level: p for p in posed}


def turned(images: Tensor, degrees: float) -> Tensor:
    """Images turned about their middle, bilinear, with air beyond their border."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows, columns = images.shape[2:]
    turn = torch.tensor([[c, -s * rows / columns, 0], [s * columns / rows, c, 0]]).expand(len(images), -1, -1)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def contrast(images: Tensor, power: float) -> Tensor:
    """Grey values over air, v + 1, to a power; the mean of the brain, v = 0, and air, v = -1, stay."""
    return (images + 1).clamp_min(0) ** power - 1


def inverted(images: Tensor) -> Tensor:
    """Bright is dark: air stays dark, and between 1/4 and 1 of the way to the brain's mean and twice that is turned."""
    over = (images + 1).clamp_min(0)
    inside = (over / 0.25).clamp_max(1)
    return inside * (2 - over).clamp_min(0) - 1


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--levels {text!r}: is not a number") from None
