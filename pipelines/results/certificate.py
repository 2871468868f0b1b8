"""What every result says about itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__
from brgm_med.errors import UsageError
from brgm_med.files import check_output
from brgm_med.transforms.formats import stem
from brgm_med.transforms.formats.dicom.derived import MASKING, RESAMPLING, Derivation

if TYPE_CHECKING:
    from brgm_med.transforms.formats.header import Header

STATEMENT = "Derived image: part measured, part inferred by a statistical model. For research, not for diagnosis."
SIMULATED = "Derived image: simulated from a finer scan. For research, not for diagnosis."


def description(prior: str) -> str:
    """For the 79 bytes of a NIfTI header."""
    return f"brgm-med {__version__} {prior}: DERIVED, research only, not for diagnosis"[:79]


def super_resolved(prior: str, sha256: str, account: str = "") -> Derivation:
    """What a super-resolved DICOM image says of itself; `account` as `account` makes it."""
    text = f"brgm-med {__version__}: super-resolved, finer detail inferred by a statistical model."
    return Derivation("brgm-med sr", text, RESAMPLING, STATEMENT, _tool(prior, sha256), account)


def inpainted(prior: str, sha256: str, account: str = "") -> Derivation:
    """What an inpainted DICOM image says of itself; `account` as `account` makes it."""
    text = f"brgm-med {__version__}: a masked part filled, inferred by a statistical model."
    return Derivation("brgm-med inpaint", text, MASKING, STATEMENT, _tool(prior, sha256), account)


def account(content: dict[str, Any]) -> str:
    """What a certificate says, for the image itself: a line of ASCII for each entry, nested ones as JSON.

    For what is known before the image is written: not what its file holds when read back, nor its own hash. What
    names a file or a person must not be in `content`.
    """
    return "\n".join(f"{key.replace('_', ' ')}: {_plain(value)}" for key, value in content.items())


def _plain(value: Any) -> str:
    text = json.dumps(value)
    return text[1:-1] if isinstance(value, str) else text.replace('"', "")


def degraded() -> Derivation:
    """What a simulated acquisition says of itself."""
    text = f"brgm-med {__version__}: simulated acquisition of larger voxels."
    return Derivation("brgm-med degrade", text, RESAMPLING, SIMULATED)


def _tool(prior: str, sha256: str) -> str:
    return f"Prior {prior}, SHA-256 {sha256}."


def default_certificate(out: Path) -> Path:
    """The JSON file of a result: beside it, the same name, `_certificate.json`."""
    return out.with_name(f"{stem(out)}_certificate.json")


def check_certificate(path: Path, out: Path, force: bool) -> None:
    """Find out whether the certificate of `out` can be written at `path`. Raises as `check_output` does.

    Raises UsageError where the certificate of another result stands there, even if `force`: a folder of DICOM and a
    NIfTI file of one name would have the same by default.
    """
    check_output(path, force)
    try:
        of = str(json.loads(path.read_text())["result"]["file"])
        other = of != out.name and os.path.lexists(path.with_name(of))
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or it is something else
        return
    if other:
        raise UsageError(f"{path}: is the certificate of {of}; name another one for {out.name} with --certificate")


def ranges(indices: list[int]) -> list[list[int]]:
    """Sorted indices as [first, last] runs."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return runs


def source_record(scan: Path, header: Header) -> dict[str, Any]:
    """For the certificate: the file or folder, a hash of what was read, and where the affine comes from.

    Of DICOM the hash is that of the slices' hashes (binary SHA-256), in the order of slices; no element that names a
    person, and no UID, is told.
    """
    series = header.series
    if series is None:
        return {"file": scan.name, "sha256": _digest(scan), "affine": header.form}
    return {
        "file": scan.name,
        "sha256": _together(series.files),
        "affine": header.form,
        "dicom_files": len(series.files),
    }


def result_record(out: Path) -> dict[str, Any]:
    """For the certificate: the file or folder, and the hash that `source_record` would give it as a source."""
    if not out.is_dir():
        return {"file": out.name, "sha256": _digest(out)}
    files = sorted(out.iterdir())
    return {"file": out.name, "sha256": _together(files), "dicom_files": len(files)}


def _together(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(_digest(file)) for file in files)).hexdigest()


def _digest(file: Path) -> str:
    from brgm_med.files import digest

    return digest(file)
