"""A certificate in words and as a table. Every number is the certificate's; what it does not hold is not said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def at(record: Any, *keys: str) -> Any:
    """The entry of nested dictionaries under `keys`, or None where there is none."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def number(value: Any) -> str | None:
    """Three digits of a number, all of an integer; None for what is none. 1.9e-08 -> "1.9 × 10⁻⁸"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return f"{value:,}"
    if 100 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    digits, _, power = f"{value:.3g}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(RAISED)}" if power else digits


def percent(value: Any) -> str | None:
    """A fraction as per cent."""
    if number(value) is None:
        return None
    if value in (0, 1) or 0.01 <= value <= 0.99:
        return f"{100 * value:.0f} %"
    return f"{100 * value:.{2 if value < 0.5 else 4}g} %"


def axes(record: Any) -> str | None:
    """{"R": 2.0, "A": 2.0, "S": 6.0} -> "2 mm (R) x 2 mm (A) x 6 mm (S)"."""
    if not isinstance(record, dict):
        return None
    parts = [f"{number(record[a])} mm ({a})" for a in "RAS" if number(record.get(a)) is not None]
    return " x ".join(parts) or None


def paragraphs(certificate: dict[str, Any]) -> list[str]:
    """Sentences of the certificate, for a reader who knows scans but not this program. Plain text."""
    first = (_filling, _outside) if "hole" in certificate else (_doing, _keeping)
    parts = [part(certificate) for part in (*first, _noise, _model, _prior, _reach, _fit)]
    return [" ".join(sentences) for sentences in parts if sentences]


def _doing(c: dict[str, Any]) -> list[str]:
    name, result = at(c, "source", "file"), at(c, "result", "file")
    said = []
    if isinstance(name, str) and isinstance(result, str):
        said.append(f"The scan {name} was reconstructed on a finer grid as {result}.")
    others = c.get("further_scans")
    names = [at(other, "file") for other in others] if isinstance(others, list) else []
    if names:
        further = ", ".join(name if isinstance(name, str) else "one without a name" for name in names)
        said.append(
            f"Further scans of the same head went into it: {further}; what follows is of the first unless it says so."
        )
    spacing = axes(at(c, "acquisition", "Spacing"))
    if spacing:
        said.append(f"The scan was sampled every {spacing}.")
    return said


def _keeping(c: dict[str, Any]) -> list[str]:
    consistency = c.get("consistency")
    residual = number(at(consistency, "relative_residual"))
    if residual is None:
        return []
    said = [
        "How well what was measured is kept: with the scanner's way of sampling applied to it, the result gives the "
        f"scan back with a relative residual of {residual} (0 would be exactly)."
    ]
    largest, inside, samples = (number(at(consistency, k)) for k in ("max_abs_residual", "samples_inside", "samples"))
    if largest is not None:
        over = f", over {inside} of its {samples} samples" if inside and samples else ""
        said.append(f"The largest difference is {largest} in the scan's units{over}.")
    others = at(consistency, "further_scans")
    others = [number(at(other, "relative_residual")) for other in others] if isinstance(others, list) else []
    if any(others):
        said.append(f"Of the further scans it is {', '.join(other or 'unknown' for other in others)}.")
    bound, within = number(at(consistency, "bound")), at(consistency, "within_bound")
    if bound is not None and isinstance(within, bool):
        said.append(
            f"The result is stored as whole numbers; rounding alone can make a difference of {bound}, and the largest "
            f"one is {'within' if within else 'beyond'} that."
        )
    return said


def _noise(c: dict[str, Any]) -> list[str]:
    levels, residual = c.get("noise"), number(at(c, "consistency", "residual_rms"))
    first = levels[0] if isinstance(levels, list) and levels else None
    deviation, kind = at(first, "deviation"), at(first, "kind")
    if number(deviation) is None or not isinstance(kind, str):
        return []
    if kind == "unidentified":
        return ["How noisy the scan is could not be told from the air in it; it is taken to have no noise."]
    if deviation == 0:
        return ["The scan is taken to have no noise."]
    origin = "was stated" if kind == "stated" else f"was estimated in the air around the head ({kind})"
    said = [f"The standard deviation of the scan's noise {origin} as {number(deviation)} in its units."]
    if residual:
        said.append(
            f"The result differs from the scan by {residual} (root mean square): where that is not larger than the "
            "noise, they agree as well as the scan can tell."
        )
    return said


def _filling(c: dict[str, Any]) -> list[str]:
    name, mask, count = at(c, "source", "file"), at(c, "mask", "file"), number(at(c, "hole", "voxels"))
    said = []
    if isinstance(name, str) and isinstance(mask, str) and count:
        said.append(f"In the scan {name}, the {count} voxels that {mask} marks as unknown were filled.")
    inferred, rim = (percent(at(c, "hole", k)) for k in ("inferred_by_the_prior", "interpolated_from_its_rim"))
    if inferred and rim:
        said.append(f"Of these, {inferred} were inferred by the prior and {rim} interpolated from the hole's rim.")
    clipped = at(c, "hole", "clipped_to_the_voxel_type")
    if number(clipped) is not None and clipped > 0:
        said.append(f"{clipped:,} of them were beyond what the scan's voxel type can hold and were cut to its limit.")
    if at(c, "mask", "resampled") is True:
        said.append("The mask was on another grid and was taken nearest-neighbour.")
    return said


def _outside(c: dict[str, Any]) -> list[str]:
    voxels, changed = number(at(c, "outside_the_hole", "voxels")), number(at(c, "outside_the_hole", "changed"))
    return [f"Of the {voxels} voxels outside the hole, {changed} were changed."] if voxels and changed else []


def _model(c: dict[str, Any]) -> list[str]:
    thickness, profile = axes(at(c, "acquisition", "Thickness")), at(c, "acquisition", "Profile")
    if thickness is None or "hole" in c:
        return []
    origin = at(c, "acquisition", "Origin")
    said = [
        f"Each sample is taken as the average over {thickness}"
        + (f", {profile} profile" if isinstance(profile, str) else "")
        + (f": {origin}." if isinstance(origin, str) else ".")
    ]
    if at(c, "acquisition", "Stated") is False:
        said.append(
            "Nobody stated this: if the slices were thicker or thinner, or had gaps, the numbers above speak of a scan "
            "that was sampled otherwise."
        )
    return said


def _prior(c: dict[str, Any]) -> list[str]:
    name, finest = at(c, "prior", "name"), number(at(c, "prior", "finest_detail_mm"))
    if not isinstance(name, str):
        return []
    subject = "What fills the hole" if "hole" in c else "Detail finer than the scan's"
    said = [
        f"{subject} is inferred by the statistical model {name}: it is what is most probable for heads like those that "
        "the model was trained on, not an observation. It may leave out a lesion, or show structure that is not there."
    ]
    if finest:
        said.append(f"The model knows of no detail finer than {finest} mm, however fine the grid is.")
    return said


def _reach(c: dict[str, Any]) -> list[str]:
    reached, runs, axis = (at(c, "coverage", k) for k in ("voxels_with_prior", "interpolated_slices", "slice_axis"))
    said = []
    explained = percent(at(c, "explained_by_the_scans", "mean"))
    if explained:
        said.append(
            f"Of what differs between heads in a voxel (its variance), the scans account for {explained} on average "
            "over the field of view; the rest is the model's."
        )
    if percent(reached):
        said.append(f"The model reached {percent(reached)} of the voxels of the field of view.")
    if isinstance(runs, list) and runs and all(isinstance(r, list) and len(r) == 2 for r in runs):
        spans = ", ".join(f"{a} to {b}" if a != b else f"{a}" for a, b in runs)
        of = f" (array index along axis {axis}, from 0)" if isinstance(axis, int) else ""
        said.append(f"The coronal slices {spans}{of} are interpolated only.")
    return said


def _fit(c: dict[str, Any]) -> list[str]:
    correlation, scale = at(c, "registration", "correlation"), at(c, "registration", "scale")
    if number(correlation) is None:
        return []
    said = [f"The head was laid onto the model's template with a correlation of {number(correlation)} (1 is perfect)."]
    if number(scale) and abs(scale - 1) > 0.01:
        said.append(f"It was taken as {number(scale)} times as large as the template.")
    return said


def rows(record: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of a certificate, known or not: ("prior / name", value as JSON writes it)."""
    if isinstance(record, dict) and record:
        for key, value in record.items():
            yield from rows(value, f"{name} / {key}" if name else str(key))
    elif isinstance(record, list) and any(isinstance(entry, dict) for entry in record):
        for i, value in enumerate(record, 1):
            yield from rows(value, f"{name} / {i}")
    else:
        yield name, record if isinstance(record, str) else json.dumps(record)
