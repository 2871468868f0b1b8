"""Files that belong to a result: its certificate, what lies beside it, and whether they are those. Without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.report.entries import at
from brgm_med.transforms.formats import stem


def read_certificate(path: Path) -> dict[str, Any]:
    """A certificate's JSON object. Raises InputRefusedError for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputRefusedError(f"{path}: is no readable certificate ({error}); give the JSON of a result") from error
    if not isinstance(content, dict):
        raise InputRefusedError(f"{path}: is no certificate (a JSON object); give the JSON of a result")
    return content


def same(path: Path, sha256: str, certificate: dict[str, Any], key: str) -> None:
    """Refuse, with InputRefusedError, a file whose hash is not the one under `key`, if there is one there."""
    stated = at(certificate, key, "sha256")
    if isinstance(stated, str) and len(stated) == 64 and sha256 != stated:  # a withheld one is words
        raise InputRefusedError(
            f"{path}: is not the file that the certificate was written for (SHA-256 differs); give the two that belong "
            "together"
        )


def beside(result: Path, quantity: str) -> Path | None:
    """The map of a result, called as the result with `_` and the quantity after it: a folder where the result is one,
    else a NIfTI file. None where there is none."""
    endings = ("",) if result.is_dir() else (".nii.gz", ".nii")
    name = result.name if result.is_dir() else stem(result)
    paths = (result.with_name(f"{name}_{quantity}{ending}") for ending in endings)
    return next((path for path in paths if path.exists()), None)
