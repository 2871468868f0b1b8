"""The last step: results go from a work directory to the folder of derivatives, each there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brgm_med.files import digest, make_folder, new_folder, replacing, write_json
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.pipelines.workflow.refusals import ENDING, is_refusal

CERTIFICATE = "BrgmMedCertificate"
"""The certificate's key in a derivative's JSON file."""

POSE = "_pose.json"
"""Ending of the notes that say how a head was registered."""

SERIES = ("_dicom", "_dicom_measured")
"""Endings of the folders of a derived series and of its map."""


def write_back(
    result: Path,
    certificate: Path,
    out: Path,
    destination: str,
    *,
    sidecar: Mapping[str, Any] | None = None,
    dicom: Path | None = None,
    report: Path | None = None,
) -> list[Path]:
    """Publish one result under `out`/`destination` (a relative name without an ending); returns what is there now.

    That is the image, the JSON file with `sidecar` and the certificate, the map of what was measured where `result` has
    one beside it, and the `report` and the folder of `dicom`, if given (its map too). What is there already and equal
    is left alone. Of a scan that was refused, `result` is the refusal (see `refusals`): it goes to `out`/logs, and what
    an earlier run published of that scan is removed. Raises CannotWriteError.
    """
    base = out / destination

    def named(end: str) -> Path:
        return base.with_name(base.name + end)

    noted = note(result, out, destination)
    if noted is not None:  # refused
        for end in (".json", ".html", ".nii", ".nii.gz", "_measured.nii.gz"):
            named(end).unlink(missing_ok=True)
        for end in SERIES:
            shutil.rmtree(named(end), ignore_errors=True)
        return [noted]
    make_folder(base.parent)
    image, measured = named(".nii" if result.name.endswith(".nii") else ".nii.gz"), named("_measured.nii.gz")
    files = {image: result, measured: measured_beside(result)}
    if report is not None:
        files[named(".html")] = report
    published = [target for target, source in files.items() if source.is_file()]
    for target in published:
        copy_file(files[target], target)
    if dicom is not None:
        for source, end in zip((dicom, dicom.with_name(f"{dicom.name}_measured")), SERIES, strict=True):
            if source.is_dir():
                published.append(copy_folder(source, named(end)))
    proof = json.loads(certificate.read_text())
    said = {**(sidecar or {}), CERTIFICATE: proof}
    if not named(".json").is_file() or named(".json").read_text() != json.dumps(said, indent=2) + "\n":
        write_json(named(".json"), said, force=True)
    return [*published, named(".json")]


def log_of(out: Path, destination: str, ending: str = ENDING) -> Path:
    """The file that notes that the scan of this derivative was refused (or, with `POSE`, how it was registered)."""
    return out / "logs" / f"{destination.replace('/', '_')}{ending}"


def note(result: Path, out: Path, destination: str, pose: Path | None = None) -> Path | None:
    """Note the refusal `result`, or `pose`, in `out`/logs and return its path there; an old note is removed."""
    refused = is_refusal(result)
    log, old = (log_of(out, destination, e) for e in ((ENDING, POSE) if refused else (POSE, ENDING)))
    old.unlink(missing_ok=True)
    if not refused and pose is None:
        return None
    make_folder(log.parent)
    copy_file(result if refused or pose is None else pose, log)
    return log


def copy_file(source: Path, target: Path) -> None:
    """`source` to `target`, atomically; nothing happens where they are equal. Raises CannotWriteError."""
    if target.is_file() and os.path.getsize(source) == os.path.getsize(target) and digest(source) == digest(target):
        return
    with replacing(target, force=True) as temporary:
        shutil.copyfile(source, temporary)


def copy_folder(source: Path, target: Path) -> Path:
    """A folder and all in it, likewise: the new one stands there whole, or not at all."""
    if target.is_dir():
        if content(target) == content(source):
            return target
        shutil.rmtree(target)
    make_folder(target.parent)
    with new_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return target


def content(folder: Path) -> dict[str, str]:
    """Every file in a folder and below, by relative name, and its SHA-256."""
    return {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}
