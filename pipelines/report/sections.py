"""The parts of a result's page below the picture, as the template takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from brgm_med.pipelines.report import images
from brgm_med.pipelines.report.entries import number, percent
from brgm_med.pipelines.report.evidence import HEAD_LEVEL, Evidence, Slices
from brgm_med.pipelines.report.images import Spot, Volume
from brgm_med.pipelines.report.summary import preserved

CONVENTION = (
    "Radiological convention: the patient's right is on the left of axial and coronal pictures; in sagittal ones the "
    "face looks left."
)
QUALITY = 85
"""Of JPEG."""

ICON = 72
"""Pixels of a thumbnail's longer side."""

Part = dict[str, Any]


def spots(evidence: Evidence) -> list[Spot]:
    """Planes of all three views through the point to look at."""
    world = evidence.after.grid.affine @ [*evidence.after.index(evidence.focus), 1.0]
    where = [f"{view.name}, {'RAS'[view.across]} {world[view.across]:+.0f} mm" for view in images.VIEWS]
    return [Spot(view, evidence.focus, text) for view, text in zip(images.VIEWS, where, strict=True)]


def figure(image: Image, alt: str, spot: Spot, caption: str = "", kind: str = "") -> Part:
    """A picture with letters at its sides."""
    quality = None if image.mode == "P" else QUALITY
    size = {"width": image.width, "height": image.height, "letters": spot.view.letters}
    return {
        "uri": images.data_uri(image, quality),
        "alt": alt,
        "where": spot.where,
        "caption": caption,
        "kind": kind,
    } | size


def row(evidence: Evidence, alt: str, draw: Callable[[Spot], Image]) -> list[Part]:
    """Pictures of all three views, as `draw` makes them."""
    return [figure(draw(spot), alt, spot) for spot in spots(evidence)]


def pairs(evidence: Evidence, black: float, white: float) -> list[tuple[Part, Part]]:
    """Before and after, side by side: for print, and where there is no JavaScript."""

    def one(volume: Volume, spot: Spot, alt: str, caption: str) -> Part:
        return figure(images.grey(volume, spot, black, white), alt, spot, caption)

    before, after = "Before, the scan interpolated", "After, the result"
    return [
        (one(evidence.before, s, before, "Before: "), one(evidence.after, s, after, "After: ")) for s in spots(evidence)
    ]


def icon(evidence: Evidence, black: float, white: float) -> str:
    """A small axial picture of the result, which tables of a study show."""
    picture = images.grey(evidence.after, spots(evidence)[0], black, white)
    picture.thumbnail((ICON, ICON))
    return images.data_uri(picture, QUALITY)


def convention(evidence: Evidence, black: float, white: float) -> str:
    """The black, the white and the directions of all pictures, in words."""
    shown = (
        f"Brain window: black is {number(black)} and white {number(white)}, in the scan's units, before and after "
        f"alike. {CONVENTION}"
    )
    angle = images.tilt(evidence.after.grid)
    if angle > 1:
        shown += f" The planes are those of the voxels, up to {angle:.0f} degrees off the patient's axes."
    return shown


def inferred(evidence: Evidence, black: float, white: float) -> Part | None:
    """Measured and inferred parts of the result."""
    part = evidence.inferred
    if part is None:
        return None
    text = (
        "Grey: measured. Orange: inferred, the more orange the less of it the scans settle; on average "
        f"{percent(float(part.values.mean()))} over the field of view."
    )
    alt = "The result, orange where it was inferred"
    grey = lambda spot: images.grey(evidence.after, spot, black, white)  # noqa: E731
    return {"text": text, "pictures": row(evidence, alt, lambda spot: images.tinted(grey(spot), part, spot))}


def intervals(evidence: Evidence) -> Part | None:
    """The width of the intervals, or else the standard deviation."""
    width = width_of(evidence)
    if width is None:
        return None
    volume, name = width
    top = float(np.percentile(volume.values, 99.9)) or 1.0
    mean = number(float(volume.values.mean()))
    text = f"{name}, in the scan's units: black is 0 and white {number(top)}; on average it is {mean}."
    return {"text": text, "pictures": row(evidence, name, lambda spot: images.heat(volume, spot, top))}


def width_of(evidence: Evidence) -> tuple[Volume, str] | None:
    """What the result's uncertainty is drawn by, and its name."""
    lower, upper, std = (evidence.intervals.get(name) for name in ("lower", "upper", "std"))
    if lower is not None and upper is not None:
        return Volume(upper.values - lower.values, upper.grid), "Width of the interval"
    return None if std is None else (std, "Standard deviation")


def samples(evidence: Evidence, black: float, white: float) -> list[list[Part]]:
    """Pictures of each sample."""
    return [
        row(evidence, f"Sample {k}", lambda spot, image=image: images.grey(image, spot, black, white))  # type: ignore[misc]
        for k, image in enumerate(evidence.samples, 1)
    ]


