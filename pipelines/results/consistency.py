"""What a super-resolved volume's certificate says of how it was found, and of how it agrees with its scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from brgm_med.consistency import certificate as certify
from brgm_med.pipelines.reading import ScanFile
from brgm_med.pipelines.reconstruct.measurement import LinearMeasurement, Reconstruction
from brgm_med.pipelines.results.certificate import ranges, source_record
from brgm_med.transforms.bias_field import TERMS
from brgm_med.transforms.refine import Refined
from brgm_med.transforms.register import scale_of

ALONE = "one scan does not tell its pose and shading from the head's own shape and brightness"


def finding(result: Reconstruction) -> dict[str, Any]:
    """Registration, intensities, noise and coverage. Names no file."""
    registration = result.registration
    coronal = registration.grid.index_axis(1)
    reach = result.prior_weight[0].amax([a for a in range(3) if a != coronal])
    return {
        "registration": {
            "correlation": registration.correlation,
            "scale": scale_of(registration.pose),
            "template_to_scan": registration.pose.tolist(),
            "refined": [_refined(f) for f in result.refined],
            "not_identified": [ALONE] if len(registration.scans) == 1 else [],
        },
        "noise": [{"deviation": s.noise.deviation, "kind": s.noise.kind} for s in registration.scans],
        "coverage": {
            "voxels_with_prior": float((result.prior_weight > 0).float().mean()),
            "slice_axis": coronal,
            "interpolated_slices": ranges([i for i, w in enumerate(reach.tolist()) if w == 0]),
        },
        "explained_by_the_scans": {
            "mean": float(result.measured.mean()),
            "standard_error_of_a_voxel": result.measured_error,
        },
    }


def _refined(fit: Refined) -> dict[str, Any]:
    return {
        "moved_mm": fit.moved_mm,
        "turned_degrees": fit.turned_degrees,
        "log_shading": dict(zip(TERMS, np.round(fit.bias_field.coefficients, 4).tolist(), strict=True)),
        "not_identified": list(fit.unidentified),
        "residual": list(fit.residual),
    }


def consistency(held: Tensor, scans: Sequence[LinearMeasurement], step: float | None) -> dict[str, Any]:
    """How the values [1, X, Y, Z] that the file holds give back its scans: `consistency.certificate` of the first, the
    residual's root mean square and the noise beside it; of the others under `further_scans`."""
    entries = []
    for number, scan in enumerate(scans):
        entry = certify(held, scan.operator, scan.values, scan.inside, step if number == 0 else None)
        error = (scan.operator(held.double()).to(scan.values.dtype) - scan.values)[:, scan.inside]
        entry["residual_rms"] = float(error.square().mean().sqrt())
        entry["noise_deviation"] = scan.deviation
        entries.append(entry)
    return {**entries[0], "further_scans": entries[1:]}


def scan_record(scan: ScanFile) -> dict[str, Any]:
    """A further scan, for the certificate."""
    return {**source_record(scan.path, scan.header), "acquisition": scan.acquisition}
