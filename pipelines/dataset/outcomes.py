"""The outcomes of a study's scans: a table, and a paragraph for a paper. Times, hosts and folders stay out of both."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.files import make_folder
from brgm_med.pipelines.dataset.bids import Scan, write_if_new
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.report import Outcome, subject_report
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.pipelines.steps.convert import convert
from brgm_med.pipelines.workflow.refusals import reason_of
from brgm_med.pipelines.workflow.write_back import CERTIFICATE, POSE, log_of
from brgm_med.priors.bundle import load


def outcome_of(scan: Scan, out: Path, task: str) -> Outcome:
    """The outcome of a scan, read from the derivatives in `out`."""
    name = scan.sidecar["Sources"][0].rsplit(":", 1)[-1]
    log, pose = log_of(out, scan.destination), log_of(out, scan.destination, POSE)
    about, report = (out / f"{scan.destination}{ending}" for ending in (".json", ".html"))
    if log.is_file():
        return Outcome(name, "refused", reason_of(log))
    if about.is_file():
        certificate = json.loads(about.read_text())[CERTIFICATE]
        return Outcome(name, "done", "", certificate, report if report.is_file() else None)
    if task == "train" and pose.is_file():  # no derivative of its own
        return Outcome(name, "done", "", {"registration": json.loads(pose.read_text())})
    return Outcome(name, "failed", "there is no result; it crashed, or was not run yet")


def renew_report(scan: Scan, outcome: Outcome, out: Path, prior: str) -> Path:
    """The report of a scan that is done, made anew from its derivative. Raises as `report.subject_report` does."""
    derivative = out / scan.destination
    images = [p for p in (derivative.with_name(derivative.name + end) for end in (".nii.gz", ".nii")) if p.is_file()]
    if not images:
        raise InputRefusedError(f"{derivative}: its image is gone; run participant again")
    measured = measured_beside(images[0])
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / f"{derivative.name}_certificate.json"
        certificate.write_text(json.dumps(outcome.certificate))
        source, _ = convert(scan.path, Path(folder), series=scan.series, metadata=scan.metadata)
        return subject_report(
            derivative.with_name(derivative.name + ".html"),
            scan=source,
            result=images[0],
            certificate=certificate,
            measured=measured if measured.is_file() else None,
            mask=scan.mask,
            prior=prior,
            force=True,
        )


PAPER = (
    "Marinescu RV, Moyer D, Golland P. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567.\n"
)


def cite(out: Path, settings: Settings, outcomes: Sequence[Outcome]) -> None:
    """`out`/logs/CITATION.md: a paragraph of methods that is true of what `out` holds."""
    make_folder(out / "logs")
    prior = load(settings.prior)
    done = [one for one in outcomes if one.status == "done"]
    others = len(outcomes) - len(done)
    lost = f" {others} further scan{'s were' if others != 1 else ' was'} not reconstructed." * bool(others)
    which = f'the prior "{prior.name}" (SHA-256 {prior.sha256})'
    scans = f"{len(done)} T1-weighted scan{'s' * (len(done) != 1)}"
    if settings.task == "train":
        text = (
            f"{len(outcomes)} T1-weighted scans were registered rigidly to the template of {which} and normalised with "
            f"brgm-med {__version__}, and a StyleGAN2 prior of their coronal slices is trained on those that were not "
            f"refused, up to {settings.kimg:g} thousand slices, seed {settings.seed}."
        )
    else:
        steps = sorted({one.certificate["parameters"]["steps"] for one in done})
        searched = f" ({' or '.join(str(s) for s in steps)} evaluations)" if steps else ""
        assumed = sum(not one.certificate["acquisition"]["Stated"] for one in done)
        profile = f" The slice profile was assumed from the voxel spacing in {assumed} of them." * bool(assumed)
        if settings.task == "sr":
            methods = (
                f"{scans} were super-resolved with brgm-med {__version__} to a spacing of at most {prior.spacing:g} "
                f"mm. The maximum a posteriori image under {which} was searched by L-BFGS{searched} and then made "
                "as consistent with the measured values as their noise asks by a covariance-weighted projection"
            )
            worst = max((one.certificate["consistency"]["relative_residual"] for one in done), default=None)
            methods += "." if worst is None else f" (largest relative residual {worst:.1e})."
        else:
            methods = (
                f"Masked voxels of {scans} were filled in with brgm-med {__version__}. The maximum a posteriori image "
                f"under {which}, given the voxels around them, was searched by L-BFGS{searched} and blended in the "
                "gradient domain; no voxel outside the masks was changed."
            )
        text = f"{methods}{profile}{lost} The random seed was {settings.seed}."
    text += " Voxels that were not measured are inferred by a statistical model: for research, not for diagnosis."
    write_if_new(out / "logs" / "CITATION.md", f"# Methods\n\n{text}\n\n# Reference\n\n{PAPER}")
