"""A result in ten lines: term and text, from its certificate and from its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from brgm_med.pipelines.report.entries import at, axes, number, own_prior, percent, population_prior
from brgm_med.pipelines.report.evidence import Evidence, Slices

LINES = 10


def lines(certificate: dict[str, Any], evidence: Evidence) -> list[tuple[str, str]]:
    """At most `LINES` lines; what the certificate does not hold is left out."""
    parts = [_grid(certificate, evidence), *_priors(certificate)]
    parts += _filled(certificate) if "hole" in certificate else _consistent(certificate, evidence)
    parts += [*_uncertain(certificate, evidence), *_fit(certificate)]
    return [(term, text) for term, text in parts if text][:LINES]


def _grid(c: dict[str, Any], evidence: Evidence) -> tuple[str, str]:
    def size(volume: Any) -> str:
        shape, spacing = volume.grid.shape, volume.grid.spacing
        return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{s:.3g}' for s in spacing)} mm"

    before, after = size(evidence.scan), size(evidence.after)
    return "Voxels", after if before == after else f"{after}, from {before}"


def _priors(c: dict[str, Any]) -> Iterator[tuple[str, str]]:
    own, population = own_prior(c), population_prior(c)
    if own:
        yield "Detail from", f"the scan's own planes (weight {number(own.get('weight')) or 'unknown'})"
    name, weight = population.get("name"), population.get("weight")
    if not isinstance(name, str):
        return
    used = "not used" if own and not weight else f"weight {number(weight)}" if weight is not None else "used alone"
    reason = population.get("reason")
    yield "Statistical model", f"{name}: {used}" + (f" ({reason})" if isinstance(reason, str) else "")


def _consistent(c: dict[str, Any], evidence: Evidence) -> Iterator[tuple[str, str]]:
    origin = at(c, "acquisition", "Origin")
    thickness = axes(at(c, "acquisition", "Thickness"))
    yield "Each sample averages", f"{thickness} ({origin})" if thickness and isinstance(origin, str) else ""
    relative, largest = (number(at(c, "consistency", k)) for k in ("relative_residual", "max_abs_residual"))
    text = f"relative residual {relative}" if relative else ""
    yield "Agreement with the scan", f"{text}, at most {largest} in its units" if text and largest else text
    if evidence.slices is not None:
        yield "Intensity of each slice", preserved(evidence.slices)


def preserved(slices: Slices) -> str:
    """The largest change of the total intensity of a measured slice, in words."""
    level = np.abs(slices.measured).max()
    if not len(slices.measured) or not level > 0:
        return ""
    change = np.abs(slices.of_result - slices.measured) / level
    worst = int(np.argmax(change))
    where = f"{slices.axis} {slices.positions[worst]:+.0f} mm"
    if change[worst] < 1e-4:
        return f"preserved in all {len(change)} measured slices, to {number(100 * float(change[worst]))} %"
    return f"changed by up to {number(100 * float(change[worst]))} % in {len(change)} measured slices (at {where})"


def _filled(c: dict[str, Any]) -> Iterator[tuple[str, str]]:
    count = number(at(c, "hole", "voxels"))
    yield "Hole", f"{count} voxels" if count else ""
    inferred, rim = (percent(at(c, "hole", k)) for k in ("inferred_by_the_prior", "interpolated_from_its_rim"))
    yield "Filled by", f"the model {inferred}, interpolation from the rim {rim}" if inferred and rim else ""
    weight, why = number(at(c, "hole", "weight_of_the_prior")), at(c, "hole", "why")
    yield "Weight of the model", f"{weight} ({why})" if weight and isinstance(why, str) else weight or ""
    clipped = at(c, "hole", "clipped_to_the_voxel_type")
    yield "Cut to the voxel type", number(clipped) or "" if clipped else ""
    voxels, changed = (number(at(c, "outside_the_hole", k)) for k in ("voxels", "changed"))
    yield "Outside the hole", f"{changed} of {voxels} voxels changed" if voxels and changed else ""


def _uncertain(c: dict[str, Any], evidence: Evidence) -> Iterator[tuple[str, str]]:
    explained = percent(at(c, "explained_by_the_scans", "mean"))
    yield "Measured", f"{explained} of the variance, on average; the rest is inferred" if explained else ""
    if "lower" in evidence.intervals and "upper" in evidence.intervals:
        width = evidence.intervals["upper"].values - evidence.intervals["lower"].values
        yield "Intervals", f"{number(float(width.mean()))} wide on average, in the scan's units"
    noise = c.get("noise")
    first = noise[0] if isinstance(noise, list) and noise else None
    deviation, kind = number(at(first, "deviation")), at(first, "kind")
    yield "Noise of the scan", f"{deviation} ({kind})" if deviation and isinstance(kind, str) else ""


def _fit(c: dict[str, Any]) -> Iterator[tuple[str, str]]:
    correlation = number(at(c, "registration", "correlation"))
    yield "Fit to the template", f"correlation {correlation}" if correlation else ""
