"""What became of a study's scans: a table, and a paragraph for a paper. Nothing here tells times, hosts or folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__
from brgm_med.pipelines.bids import Scan, write_if_new
from brgm_med.pipelines.refusals import reason_of
from brgm_med.pipelines.write_back import CERTIFICATE, log_of, make_folder

if TYPE_CHECKING:
    from brgm_med.pipelines.run import Settings

COLUMNS = ("scan", "status", "reason", "correlation", "relative_residual", "derivative")


@dataclass(frozen=True)
class Outcome:
    """`status` of a scan: done, refused, or missing (crashed, or not run yet), and why; its `certificate` if done."""

    scan: Scan
    status: str
    reason: str = ""
    certificate: dict[str, Any] = field(default_factory=dict)


def outcomes(scans: Sequence[Scan], out: Path, task: str) -> list[Outcome]:
    """Of every scan, read from the derivatives in `out`."""
    found = []
    for scan in scans:
        log, about = log_of(out, scan.destination), out / f"{scan.destination}.json"
        if log.is_file():
            found.append(Outcome(scan, "refused", reason_of(log)))
        elif about.is_file():
            found.append(Outcome(scan, "done", "", json.loads(about.read_text())[CERTIFICATE]))
        elif task == "train":  # whose heads leave no derivative of their own
            found.append(Outcome(scan, "done"))
        else:
            found.append(Outcome(scan, "missing", "there is no result; it crashed, or was not run yet"))
    return found


def write_table(out: Path, found: Sequence[Outcome]) -> Path:
    """`out`/study.csv: a row for every scan, and why it has no result."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found:
        proof = one.certificate
        row = {
            "scan": one.scan.sidecar["Sources"][0].rsplit(":", 1)[-1],
            "status": one.status,
            "reason": one.reason,
            "correlation": _number(proof.get("registration", {}).get("correlation")),
            "relative_residual": _number(proof.get("consistency", {}).get("relative_residual")),
            "derivative": one.scan.destination if one.status == "done" else "",
        }
        writer.writerow(row)
    path = out / "study.csv"
    write_if_new(path, text.getvalue())
    return path


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


PAPER = (
    "Marinescu RV, Moyer D, Golland P. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567.\n"
)


def cite(out: Path, settings: Settings, found: Sequence[Outcome]) -> None:
    """`out`/logs/CITATION.md: a paragraph of methods that is true of what `out` holds."""
    from brgm_med.priors.bundle import load

    make_folder(out / "logs")
    prior = load(settings.prior)
    done = [one for one in found if one.status == "done"]
    others = len(found) - len(done)
    lost = f" {others} further scan{'s were' if others != 1 else ' was'} not reconstructed." * bool(others)
    which = f'the prior "{prior.name}" (SHA-256 {prior.sha256})'
    scans = f"{len(done)} T1-weighted scan{'s' * (len(done) != 1)}"
    if settings.task == "train":
        text = (
            f"{len(found)} T1-weighted scans were registered rigidly to the template of {which} and normalised with "
            f"brgm-med {__version__}, and a StyleGAN2 prior of their coronal slices is trained on those that were not "
            f"refused, up to {settings.kimg:g} thousand slices, seed {settings.seed}."
        )
    else:
        steps = sorted({one.certificate["parameters"]["steps"] for one in done})
        searched = f" ({' or '.join(str(s) for s in steps)} evaluations)" if steps else ""
        assumed = sum(not one.certificate["acquisition"]["Stated"] for one in done)
        profile = f" The slice profile was assumed from the voxel spacing in {assumed} of them." * bool(assumed)
        if settings.task == "sr":
            what = (
                f"{scans} were super-resolved with brgm-med {__version__} to a spacing of at most {prior.spacing:g} "
                f"mm. The maximum a posteriori image under {which} was searched by L-BFGS{searched} and then made "
                "consistent with every measured value by a covariance-weighted projection"
            )
            worst = max((one.certificate["consistency"]["relative_residual"] for one in done), default=None)
            what += "." if worst is None else f" (largest relative residual {worst:.1e})."
        else:
            what = (
                f"Masked voxels of {scans} were filled in with brgm-med {__version__}. The maximum a posteriori image "
                f"under {which}, given the voxels around them, was searched by L-BFGS{searched} and blended in the "
                "gradient domain; no voxel outside the masks was changed."
            )
        text = f"{what}{profile}{lost} The random seed was {settings.seed}."
    text += " Voxels that were not measured are inferred by a statistical model: for research, not for diagnosis."
    write_if_new(out / "logs" / "CITATION.md", f"# Methods\n\n{text}\n\n# Reference\n\n{PAPER}")
