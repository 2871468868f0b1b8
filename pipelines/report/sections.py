"""The sections of a subject's report that show volumes. Each gives HTML."""

from __future__ import annotations

from collections.abc import Callable
from string import Template
from typing import Any

from PIL.Image import Image

from brgm_med.pipelines.report import images
from brgm_med.pipelines.report.entries import number, percent
from brgm_med.pipelines.report.evidence import HEAD_LEVEL, Evidence
from brgm_med.pipelines.report.images import Spot, Volume
from brgm_med.pipelines.report.page import asset, data_block, e, section
from brgm_med.pipelines.report.viewer import entry

CONVENTION = (
    "Radiological convention: the patient's right is on the left of axial and coronal pictures; in sagittal ones the "
    "face looks left."
)
FAINT = 0.01
"""A residual is never shown on a finer scale than this fraction of the way from black to white: it would look large."""


def spots(evidence: Evidence, offsets: tuple[int, ...] = (0,)) -> list[Spot]:
    """Planes of all three views, through the point to look at and as far from it as there is something to see."""
    result = []
    for view in images.VIEWS:
        for offset in offsets:
            point = evidence.focus.copy()
            point[view.across] += offset * evidence.reach[view.across]
            world = (evidence.after.grid.affine @ [*evidence.after.index(point), 1.0])[view.across]
            result.append(Spot(view, point, f"{view.name}, {'RAS'[view.across]} {world:+.0f} mm"))
    return result


def figure(image: Image, alt: str, spot: Spot, caption: str = "", kind: str = "") -> str:
    """A picture with letters at its sides."""
    marks = "".join(f'<span class="{c}">{m}</span>' for c, m in zip("lrtb", spot.view.letters, strict=True))
    size = f'width="{image.width}" height="{image.height}"'
    return (
        f'<figure class="{kind}"><div class="picture"><img src="{images.data_uri(image)}" {size} alt="{e(alt)}: '
        f'{e(spot.where)}"><span aria-hidden="true">{marks}</span></div>'
        f"<figcaption>{e(caption)}{e(spot.where)}</figcaption></figure>"
    )


def row(evidence: Evidence, alt: str, draw: Callable[[Spot], Image]) -> str:
    """Pictures of all three views, as `draw` makes them."""
    return f'<div class="row">{"".join(figure(draw(spot), alt, spot) for spot in spots(evidence))}</div>'


def compare(evidence: Evidence) -> str:
    """Images before and after, in one place or side by side."""
    low, high = images.window(evidence.scan.values)
    shown = (
        f"Black is {number(low)} and white {number(high)}, in the scan's units, before and after alike. {CONVENTION}"
    )
    angle = images.tilt(evidence.after.grid)
    if angle > 1:
        shown += f" The planes are those of the voxels, up to {angle:.0f} degrees off the patient's axes."
    pairs = []
    for spot in spots(evidence, (-1, 0, 1)):
        before, after = (images.grey(v, spot, low, high) for v in (evidence.before, evidence.after))
        left = figure(before, "Before, the scan interpolated", spot, "Before: ", "before")
        right = figure(after, "After, the result", spot, "After: ", "after")
        pairs.append(f'<div class="pair">{left}{right}</div>')
    inside = Template(asset("compare.html")).substitute(shown=e(shown), pairs="\n".join(pairs))
    return section("compare", "Before and after", inside)


