"""The outcomes of a study's scans, read from its derivatives, and their reports made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.report import Outcome, subject_report
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.pipelines.steps.convert import convert
from brgm_med.pipelines.workflow.refusals import reason_of
from brgm_med.pipelines.workflow.write_back import CERTIFICATE, POSE, log_of
from brgm_med.priors import AUTO, SELF
from brgm_med.staging import NEW, private_folders


def read_entry(path: Path, *keys: str) -> dict[str, Any] | None:
    """The object in a JSON file, or under `keys` in it; None where that is damaged."""
    try:
        entry = json.loads(path.read_text())
        for key in keys:
            entry = entry[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def outcome_of(scan: Scan, out: Path, task: str) -> Outcome:
    """The outcome of a scan, read from the derivatives in `out`."""
    name = scan.sidecar["Sources"][0].rsplit(":", 1)[-1]
    log, pose = log_of(out, scan.destination), log_of(out, scan.destination, POSE)
    about, report = (out / f"{scan.destination}{ending}" for ending in (".json", ".html"))
    if log.is_file():
        return Outcome(name, "refused", reason_of(log))
    if about.is_file():
        certificate = read_entry(about, CERTIFICATE)
        if certificate is None:
            return Outcome(name, "failed", f"{about.name} is damaged; remove it and run participant again")
        return Outcome(name, "done", "", certificate, report if report.is_file() else None)
    if task == "train" and pose.is_file():  # no derivative of its own
        registration = read_entry(pose)
        if registration is None:
            return Outcome(name, "failed", f"{pose.name} is damaged; remove it and run participant again")
        return Outcome(name, "done", "", {"registration": registration})
    return Outcome(name, "failed", "there is no result; it crashed, or was not run yet")


def renew_report(scan: Scan, outcome: Outcome, out: Path, settings: Settings) -> Path:
    """The report of a scan that is done, made anew from its derivative. Raises as `report.subject_report` does."""
    derivative = out / scan.destination
    images = [p for p in (derivative.with_name(derivative.name + end) for end in (".nii.gz", ".nii")) if p.is_file()]
    if not images:
        raise InputRefusedError(f"{derivative}: its image is gone; run participant again")
    measured = measured_beside(images[0])
    with private_folders([out]) as folders:
        folder = folders[out] / NEW
        certificate = folder / f"{derivative.name}_certificate.json"
        certificate.write_text(json.dumps(outcome.certificate))
        source, _ = convert(
            scan.path,
            folder,
            series=scan.series,
            metadata=scan.metadata,
            allow_missing_files=settings.allow_missing_files,
        )
        return subject_report(
            derivative.with_name(derivative.name + ".html"),
            scan=source,
            result=images[0],
            certificate=certificate,
            measured=measured if measured.is_file() else None,
            mask=scan.mask,
            prior=None if settings.prior in (AUTO, SELF) else settings.prior,
            force=True,
        )
