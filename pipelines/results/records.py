"""Records of priors and files for the certificate: names and SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.files import digest

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.measurement import PriorWeight
    from brgm_med.priors.bundle import PriorBundle
    from brgm_med.transforms.formats.header import Header
    from brgm_med.transforms.template import Pose


def prior_record(bundle: PriorBundle, **finest_detail: float) -> dict[str, Any]:
    """Record of a prior, and its pixel size under a name that ends in the unit."""
    return {"name": bundle.name, "sha256": bundle.sha256, **finest_detail}


def weight_record(prior: PriorWeight) -> dict[str, Any]:
    """Record of a prior in a reconstruction, with its weight and the reason for it."""
    identity = {"name": prior.name, "sha256": prior.sha256, "finest_detail_mm": prior.finest}
    return {**identity, "weight": prior.weight, "reason": prior.reason, **prior.facts}


def registration_record(correlation: float, pose: Pose) -> dict[str, Any]:
    """Record of a registration: correlation with the template, and the pose in it with its scale."""
    from brgm_med.transforms.register import scale_of

    return {"correlation": correlation, "scale": scale_of(pose), "template_to_scan": pose.tolist()}


def file_record(path: Path, files: Sequence[Path] | None = None) -> dict[str, Any]:
    """Name and SHA-256 of a file, or of a folder of DICOM `files` (by default all in it, by name).

    The hash of a folder is that of its files' hashes (binary SHA-256), in their order.
    """
    if files is None:
        if not path.is_dir():
            return {"file": path.name, "sha256": digest(path)}
        files = sorted(path.iterdir())
    together = hashlib.sha256(b"".join(bytes.fromhex(digest(file)) for file in files)).hexdigest()
    return {"file": path.name, "sha256": together, "dicom_files": len(files)}


def source_record(scan: Path, header: Header) -> dict[str, Any]:
    """Record of a scan, and the origin of its affine. Slices of DICOM are hashed in the order of slices.

    No element that names a person, and no UID, is in it.
    """
    series = header.series
    return {**file_record(scan, None if series is None else series.files), "affine": header.form}
