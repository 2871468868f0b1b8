"""Pictures of results: uncurated grids, and scores along levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brgm_med.errors import UsageError
from brgm_med.files import replacing
from brgm_med.pipelines.evaluation.comparison import BETTER, is_ours, mean
from brgm_med.pipelines.evaluation.markdown import scores_of
from brgm_med.pipelines.evaluation.table import Row, grouped

SIZE, COLUMNS = 1.35, 13
"""Inches that a picture is wide, and how many are side by side."""

PANELS: dict[str, Any] = {"layout": "constrained", "squeeze": False}


def pyplot() -> Any:
    """matplotlib without a screen. Raises UsageError where it is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise UsageError("figures need matplotlib; pip install 'brgm-med[evaluate]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def grid(folder: Path, methods: Sequence[str], names: Sequence[str], out: Path, title: str) -> None:
    """A row for each picture in `names`, a column for each method in `folder`: as they were kept, nothing chosen.

    More than `COLUMNS` methods take another such block of rows.
    """
    plt = pyplot()
    shown = [method for method in methods if all((folder / method / name).is_file() for name in names)]
    first = np.asarray(Image.open(folder / shown[0] / names[0]))
    blocks = -(-len(shown) // COLUMNS)
    columns = -(-len(shown) // blocks)
    height = SIZE * first.shape[0] / first.shape[1]
    size = (SIZE * columns, (height * len(names) + 0.35) * blocks + 0.25)
    figure, axes = plt.subplots(blocks * len(names), columns, figsize=size, facecolor="black", **PANELS)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, method in enumerate(shown):
        block, column = divmod(number, columns)
        for row, name in enumerate(names):
            axis = axes[block * len(names) + row, column]
            axis.imshow(Image.open(folder / method / name), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if row == 0:
                axis.set_title(method.replace("+", "\n+ "), color="white", fontsize=7)
    figure.suptitle(title, color="white", fontsize=9)
    save(figure, out, 100)


def along_levels(rows: Sequence[Row], methods: Sequence[str], out: Path, label: str) -> None:
    """PSNR, SSIM and LPIPS of `methods` along numeric levels, means over subjects with 95 % bootstrap intervals; of
    those that were asked at every level."""
    plt = pyplot()
    scores = [score for score in ("PSNR", "SSIM", "LPIPS") if score in scores_of(rows)]
    levels = grouped(rows, "level")
    methods = [m for m in methods if all(any(row["method"] == m for row in these) for these in levels.values())]
    figure, axes = plt.subplots(1, len(scores), figsize=(4 * len(scores) + 2, 4), **PANELS)
    colours = plt.get_cmap("tab20")
    for axis, score in zip(axes[0], scores, strict=True):
        for number, method in enumerate(methods):
            means = ((float(level), mean(these, method, score)) for level, these in levels.items())
            points = sorted((level, *value) for level, value in means if value is not None)
            if not points:
                continue
            x, y, *ends = np.array(points).T
            thick = 2.2 if is_ours(method) else 1.1
            style = {"color": colours(number % 20), "linewidth": thick, "capsize": 2, "marker": "o", "markersize": 3}
            axis.errorbar(x, y, np.abs(ends - y), label=method, **style)
        axis.set(xlabel=label, ylabel=f"{score} ({'higher' if BETTER[score] > 0 else 'lower'} is better)")
        axis.set_xticks([float(level) for level in levels])
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    save(figure, out, 110)


def save(figure: Any, out: Path, dpi: int) -> None:
    """Write a figure as PNG, whole or not at all, without the time or the library in it."""
    with replacing(out, force=True) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", metadata={"Software": None})
    pyplot().close(figure)
