"""What every result says about itself."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.errors import UsageError
from brgm_med.files import check_output
from brgm_med.transforms.formats import stem
from brgm_med.transforms.formats.dicom_derived import MASKING, RESAMPLING, Derivation

STATEMENT = "Derived image: part measured, part inferred by a statistical model. For research, not for diagnosis."
SIMULATED = "Derived image: simulated from a finer scan. For research, not for diagnosis."
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


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


def describe(name: str, description: str) -> dict[str, Any]:
    """What MONAI's schema of a bundle's metadata asks for, but for `network_data_format`."""
    version = importlib.metadata.version
    return {
        "schema": SCHEMA,
        "name": name,
        "version": __version__,
        "changelog": {__version__: description},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "brgm-med": __version__,
            "nibabel": version("nibabel"),
            "safetensors": version("safetensors"),
        },
        "supported_apps": {},
        "task": "Prior of coronal slices of heads, for their Bayesian reconstruction",
        "description": description,
        "authors": f"trained by brgm-med {__version__}",
        "copyright": "see LICENSE",
        "data_type": "nibabel",
        "image_classes": "coronal slices of registered heads; air -1, mean of the brain 0",
        "intended_use": "research only, not for diagnosis",
        "references": [
            "Marinescu, Moyer, Golland. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567",
            "Karras et al. Analyzing and Improving the Image Quality of StyleGAN. arXiv:1912.04958",
        ],
    }


def sidecar_of(path: Path, stem: str) -> Path:
    """The JSON file beside a scan: same name, `.json`."""
    return path.with_name(f"{stem}.json")


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
