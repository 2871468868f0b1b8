"""The last step: results go from a work directory to the folder of derivatives, each there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brgm_med.files import digest, make_folder, moved
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.pipelines.workflow.refusals import ENDING, is_refusal
from brgm_med.staging import settle

CERTIFICATE = "BrgmMedCertificate"
"""The certificate's key in a derivative's JSON file."""

POSE = "_pose.json"
"""Ending of the notes that say how a head was registered."""

IN_BIDS = re.compile(r"(sub-[^/]+)/(ses-[^/]+/)?anat/\1_[^/]+")
LONGEST_NAME = 255 - len(ENDING)
"""Bytes of the name of a note."""

FILES = (".json", ".html", ".nii", ".nii.gz", "_measured.nii.gz")
"""Endings of a derivative's files."""

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
    one beside it, and the `report` and the folder of `dicom`, if given (its map too). They appear together; what is
    there already and equal is left alone. Of a scan that was refused, `result` is the refusal (see `refusals`): it goes
    to `out`/logs, and what an earlier run published of that scan is removed. Nobody may read what is published who may
    not read `result` and `certificate`. Raises CannotWriteError.
    """
    base = out / destination

    def named(end: str) -> Path:
        return base.with_name(base.name + end)

    if is_refusal(result):
        gone = [named(end) for end in (*FILES, *SERIES)]
        if base.parent.is_dir():
            put(dict.fromkeys(gone), [])
        noted = note(result, out, destination)
        return [] if noted is None else [noted]
    make_folder(base.parent)
    image, other = (
        named(end) for end in ((".nii", ".nii.gz") if result.name.endswith(".nii") else (".nii.gz", ".nii"))
    )
    measured, said = measured_beside(result), {**(sidecar or {}), CERTIFICATE: json.loads(certificate.read_text())}
    sources: dict[Path, Source] = {image: result, other: None, named("_measured.nii.gz"): measured}
    if report is not None:
        sources[named(".html")] = report
    series = (None, None) if dicom is None else (dicom, dicom.with_name(f"{dicom.name}_measured"))
    sources |= {named(end): source for end, source in zip(SERIES, series, strict=True)}
    published = put(sources | {named(".json"): json.dumps(said, indent=2) + "\n"}, [result, certificate])
    note(result, out, destination)
    return published


Source = Path | str | None
"""A file or folder to copy, a text to write, or nothing."""


def put(sources: Mapping[Path, Source], like: Sequence[Path]) -> list[Path]:
    """Bring `sources` to their names, which are in one folder, together; returns the names at which something is now.

    What is there already and equal is left alone, and what has no source is removed. Nobody may read what is written
    who may not read all of `like`. Raises CannotWriteError.
    """
    settle(next(iter(sources)).parent)
    existing = {path: None if isinstance(one, Path) and not one.exists() else one for path, one in sources.items()}
    changed = {path: source for path, source in existing.items() if not equal(path, source)}
    if changed:
        with moved(list(changed), force=True, like=like) as staged:
            for source, target in zip(changed.values(), staged, strict=True):
                if isinstance(source, str):
                    target.write_text(source)
                elif source is not None and source.is_dir():
                    shutil.copytree(source, target)
                elif source is not None:
                    shutil.copyfile(source, target)
    return [path for path, source in existing.items() if source is not None]


def equal(path: Path, source: Source) -> bool:
    """True where `path` holds what `source` does; nothing, where that is None."""
    if source is None or not path.exists():
        return source is None and not os.path.lexists(path)
    if isinstance(source, str):
        return path.is_file() and path.read_bytes() == source.encode()
    if source.is_dir() or path.is_dir():
        return source.is_dir() and path.is_dir() and content(path) == content(source)
    return os.path.getsize(source) == os.path.getsize(path) and digest(source) == digest(path)


def log_of(out: Path, destination: str, ending: str = ENDING) -> Path:
    """The file that notes that the scan of this derivative was refused (or, with `POSE`, how it was registered).

    Folders are part of its name, as they are of BIDS names; of others, and of long names, a hash is added: `a/b` is not
    `a_b`.
    """
    name = destination.replace("/", "_")
    if ("/" in destination and not IN_BIDS.fullmatch(destination)) or len(os.fsencode(name)) > LONGEST_NAME:
        name = f"{name[:60]}_{hashlib.sha256(os.fsencode(destination)).hexdigest()[:16]}"
    return out / "logs" / f"{name}{ending}"


def note(result: Path, out: Path, destination: str, pose: Path | None = None) -> Path | None:
    """Note the refusal `result`, or `pose`, in `out`/logs and return its path there; an old note is removed."""
    refused = is_refusal(result)
    log, old = (log_of(out, destination, e) for e in ((ENDING, POSE) if refused else (POSE, ENDING)))
    source = result if refused else pose
    if source is not None:
        make_folder(log.parent)
    if log.parent.is_dir():
        put({log: source, old: None}, [source] if source is not None else [])
    return None if source is None else log


def copy_folder(source: Path, target: Path) -> Path:
    """A folder and all in it, to `target`; nothing happens where they are equal. Raises CannotWriteError."""
    make_folder(target.parent)
    put({target: source}, [source])
    return target


def content(folder: Path) -> dict[str, str]:
    """Every file in a folder and below, by relative name, and its SHA-256."""
    return {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}
