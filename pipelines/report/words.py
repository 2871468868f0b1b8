"""A certificate in words. Every number is the certificate's; what it does not hold is not said."""

from __future__ import annotations

from typing import Any

from brgm_med.pipelines.report.entries import at, axes, number, own_prior, percent, population_prior


def paragraphs(certificate: dict[str, Any]) -> list[str]:
    """Sentences of the certificate, for a reader who knows scans but not this program. Plain text."""
    first = (_filling, _outside) if "hole" in certificate else (_doing, _keeping)
    parts = [part(certificate) for part in (*first, _noise, _model, _own, _population, _reach, _fit)]
    return [" ".join(sentences) for sentences in parts if sentences]


def _doing(c: dict[str, Any]) -> list[str]:
    name, result = at(c, "source", "file"), at(c, "result", "file")
    sentences = []
    if isinstance(name, str) and isinstance(result, str):
        sentences.append(f"The scan {name} was reconstructed on a finer grid as {result}.")
    others = c.get("further_scans")
    names = [at(other, "file") for other in others] if isinstance(others, list) else []
    if names:
        further = ", ".join(name if isinstance(name, str) else "one without a name" for name in names)
        sentences.append(
            f"Further scans of the same head went into it: {further}; what follows is of the first unless it says so."
        )
    spacing = axes(at(c, "acquisition", "Spacing"))
    if spacing:
        sentences.append(f"The scan was sampled every {spacing}.")
    return sentences


def _keeping(c: dict[str, Any]) -> list[str]:
    record = c.get("consistency")
    residual = number(at(record, "relative_residual"))
    if residual is None:
        return []
    sentences = [
        "Consistency with the measurement: with the scanner's way of sampling applied to it, the result gives the "
        f"scan back with a relative residual of {residual} (0 would be exactly)."
    ]
    largest, inside, samples = (number(at(record, k)) for k in ("max_abs_residual", "samples_inside", "samples"))
    if largest is not None:
        over = f", over {inside} of its {samples} samples" if inside and samples else ""
        sentences.append(f"The largest difference is {largest} in the scan's units{over}.")
    others = at(record, "further_scans")
    others = [number(at(other, "relative_residual")) for other in others] if isinstance(others, list) else []
    if any(others):
        sentences.append(f"Of the further scans it is {', '.join(other or 'unknown' for other in others)}.")
    bound, within = number(at(record, "bound")), at(record, "within_bound")
    if bound is not None and isinstance(within, bool):
        sentences.append(
            f"The result is stored as whole numbers; rounding alone can make a difference of {bound}, and the largest "
            f"one is {'within' if within else 'beyond'} that."
        )
    return sentences


def _noise(c: dict[str, Any]) -> list[str]:
    levels, residual = c.get("noise"), number(at(c, "consistency", "residual_rms"))
    first = levels[0] if isinstance(levels, list) and levels else None
    deviation, kind = at(first, "deviation"), at(first, "kind")
    if number(deviation) is None or not isinstance(kind, str):
        return []
    if kind == "unidentified":
        return ["The scan itself does not tell how noisy it is; it is taken to have no noise."]
    if kind == "negligible":
        return ["The scan's noise is negligible; it is taken to have none."]
    if deviation == 0:
        return ["The scan is taken to have no noise."]
    origin = "was stated" if kind == "stated" else f"was estimated from the scan itself ({kind})"
    sentences = [f"The standard deviation of the scan's noise {origin} as {number(deviation)} in its units."]
    if residual:
        sentences.append(
            f"The result differs from the scan by {residual} (root mean square): where that is not larger than the "
            "noise, they agree as well as the scan can tell."
        )
    return sentences


def _filling(c: dict[str, Any]) -> list[str]:
    name, mask, count = at(c, "source", "file"), at(c, "mask", "file"), number(at(c, "hole", "voxels"))
    sentences = []
    if isinstance(name, str) and isinstance(mask, str) and count:
        sentences.append(f"In the scan {name}, the {count} voxels that {mask} marks as unknown were filled.")
    inferred, rim = (percent(at(c, "hole", k)) for k in ("inferred_by_the_prior", "interpolated_from_its_rim"))
    if inferred and rim:
        sentences.append(f"Of these, {inferred} were inferred by the prior and {rim} interpolated from the hole's rim.")
    clipped = at(c, "hole", "clipped_to_the_voxel_type")
    if number(clipped) is not None and clipped > 0:
        sentences.append(
            f"{clipped:,} of them were beyond what the scan's voxel type can hold and were cut to its limit."
        )
    if at(c, "mask", "resampled") is True:
        sentences.append("The mask was on another grid and was taken nearest-neighbour.")
    return sentences


