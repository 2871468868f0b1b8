"""Data of the picture that a page begins with: both images, and what is drawn over them or read under the cursor."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from brgm_med.pipelines.report import images, mosaic
from brgm_med.pipelines.report.evidence import HEAD_LEVEL, Evidence
from brgm_med.pipelines.report.images import Colour, Volume
from brgm_med.pipelines.report.page import data_block
from brgm_med.pipelines.report.sections import width_of

IMAGE_BYTES = 1_600_000
"""Of base64, for each of the two images."""

MAP_BYTES = 250_000
MAP_MM = 1.5
"""Maps are shown in blocks of this size at least."""

GREEN: Colour = (90, 220, 120)
RED: Colour = (255, 80, 60)
Layer = dict[str, Any]


def layers(evidence: Evidence, reference: Volume) -> list[Layer]:
    """What can be drawn over the picture, in the order of its boxes. `kind`: tint (a share of a colour), heat (dark
    over red to white), line (a level line), box (a matrix from voxels to 0 to 1)."""
    result: list[Layer] = []

    def add(
        label: str, kind: str, volume: Volume, low: float, high: float, colour: Colour, on: bool = False, **more: Any
    ) -> None:
        packed = _packed(volume, reference, low, high, None if kind == "line" else MAP_BYTES)
        result.append({"label": label, "kind": kind, "colour": list(colour), "on": on, **more, **packed})

    if evidence.inferred is not None:
        hole = bool(np.isin(evidence.inferred.values.ravel()[::101], (0, 1)).all())
        if hole:
            add("hole", "line", evidence.inferred, 0.0, 1.0, images.ORANGE, on=True, level=0.5)
        else:
            add("inferred", "tint", evidence.inferred, 0.0, 1.0, images.ORANGE)
    if (width := width_of(evidence)) is not None:
        add("interval", "heat", width[0], 0.0, float(np.percentile(width[0].values, 99.9)) or 1.0, RED)
    if evidence.residual is not None and (largest := float(evidence.residual.values.max())) > 0:
        top = float(np.percentile(evidence.residual.values, 99.9)) or largest
        add("residual", "heat", evidence.residual, 0.0, top, RED)
    if evidence.box is not None:
        affine = np.asarray(reference.grid.affine)
        matrix = (evidence.box @ affine)[:3].tolist()
        result.append({"label": "the model's box", "kind": "box", "colour": list(GREEN), "on": False, "matrix": matrix})
    if evidence.head is not None and evidence.brain is not None:
        add("template", "line", evidence.head, 0.0, 1.0, images.BLUE, level=HEAD_LEVEL)
    return result


def _packed(volume: Volume, reference: Volume, low: float, high: float, budget: int | None) -> dict[str, Any]:
    """A map in blocks of about `MAP_MM`, for viewer.js; one on another grid than `reference` as it is."""
    if volume.grid.spacing == reference.grid.spacing:
        volume = mosaic.averaged(volume, mosaic.factors_within(volume.grid, mosaic.MOST_VOXELS, MAP_MM))
    return mosaic.entry(volume, reference.grid, low, high, budget)


def view(evidence: Evidence, black: float, white: float) -> tuple[Markup, list[Layer]]:
    """The JSON that viewer.js reads, and its layers."""
    low, high = images.whole_range(evidence.scan, black, white)
    voxels = mosaic.MOST_VOXELS
    while True:
        factors = mosaic.factors_within(evidence.after.grid, voxels)
        pair = [mosaic.averaged(volume, factors) for volume in (evidence.before, evidence.after)]
        after = pair[1]
        packed = [mosaic.entry(volume, after.grid, low, high, IMAGE_BYTES) for volume in pair]
        if all(one["shape"] == list(volume.values.shape) for one, volume in zip(packed, pair, strict=True)):
            break  # else one did not fit: both are shown in blocks of one size
        voxels = pair[1].values.size // 2
    drawn = layers(evidence, after)
    readings = []
    for name in ("lower", "upper"):
        if name in evidence.intervals:
            values = _packed(evidence.intervals[name], after, low, high, MAP_BYTES)
            readings.append({"label": name, "unit": "", **values})
    if evidence.inferred is not None:
        per_cent = Volume(100 * evidence.inferred.values, evidence.inferred.grid)
        readings.append({"label": "inferred", "unit": " %", **_packed(per_cent, after, 0.0, 100.0, MAP_BYTES)})
    content = {
        "shape": list(after.grid.shape),
        "spacing": [round(s, 4) for s in after.grid.spacing],
        "affine": np.asarray(after.grid.affine).round(5).tolist(),
        "focus": after.index(evidence.focus).tolist(),
        "window": [black, white],
        "before": packed[0],
        "after": packed[1],
        "layers": drawn,
        "readings": readings,
    }
    labels = [{"label": layer["label"], "swatch": f"rgb{tuple(layer['colour'])}"} for layer in drawn]
    return data_block("volumes", content), labels
