"""The sections of a subject's report that show volumes. Each gives HTML."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from brgm_med.pipelines.report.evidence import HEAD_LEVEL, Evidence
from brgm_med.pipelines.report.images import (
    BLUE,
    ORANGE,
    OUTLINE,
    VIEWS,
    View,
    Volume,
    data_uri,
    grey,
    heat,
    outlined,
    tilt,
    tinted,
    window,
)
from brgm_med.pipelines.report.page import asset, data_block, e, section
from brgm_med.pipelines.report.viewer import entry
from brgm_med.pipelines.report.words import number, percent

CONVENTION = (
    "Radiological convention: the patient's right is on the left of axial and coronal pictures; in sagittal ones the "
    "face looks left."
)
FAINT = 0.01
"""A residual is never shown on a finer scale than this fraction of the way from black to white: it would look large."""


@dataclass(frozen=True, eq=False)
class Spot:
    """A plane to look at: through `point` (RAS mm), called `where`."""

    view: View
    point: NDArray[np.float64]
    where: str


def spots(found: Evidence, offsets: tuple[int, ...] = (0,)) -> list[Spot]:
    """Planes of all three views, through the point to look at and as far from it as there is something to see."""
    result = []
    for view in VIEWS:
        for offset in offsets:
            point = found.focus.copy()
            point[view.across] += offset * found.reach[view.across]
            world = (found.after.grid.affine @ [*found.after.index(point), 1.0])[view.across]
            result.append(Spot(view, point, f"{view.name}, {'RAS'[view.across]} {world:+.0f} mm"))
    return result


def figure(image: Image, alt: str, spot: Spot, caption: str | None = None, kind: str = "") -> str:
    """A picture with letters at its sides."""
    marks = "".join(f'<span class="{c}">{m}</span>' for c, m in zip("lrtb", spot.view.letters, strict=True))
    size = f'width="{image.width}" height="{image.height}"'
    return (
        f'<figure class="{kind}"><div class="picture"><img src="{data_uri(image)}" {size} alt="{e(alt)}: '
        f'{e(spot.where)}"><span aria-hidden="true">{marks}</span></div>'
        f"<figcaption>{e(caption or '')}{e(spot.where)}</figcaption></figure>"
    )


def row(figures: list[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def compare(found: Evidence) -> str:
    """Before and after, in one place or side by side."""
    low, high = window(found.scan.values)
    shown = (
        f"Black is {number(low)} and white {number(high)}, in the scan's units, before and after alike. {CONVENTION}"
    )
    angle = tilt(found.after.grid)
    if angle > 1:
        shown += f" The planes are those of the voxels, up to {angle:.0f} degrees off the patient's axes."
    pairs = []
    for spot in spots(found, (-1, 0, 1)):
        before, after = (grey(v, spot.view, spot.point, low, high) for v in (found.before, found.after))
        sides = (
            figure(before, "Before, the scan interpolated", spot, "Before: ", "before"),
            figure(after, "After, the result", spot, "After: ", "after"),
        )
        pairs.append(f'<div class="pair">{"".join(sides)}</div>')
    inside = Template(asset("compare.html")).substitute(shown=e(shown), pairs="\n".join(pairs))
    return section("compare", "Before and after", inside)


def maps(found: Evidence) -> str:
    """What was measured and what inferred, and how far the result is from the scan."""
    low, high = window(found.scan.values)
    parts = ["<h3>Measured and inferred</h3>"]
    if found.inferred is None:
        parts.append(f"<p>Not shown: {e(found.missing['inferred'])}.</p>")
    else:
        share = percent(float(found.inferred.values.mean()))
        pictures = [
            figure(
                tinted(grey(found.after, s.view, s.point, low, high), found.inferred, s.view, s.point),
                "The result, orange where it was inferred",
                s,
            )
            for s in spots(found)
        ]
        parts.append(
            "<p>Grey: measured. Orange: inferred, the more orange the less was measured; on average "
            f"{share} of the field of view.</p>{row(pictures)}"
        )
    if found.residual is not None:
        largest, top = float(found.residual.values.max()), _top(found.residual, low, high)
        pictures = [figure(heat(found.residual, s.view, s.point, top), "Residual", s) for s in spots(found)]
        small = " So black everywhere: nowhere is there a difference to be seen." if largest < top / 255 else ""
        parts.append(
            "<h3>Residual</h3><p>What the scanner's way of sampling makes of the result, minus the scan, without its "
            f"sign, on the scan's own voxels. Black is 0; white is {number(top)} in the scan's units, "
            f"{percent(top / (high - low))} of the way from black to white in the pictures above. The largest is "
            f"{number(largest)}.{small}</p>{row(pictures)}"
        )
    elif "residual" in found.missing:
        parts.append(f"<h3>Residual</h3><p>Not shown: {e(found.missing['residual'])}.</p>")
    return section("maps", "What was measured", "".join(parts))


def registration(found: Evidence) -> str:
    """The template's outlines over the scan."""
    if found.head is None or found.brain is None:
        return section("registration", "Registration", f"<p>Not shown: {e(found.missing['registration'])}.</p>")
    low, high = window(found.scan.values)
    shapes = [(found.head, HEAD_LEVEL, BLUE), (found.brain, 0.5, ORANGE)]
    pictures = []
    for s in spots(found):
        below = grey(found.before, s.view, s.point, low, high, OUTLINE)
        pictures.append(figure(outlined(below, shapes, s.view, s.point), "The scan with the template's outlines", s))
    text = (
        "The template's outlines over the scan, where the registration puts them: blue its head, orange the bulk of "
        "its brain. They are those of an average head and need not follow this one everywhere, but should not be "
        "shifted or turned against it."
    )
    return section("registration", "Registration", f"<p>{e(text)}</p>{row(pictures)}")


def view(found: Evidence, budget: int) -> str:
    """The interactive view; its volumes have `budget` bytes in all."""
    low, high = window(found.scan.values)
    each = budget // 4
    volumes = [
        entry("after: the result", found.after, low, high, each),
        entry("before: the scan, interpolated", found.before, low, high, each),
    ]
    if found.residual is not None:
        top = _top(found.residual, low, high)
        volumes.append(entry("residual, on the scan's voxels", found.residual, 0.0, top, each, "inferno"))
    tint = None if found.inferred is None else entry("inferred", found.inferred, 0.0, 1.0, each, "inferred")
    sizes = "; ".join(f"{v['label']}: {v['size']}" for v in [*volumes, *([tint] if tint else [])])
    said = (
        f"Volumes of 256 levels, cut off at the black and white of the pictures above. Voxels: {sizes}. Values read "
        "here are rounded to those levels; the files themselves hold all digits."
    )
    inside = Template(asset("view.html")).substitute(
        said=e(said),
        options="".join(f'<option value="{i}">{e(v["label"])}</option>' for i, v in enumerate(volumes)),
        tinted="" if tint else "hidden",
        data=data_block("volumes", {"volumes": volumes, "tint": tint, "focus": found.focus.round(2).tolist()}),
    )
    return section("view", "Interactive view", inside)


def _top(residual: Volume, low: float, high: float) -> float:
    return max(FAINT * (high - low), float(residual.values.max()))