def residual(evidence: Evidence, black: float, white: float) -> Part | None:
    """The result's difference from the scan, on a scale of its own."""
    volume = evidence.residual
    if volume is None:
        return None
    largest, top = float(volume.values.max()), float(np.percentile(volume.values, 99.9))
    top = top or largest
    text = (
        "What the scanner's way of sampling makes of the result, minus the scan, without its sign, on the scan's own "
        "voxels. "
    )
    if largest == 0:
        return {"text": f"{text}It is 0 everywhere.", "pictures": []}
    text += (
        f"Black is 0; white is {number(top)} in the scan's units, {percent(top / (white - black))} of the way from "
        f"black to white in the pictures above. The largest is {number(largest)}."
    )
    if largest < 1e-3 * (white - black):
        text += " So small a difference cannot be seen in the image: what is drawn is rounding."
    return {"text": text, "pictures": row(evidence, "Residual", lambda spot: images.heat(volume, spot, top))}


def slices(means: Slices | None) -> Part | None:
    """Mean intensity of every measured slice, as the lines of a chart 600 by 140."""
    if means is None or len(means.measured) < 2:
        return None
    both = np.concatenate([means.measured, means.of_result])
    low, high = float(both.min()), float(both.max())
    x = np.linspace(10, 590, len(means.measured))

    def points(values: Any) -> str:
        y = 130 - 120 * (values - low) / (high - low or 1.0)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    outcome = preserved(means) or "is 0"
    if outcome.startswith("preserved"):
        text = f"The total intensity is {outcome}: no slice was made brighter or darker."
    else:
        text = f"The total intensity {outcome}: scans with noise, or several, are not kept to the last bit."
    ends = {"first": f"{means.axis} {means.positions[0]:+.0f}", "last": f"{means.positions[-1]:+.0f}"}
    lines = {"measured": points(means.measured), "of_result": points(means.of_result)}
    return {"text": text, "low": number(low), "high": number(high)} | ends | lines


def registration(evidence: Evidence, black: float, white: float) -> Part | None:
    """The template's outlines over the scan."""
    if evidence.head is None or evidence.brain is None:
        return None
    shapes = [(evidence.head, HEAD_LEVEL, images.BLUE), (evidence.brain, 0.5, images.ORANGE)]
    text = (
        "The template's outlines over the scan, where the registration puts them: blue its head, orange the bulk of "
        "its brain. They are those of an average head and need not follow this one everywhere, but should not be "
        "shifted or turned against it."
    )

    def draw(spot: Spot) -> Image:
        below = images.grey(evidence.before, spot, black, white, images.OUTLINE)
        return images.outlined(below, shapes, spot)

    return {"text": text, "pictures": row(evidence, "The scan with the template's outlines", draw)}


MARGIN_MM, SHEETS, COLUMNS = 15, 5, 5


def hole_sheets(evidence: Evidence, black: float, white: float) -> list[Part]:
    """For each view a sheet of slices through the hole, before above after, with its outline."""
    hole = evidence.inferred
    if hole is None or not bool((hole.values > 0.5).any()):
        return []
    parts = []
    for view in images.VIEWS:
        where = np.nonzero((hole.values > 0.5).any(tuple(a for a in range(3) if a != view.across)))[0]
        chosen = np.unique(np.linspace(where[0], where[-1], COLUMNS + 2).round().astype(int)[1:-1])
        spots = []
        for k in chosen:
            point = evidence.focus.copy()
            point += evidence.after.grid.affine[:3, view.across] * (k - evidence.after.index(point)[view.across])
            spots.append(Spot(view, point, ""))
        rows = [
            [_outlined(volume, hole, spot, black, white) for spot in spots]
            for volume in (evidence.before, evidence.after)
        ]
        cut = _around(hole, view, rows[0][0].size)
        picture = _sheet([[one.crop(cut) for one in line] for line in rows])
        ends = [_mm(evidence, view, k) for k in (chosen[0], chosen[-1])]
        name = f"{view.name}, {'RAS'[view.across]} {ends[0]:+.0f} to {ends[1]:+.0f} mm"
        parts.append(
            {"uri": images.data_uri(picture, QUALITY), "width": picture.width, "height": picture.height, "where": name}
        )
    return parts


def _mm(evidence: Evidence, view: images.View, index: int) -> float:
    affine = evidence.after.grid.affine
    return float(affine[view.across, view.across] * index + affine[view.across, 3])


def _outlined(volume: Volume, hole: Volume, spot: Spot, black: float, white: float) -> Image:
    grey = images.grey(volume, spot, black, white, images.OUTLINE)
    return images.outlined(grey, [(hole, 0.5, images.ORANGE)], spot)


def _around(hole: Volume, view: images.View, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the hole in a picture of `size`, with `MARGIN_MM` around it."""
    ends = []
    for axis, pixels in zip((view.horizontal, view.vertical), size, strict=True):
        there = np.nonzero((hole.values > 0.5).any(tuple(a for a in range(3) if a != axis)))[0]
        count, margin = hole.grid.shape[axis], MARGIN_MM / hole.grid.spacing[axis]
        low, high = count - 1 - there[-1] - margin, count - there[0] + margin  # pictures run against the axes
        ends.append((max(0, int(low / count * pixels)), min(pixels, int(np.ceil(high / count * pixels)))))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def _sheet(rows: Sequence[Sequence[Image]]) -> Image:
    """Pictures of one size in rows, a little apart."""
    from PIL import Image as pillow

    width, height = rows[0][0].size
    gap = 4
    sheet = pillow.new("RGB", (len(rows[0]) * (width + gap) - gap, len(rows) * (height + gap) - gap))
    for i, line in enumerate(rows):
        for j, picture in enumerate(line):
            sheet.paste(picture, (j * (width + gap), i * (height + gap)))
    return sheet
