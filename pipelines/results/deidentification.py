"""What de-identified writing asks of a command, beside the `Deidentifier` that changes each data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.errors import UsageError
from brgm_med.pipelines.reading import WITHHELD

if TYPE_CHECKING:
    from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
    from brgm_med.transforms.formats.dicom.derived import Choices


def begin(out: Path | None) -> Deidentifier:
    """A deidentifier for one run, made before any other work. Warns that faces remain.

    Raises UsageError without `out`: the default name of an output is made of the source's, maybe the patient's.
    """
    from brgm_med.pipelines.console import say
    from brgm_med.transforms.formats.dicom.deidentify import FACES, Deidentifier

    if out is None:
        raise UsageError("--deidentify: needs --out, for the default name would be made of the source's")
    say(FACES)
    return Deidentifier()


def withhold(certificate: dict[str, Any], choices: Choices) -> dict[str, Any]:
    """A certificate without the names and hashes of the files that went in, where the output is de-identified.

    Both lead back to the patient.
    """
    if choices.transform is None:
        return certificate

    def hide(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        return {k: WITHHELD if k in ("file", "sha256") else v for k, v in entry.items()}

    def hidden(key: str, entry: Any) -> Any:
        if key == "further_scans":
            return [hide(one) for one in entry]
        return hide(entry) if key in ("source", "mask") else entry

    return {key: hidden(key, entry) for key, entry in certificate.items()}
