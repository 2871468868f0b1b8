"""The start of a run that writes de-identified files, beside the `Deidentifier` that changes each data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brgm_med.errors import UsageError
from brgm_med.extras import require
from brgm_med.pipelines.console import say

if TYPE_CHECKING:
    from brgm_med.transforms.formats.dicom.deidentify import Deidentifier


def begin(out: Path | None) -> Deidentifier:
    """The deidentifier of one run, before any other work. Warns that faces remain.

    Raises UsageError without `out`: the default name of an output contains the source's, maybe the patient's.
    """
    require("dicom", "dicomanonymizer")
    from brgm_med.transforms.formats.dicom.deidentify import FACES, Deidentifier

    if out is None:
        raise UsageError("--deidentify: needs --out, for the default name would be made of the source's")
    say(FACES)
    return Deidentifier()
