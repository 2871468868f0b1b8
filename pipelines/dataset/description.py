"""The files that make a folder of derivatives a BIDS data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

from brgm_med._version import __version__
from brgm_med.files import replacing
from brgm_med.pipelines.dataset.bids import RAW
from brgm_med.pipelines.results.certificate import STATEMENT

VERSION = "1.10.0"
IGNORED = ("*_measured.nii.gz", "*.html", "*.csv", "/study.tsv", "figures/", "logs/", "/prior/")
"""Files outside BIDS: maps, reports, logs, and a prior that was trained. Images are never ignored."""


def describe_dataset(out: Path, root: Path, name: str) -> None:
    """`dataset_description.json` and `.bidsignore` of the derivatives in `out`, made from the data set at `root`."""
    content = {
        "Name": name,
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "brgm-med",
                "Version": __version__,
                "Description": "Bayesian reconstruction with a deep generative prior. Derived images, for research, "
                "not for diagnosis.",
            }
        ],
        "SourceDatasets": [{"URL": Path(os.path.relpath(root, out)).as_posix()}],
        "DatasetLinks": {RAW: Path(os.path.relpath(root, out)).as_posix()},
    }
    write_if_new(out / "dataset_description.json", json.dumps(content, indent=2) + "\n")
    write_if_new(out / "README", f"{STATEMENT}\n\nMade by brgm-med {__version__}; logs/CITATION.md says how.\n")
    write_if_new(out / ".bidsignore", "\n".join(IGNORED) + "\n")


def write_if_new(path: Path, text: str) -> None:
    """Write `text`, atomically, unless the file says so already. Raises CannotWriteError."""
    if path.is_file() and path.read_text() == text:
        return
    with replacing(path, force=True) as temporary:
        temporary.write_text(text)
