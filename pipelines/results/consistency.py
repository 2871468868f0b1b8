"""The certificate of a super-resolved volume: its registration, noise and coverage, and its residual."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from brgm_med.consistency import certificate as certify
from brgm_med.errors import BrgmError
from brgm_med.pipelines.reading import ScanFile
from brgm_med.pipelines.reconstruct.measurement import LinearMeasurement, Reconstruction, Registration
from brgm_med.pipelines.results.certificate import Certificate, Entry
from brgm_med.pipelines.results.records import registration_record, source_record, weight_record
from brgm_med.pipelines.results.target import ReadBack
from brgm_med.slice_checks import autocorrelation
from brgm_med.transforms.bias_field import TERMS
from brgm_med.transforms.refine import Refined

CONTRADICTION = 0.05
"""Residual beyond its noise, in standard deviations of the scan, from which scans count as contradicting each other.
Validation heads of IXI in slices of 6 mm, two orientations, turned or not, with noise or without: at most 0.01; moved
by 1.5 degrees and 1 mm, and not registered: 0.09 and 0.10; of two heads, where they are not refused: 0.27 and 0.30."""

ALONE = "one scan does not tell its pose and shading from the head's own shape and brightness"


def super_resolved(files: Sequence[ScanFile], parameters: Entry, result: Reconstruction) -> Certificate:
    """The certificate of a volume before it is written, with its registration, noise and coverage."""
    first, *others = files
    coronal = result.grid.index_axis(1)
    reach = result.prior_weight[0].amax([a for a in range(3) if a != coronal])
    primary, second = result.own or result.population, result.population if result.own else None
    assert primary is not None
    return Certificate(
        prior=weight_record(primary),
        population_prior=None if second is None else weight_record(second),
        acquisition=first.acquisition,
        parameters=parameters,
        registration=None if result.registration is None else _registered(result.registration, result.refined),
        noise=[{"deviation": level.deviation, "kind": level.kind} for level in result.noise],
        coverage={
            "voxels_with_prior": float((result.prior_weight > 0).float().mean()),
            "slice_axis": coronal,
            "interpolated_slices": ranges([i for i, w in enumerate(reach.tolist()) if w == 0]),
        },
        slices=[file.examination.record() for file in files if file.examination is not None] or None,
        explained_by_the_scans={
            "mean": float(result.measured[result.prior_weight > 0].mean()) if (result.prior_weight > 0).any() else 0.0,
            "standard_error_of_a_voxel": result.measured_error,
        },
        source=source_record(first.path, first.header),
        further_scans=[{**source_record(s.path, s.header), "acquisition": s.acquisition} for s in others],
    )


def _registered(registration: Registration, refined: Sequence[Refined]) -> Entry:
    return {
        **registration_record(registration.correlation, registration.pose),
        "refined": [_refined(f) for f in refined],
        "not_identified": [ALONE] if len(registration.scans) == 1 else [],
    }


def _refined(fit: Refined) -> Entry:
    return {
        "moved_mm": fit.moved_mm,
        "turned_degrees": fit.turned_degrees,
        "log_shading": dict(zip(TERMS, np.round(fit.bias_field.coefficients, 4).tolist(), strict=True)),
        "not_identified": list(fit.unidentified),
        "residual": list(fit.residual),
    }


def residuals(scans: Sequence[LinearMeasurement], written: ReadBack) -> Entry:
    """Entry `consistency`: residual of an image, as the files hold it, at its scans.

    `consistency.certificate` of the first, the residual's root mean square and the noise beside it, and for a scan with
    noise the residual's correlation with itself one sample on (of noise 0); of the others under `further_scans`. Raises
    BrgmError for a residual that is no number.
    """
    image, entries = torch.from_numpy(written.array)[None], []
    for number, scan in enumerate(scans):
        entry = certify(image, scan.operator, scan.values, scan.inside, written.step if number == 0 else None)
        error = (scan.operator(image.double()).to(scan.values.dtype) - scan.values)[0]
        entry["residual_rms"] = float(error[scan.inside].square().mean().sqrt())
        entry["noise_deviation"] = scan.deviation
        if scan.deviation:
            entry["residual_autocorrelation"] = round(autocorrelation(error, scan.inside), 4)
        entries.append(entry)
    if not math.isfinite(entries[0]["relative_residual"]):
        raise BrgmError("the result is not consistent with the scan; this is a defect, please report it")
    return {"consistency": {**entries[0], "further_scans": entries[1:]}}


def contradictions(consistency: Entry, names: Sequence[str]) -> list[str]:
    """A clause for each of several scans, by name, from which the result differs by more than `CONTRADICTION`."""
    clauses = []
    for name, entry in zip(names, [consistency, *consistency["further_scans"]], strict=True):
        rms, noise, relative = entry["residual_rms"], entry["noise_deviation"], entry["relative_residual"]
        excess = relative * math.sqrt(max(0.0, 1 - (noise / rms) ** 2)) if rms else 0.0
        if len(names) > 1 and excess > CONTRADICTION:
            clauses.append(
                f"{name}: the result differs from it by {excess:.0%} of its spread, far more than its noise and "
                "interpolation explain: the scans contradict each other; are they of one patient, in one world, and "
                "did it not move between them?"
            )
    return clauses


def ranges(indices: list[int]) -> list[list[int]]:
    """Sorted indices as [first, last] runs."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return runs