def _outside(c: dict[str, Any]) -> list[str]:
    voxels, changed = number(at(c, "outside_the_hole", "voxels")), number(at(c, "outside_the_hole", "changed"))
    return [f"Of the {voxels} voxels outside the hole, {changed} were changed."] if voxels and changed else []


def _model(c: dict[str, Any]) -> list[str]:
    thickness, profile = axes(at(c, "acquisition", "Thickness")), at(c, "acquisition", "Profile")
    if thickness is None or "hole" in c:
        return []
    origin = at(c, "acquisition", "Origin")
    sentences = [
        f"Each sample is taken as the average over {thickness}"
        + (f", {profile} profile" if isinstance(profile, str) else "")
        + (f": {origin}." if isinstance(origin, str) else ".")
    ]
    if at(c, "acquisition", "Stated") is False:
        sentences.append(
            "Nobody stated this: if the slices were thicker or thinner, or had gaps, the numbers above speak of a scan "
            "that was sampled otherwise."
        )
    return sentences


def _own(c: dict[str, Any]) -> list[str]:
    record = own_prior(c)
    if not record:
        return []
    finest, spacing = at(record, "finest_detail_mm"), at(c, "acquisition", "Spacing")
    pixel = min((s for s in spacing.values() if number(s)), default=0.0) if isinstance(spacing, dict) else 0.0
    sentences = [
        "Detail between the slices is inferred by a network that was trained on other scans and tuned on this scan's "
        "own planes. It assumes that the anatomy looks through the slices as it looks within them. This detail is not "
        "an observation: it may leave out a lesion, or show structure that is not there."
    ]
    if number(finest):
        stored = f" (their pixels of {number(pixel)} mm were interpolated)" if 0 < 1.01 * pixel < finest else ""
        sentences.append(
            f"The planes show detail down to {number(finest)} mm{stored}; the network infers nothing finer, however "
            "fine the grid is."
        )
    weight, reason = number(at(record, "weight")), at(record, "reason")
    if weight:
        why = f", because {reason}" if isinstance(reason, str) else ""
        sentences.append(f"The detail that the network predicts is added with a weight of {weight}{why}.")
    return sentences


def _population(c: dict[str, Any]) -> list[str]:
    record, beside = population_prior(c), bool(own_prior(c))
    name, finest, weight = at(record, "name"), number(at(record, "finest_detail_mm")), number(at(record, "weight"))
    if not isinstance(name, str):
        return []
    reason = f": {record['reason']}" if isinstance(record.get("reason"), str) else ""
    if beside and not record.get("weight"):
        return [f"The statistical model {name}, which was trained on other heads, was not used{reason}."]
    subject = "What fills the hole" if "hole" in c else "Detail finer than the scan's"
    if beside:
        subject = "A further part of the detail"
    sentences = [
        f"{subject} is inferred by the statistical model {name}: it is what is most probable for heads like those that "
        "the model was trained on, not an observation. It may leave out a lesion, or show structure that is not there."
    ]
    if finest:
        sentences.append(f"The model knows of no detail finer than {finest} mm, however fine the grid is.")
    if beside:
        sentences.append(f"Its correction is added with a weight of {weight}{reason}.")
    return sentences


def _reach(c: dict[str, Any]) -> list[str]:
    reached, runs, axis = (at(c, "coverage", k) for k in ("voxels_with_prior", "interpolated_slices", "slice_axis"))
    sentences = []
    explained = percent(at(c, "explained_by_the_scans", "mean"))
    if explained:
        sentences.append(
            f"Of what would be uncertain in a voxel without the scans (its variance), they account for {explained} on "
            "average over the field of view; the rest is inferred."
        )
    if percent(reached) and not own_prior(c):
        sentences.append(f"The model reached {percent(reached)} of the voxels of the field of view.")
    if isinstance(runs, list) and runs and all(isinstance(r, list) and len(r) == 2 for r in runs):
        spans = ", ".join(f"{a} to {b}" if a != b else f"{a}" for a, b in runs)
        of = f" (array index along axis {axis}, from 0)" if isinstance(axis, int) else ""
        sentences.append(f"The coronal slices {spans}{of} are interpolated only.")
    return sentences


def _fit(c: dict[str, Any]) -> list[str]:
    correlation, scale = at(c, "registration", "correlation"), at(c, "registration", "scale")
    name = at(population_prior(c), "name")
    if number(correlation) is None:
        return []
    owner = f"of {name} " if isinstance(name, str) else ""
    sentences = [
        f"The head was laid onto the template {owner}with a correlation of {number(correlation)} (1 is perfect)."
    ]
    if number(scale) and abs(scale - 1) > 0.01:
        sentences.append(f"It was taken as {number(scale)} times as large as the template.")
    return sentences
