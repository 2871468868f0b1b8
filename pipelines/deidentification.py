"""What de-identified writing asks of a command, beside the `Deidentifier` that changes each data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.errors import UsageError

if TYPE_CHECKING:
    from pydicom import Dataset

    from brgm_med.transforms.formats.dicom_deidentify import Deidentifier

WITHHELD = "withheld (de-identified)"


def begin(headers: Iterable[Dataset], name: str, out: Path | None) -> Deidentifier:
    """A deidentifier for one run, made before any other work; `headers` are those of all images of the source `name`.

    Warns that faces remain. Raises InputRefusedError for burned-in annotation, and UsageError without `out`: the
    default name of an output is made of the source's, which may be the patient's.
    """
    from brgm_med.pipelines.steps import say
    from brgm_med.transforms.formats.dicom_deidentify import FACES, Deidentifier, check

    if out is None:
        raise UsageError("--deidentify: needs --out, for the default name would be made of the source's")
    for header in headers:
        check(header, name)
    say(FACES)
    return Deidentifier()


def withhold(certificate: dict[str, Any]) -> dict[str, Any]:
    """A certificate without the names and hashes of the files that went in, for both lead back to the patient."""

    def hide(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        return {k: WITHHELD if k in ("file", "sha256") else v for k, v in entry.items()}

    return {key: hide(entry) if key in ("source", "mask") else entry for key, entry in certificate.items()}
