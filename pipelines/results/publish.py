"""The choreography of every result: check, then write, read back, map, certificate, which appear together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError
from brgm_med.files import check_apart, check_output, read_json, write_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.results.certificate import Certificate, Entry, Task
from brgm_med.pipelines.results.records import file_record
from brgm_med.pipelines.results.target import Destination, delete
from brgm_med.transforms.formats import stem
from brgm_med.transforms.formats.beside import sidecar_of
from brgm_med.transforms.formats.dicom.derived import Derivation


class WriteReport(Protocol):
    """A function that writes the page on a result and its certificate to `out`."""

    def __call__(self, out: Path, *, result: Path, certificate: Path) -> object: ...


Image = TypeVar("Image")
Place = TypeVar("Place", bound=Destination)


def check(
    target: Destination,
    inputs: Sequence[Path],
    certificate: Path | None,
    also: Sequence[Path | str | None] = (),
    report: bool = False,
) -> Path:
    """Check, before any work is done, that all files of a result can be written; returns its certificate's path.

    `report`: whether there is to be one. Raises as `Destination.check` and `check_certificate`; UsageError where two of
    all files are one, links counted, and where an output is a JSON file beside an input, or one of `also`, files and
    folders that are read.
    """
    path = certificate or default_certificate(target.path)
    page = [default_report(target.path)] if report else []
    paths = (*inputs, *target.paths, path, *page)
    if len({p.resolve() for p in paths}) < len(paths):
        raise UsageError(f"{target.path}: inputs, outputs, report and certificate must all be different files")
    beside = (sidecar_of(scan, stem(scan)) for scan in inputs)
    check_apart((*target.paths, path, *page), [*inputs, *beside, *(Path(one) for one in also if one is not None)])
    target.check()
    check_certificate(path, target.path, target.force)
    for one in page:
        check_output(one, target.force)
    return path


def check_space(target: Destination, voxels: float) -> None:
    """Check, before any work is done, that a result of so many voxels, and its map, may fit on the disk.

    Compressed, and in DICOM, at least 2 bytes a voxel are taken; else 8. Raises CannotWriteError.
    """
    needed = voxels * (8 if target.path.name.lower().endswith(".nii") else 2)
    free = shutil.disk_usage(target.path.parent).free
    if free < needed:
        text = f"needs about {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there"
        raise CannotWriteError(f"{target.path}: {text}; free space or choose another folder")


def publish(
    target: Place,
    path: Path,
    certificate: Certificate,
    task: Task,
    write: Callable[[Place, Derivation, str], Image],
    read_back: Callable[[Image], Entry],
    write_map: Callable[[Place, Derivation], object] | None = None,
    *,
    like: Sequence[Path] = (),
    report: WriteReport | None = None,
) -> Certificate:
    """Write image, map, certificate and report, or none of them; returns the certificate that is written to `path`.

    `write` and `write_map` get the destination to write to and the description of the result for DICOM and for NIfTI,
    made of `certificate`: all is written in private folders and appears together. `read_back` gets the image as the
    files hold it, and returns the entries that are known only then. `report` writes a page on what is there then; the
    page of a result that is replaced goes with it. Nobody may read the result who may not read all of
    the inputs `like`.
    """
    derivation, old = certificate.derivation(task), old_maps(target, path)
    pages = [default_report(target.path)] if report is not None or target.force else []
    with target.staged([path, *pages], like) as (staged, (proof, *page)):
        image = write(staged, derivation, certificate.label)
        if write_map is not None:
            write_map(staged, derivation)
        records = [file_record(path) for path in staged.paths]
        files: Entry = dict(zip(("result", "measured_map"), records, strict=False)) | {"maps": records[2:] or None}
        certificate = replace(certificate, **read_back(image), **files)
        warn_beyond(target, certificate)
        hidden = target.choices.transform is not None
        write_json(proof, certificate.deidentified() if hidden else certificate.to_json(), force=False)
        if report is not None:
            report(page[0], result=staged.path, certificate=proof)
    for one in old:
        delete(one)
    return certificate


def old_maps(target: Destination, path: Path) -> list[Path]:
    """Further maps of the result that is replaced, which the new one has not, as the certificate at `path` lists them:
    those whose content is still what it says. A file that is no certificate lists none."""
    if not (target.force and path.exists()):
        return []
    try:
        records = read_json(path).get("maps") or []
    except InputRefusedError:
        return []
    maps = []
    for record in records if isinstance(records, list) else []:
        name = record.get("file") if isinstance(record, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            continue
        map_path = target.path.with_name(name)
        if map_path.exists() and map_path not in target.paths and file_record(map_path) == record:
            maps.append(map_path)
    return maps


def warn_beyond(target: Destination, certificate: Certificate) -> None:
    """A warning where a result differs from its scan by more than its rounding to integers explains."""
    entry = certificate.consistency or {}
    if entry.get("within_bound", True):
        return
    largest, bound = entry["max_abs_residual"], entry["bound"]
    line = f"differs from the scan by up to {largest:.3g}, more than the {bound:.3g} of rounding"
    if clipped := entry.get("clipped_to_the_bits"):
        line += f": {clipped} values were clipped to what its bits can hold"
    elif entry.get("further_scans") or entry.get("noise_deviation"):
        line += ": scans with noise, or several, are not kept to the last bit"
    say(f"warning: {target.path.name}: {line}")


def announce(target: Destination, certificate: Path, note: str, report: bool = False) -> None:
    """Print the names of the written files, and `note`."""
    image, *others = target.paths
    names = [path.name for path in others] + [default_report(image).name] * report
    images = ", ".join([str(image), *names])
    say(f"wrote {images} and {certificate.name} ({note})")


def default_certificate(out: Path) -> Path:
    """The JSON file of a result: beside it, the same name, `_certificate.json`."""
    return out.with_name(f"{stem(out)}_certificate.json")


def default_report(out: Path) -> Path:
    """The page that reports on a result: beside it, the same name, `_report.html`."""
    return out.with_name(f"{stem(out)}_report.html")


def check_certificate(path: Path, out: Path, force: bool) -> None:
    """Check that the certificate of `out` can be written at `path`. Raises as `check_output` does.

    Raises UsageError where the certificate of another result stands there, even if `force`: a folder of DICOM and a
    NIfTI file of one name would have the same by default.
    """
    check_output(path, force)
    try:
        of = str(json.loads(path.read_text())["result"]["file"])
        other = of != out.name and os.path.lexists(path.with_name(of))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # there is none, or it is something else
        return
    if other:
        raise UsageError(f"{path}: is the certificate of {of}; name another one for {out.name} with --certificate")
