"""Files of a case and of a study, as the report reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brgm_med.pipelines.report import Outcome
from brgm_med.priors import bundle
from brgm_med.transforms.acquire import interpolate
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.simulate import degrade, thick_slices
from tests import phantom

OWN = {
    "name": "self",
    "sha256": "1" * 64,
    "finest_detail_mm": 1.5625,
    "weight": 1.1,
    "reason": "the scan is as sharp through plane as in plane",
}
"""Record of the prior that a scan's own planes taught."""

HOSTILE = "<script>alert(1)</script>&\"'.nii.gz"


def written(folder: Path, name: str, values: Any, affine: Any) -> Path:
    path = folder / name
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def case(folder: Path, **more: Any) -> dict[str, Path]:
    """A phantom in slices of 8 mm, a finer image that is not quite it, and a certificate of them."""
    grid = Grid((26, 28, 24), np.array([[0, 0, 8.0, -92], [-8.0, 0, 0, 100], [0, 8.0, 0, -110], [0, 0, 0, 1]]))
    head = phantom.head(grid, edge=8.0) * 1000
    coarse, model = thick_slices(grid, "S", 24.0)
    y = degrade(head, grid, coarse, model)
    scan = written(folder, "scan.nii.gz", y[0], coarse.affine)
    result = written(folder, "result.nii.gz", interpolate(y, coarse, grid)[0], grid.affine)
    shipped = bundle.find(bundle.DEFAULT)
    content = {
        "statement": "Derived.",
        "software": "brgm-med 0",
        "source": {"file": HOSTILE, "sha256": digest(scan), "affine": "sform"},
        "result": {"file": "result.nii.gz", "sha256": digest(result)},
        "prior": {
            "name": bundle.DEFAULT,
            "sha256": digest(shipped / "configs" / "metadata.json"),
            "finest_detail_mm": 2.0,
        },
        "acquisition": {
            **model.to_sidecar(coarse)["BrgmMedAcquisition"],
            "Origin": "assumed from the header's spacing",
            "Stated": False,
        },
        "registration": {"correlation": 0.8317, "scale": 1.05, "template_to_scan": np.eye(4).tolist()},
        "consistency": {
            "relative_residual": 3.21e-05,
            "max_abs_residual": 0.4567,
            "samples": 5824,
            "samples_inside": 5600,
            "residual_rms": 12.34,
            "further_scans": [{"relative_residual": 0.0125}],
        },
        "further_scans": [{"file": "further.nii.gz"}],
        "noise": [{"deviation": 17.5, "kind": "rician"}],
        "explained_by_the_scans": {"mean": 0.4321},
        "coverage": {"voxels_with_prior": 0.357, "slice_axis": 0, "interpolated_slices": [[0, 3], [22, 25]]},
        **more,
    }
    certificate = folder / "result_certificate.json"
    certificate.write_text(json.dumps(content))
    return {"scan": scan, "result": result, "certificate": certificate}


def study(folder: Path) -> list[Outcome]:
    """Nine subjects: six alike, one that registered badly, one refused, one without a certificate that can be read."""
    subjects = []
    for i, correlation in enumerate((0.80, 0.81, 0.82, 0.79, 0.80, 0.81, 0.55)):
        residual = 1e-8 * (1 + i % 3)
        content = {"registration": {"correlation": correlation}, "consistency": {"relative_residual": residual}}
        report = folder / "a folder" / f"sub-{i}#.html"
        subjects.append(Outcome(f"sub-{i}", "done", "", content, report))
    subjects.append(Outcome("=<b>cmd</b>", "refused", reason='the file is "truncated" <script>x</script>'))
    subjects.append(Outcome("sub-odd", "done", "its certificate odd.json cannot be read"))
    return subjects