def maps(evidence: Evidence) -> str:
    """Measured and inferred parts, and residuals of the result against the scan."""
    low, high = images.window(evidence.scan.values)
    parts = ["<h3>Measured and inferred</h3>"]
    if evidence.inferred is None:
        parts.append(f"<p>Not shown: {e(evidence.missing['inferred'])}.</p>")
    else:
        inferred, share = evidence.inferred, percent(float(evidence.inferred.values.mean()))
        alt = "The result, orange where it was inferred"
        pictures = row(evidence, alt, lambda s: images.tinted(images.grey(evidence.after, s, low, high), inferred, s))
        parts.append(
            "<p>Grey: measured. Orange: inferred, the more orange the less of it the scans settle; on "
            f"average {share} over the field of view.</p>{pictures}"
        )
    if evidence.residual is not None:
        residual, largest = evidence.residual, float(evidence.residual.values.max())
        top = _top(residual, low, high)
        pictures = row(evidence, "Residual", lambda s: images.heat(residual, s, top))
        small = " So black everywhere: nowhere is there a difference to be seen." if largest < top / 255 else ""
        parts.append(
            "<h3>Residual</h3><p>What the scanner's way of sampling makes of the result, minus the scan, without its "
            f"sign, on the scan's own voxels. Black is 0; white is {number(top)} in the scan's units, "
            f"{percent(top / (high - low))} of the way from black to white in the pictures above. The largest is "
            f"{number(largest)}.{small}</p>{pictures}"
        )
    elif "residual" in evidence.missing:
        parts.append(f"<h3>Residual</h3><p>Not shown: {e(evidence.missing['residual'])}.</p>")
    return section("maps", "What was measured", "".join(parts))


def registration(evidence: Evidence) -> str:
    """The template's outlines over the scan."""
    if evidence.head is None or evidence.brain is None:
        return section("registration", "Registration", f"<p>Not shown: {e(evidence.missing['registration'])}.</p>")
    low, high = images.window(evidence.scan.values)
    shapes = [(evidence.head, HEAD_LEVEL, images.BLUE), (evidence.brain, 0.5, images.ORANGE)]
    text = (
        "The template's outlines over the scan, where the registration puts them: blue its head, orange the bulk of "
        "its brain. They are those of an average head and need not follow this one everywhere, but should not be "
        "shifted or turned against it."
    )
    alt = "The scan with the template's outlines"
    scan = evidence.before
    pictures = row(evidence, alt, lambda s: images.outlined(images.grey(scan, s, low, high, images.OUTLINE), shapes, s))
    return section("registration", "Registration", f"<p>{e(text)}</p>{pictures}")


def view(evidence: Evidence, budget: int) -> str:
    """The interactive view; its volumes have `budget` bytes in all."""
    low, high = images.window(evidence.scan.values)
    wanted = [
        ("before: the scan, interpolated", evidence.before, low, high, "gray"),
        ("after: the result", evidence.after, low, high, "gray"),
    ]
    if evidence.inferred is not None:
        wanted.append(("inferred: 0 measured, 1 inferred", evidence.inferred, 0.0, 1.0, "inferno"))
    if evidence.residual is not None:
        top = _top(evidence.residual, low, high)
        wanted.append(("residual, on the scan's voxels", evidence.residual, 0.0, top, "inferno"))
    volumes: list[dict[str, Any]] = []
    for label, volume, black, white, colours in reversed(wanted):  # what those leave of their share, images may use
        share = budget // (len(wanted) - len(volumes))
        volumes.insert(0, entry(label, volume, black, white, share, colours))
        budget -= len(volumes[0]["base64"])
    sizes = "; ".join(f"{v['label']}, {v['size']}" for v in volumes)
    said = (
        "Volumes of 256 levels, the images cut off at the black and white of the pictures above. Their voxels: "
        f"{sizes}. Values read here are rounded to those levels; the files themselves hold all digits."
    )
    choice = (
        f'<option value="{i}"{" selected" if i == 1 else ""}>{e(v["label"])}</option>' for i, v in enumerate(volumes)
    )
    data = data_block("volumes", {"volumes": volumes, "focus": evidence.focus.round(2).tolist()})
    inside = Template(asset("view.html")).substitute(said=e(said), options="".join(choice), data=data)
    return section("view", "Interactive view", inside)


def _top(residual: Volume, low: float, high: float) -> float:
    return max(FAINT * (high - low), float(residual.values.max()))
