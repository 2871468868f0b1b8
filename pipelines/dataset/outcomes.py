"""What became of a study's scans: a table, and a paragraph for a paper. Nothing here tells times, hosts or folders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.files import make_folder
from brgm_med.pipelines.dataset.bids import Scan, write_if_new
from brgm_med.pipelines.workflow.refusals import reason_of
from brgm_med.pipelines.workflow.write_back import CERTIFICATE, POSE, log_of

if TYPE_CHECKING:
    from brgm_med.pipelines.dataset.settings import Settings

STATUS: dict[str, Literal["done", "refused", "failed"]] = {"done": "done", "refused": "refused", "missing": "failed"}


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
        elif task == "train" and log_of(out, scan.destination, POSE).is_file():  # no derivative of its own
            pose = json.loads(log_of(out, scan.destination, POSE).read_text())
            found.append(Outcome(scan, "done", "", {"registration": pose}))
        else:
            found.append(Outcome(scan, "missing", "there is no result; it crashed, or was not run yet"))
    return found


@contextmanager
def certificate_of(one: Outcome) -> Iterator[Path]:
    """The certificate of a scan that is done, as a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{one.scan.destination.rsplit('/', 1)[-1]}_certificate.json"
        path.write_text(json.dumps(one.certificate))
        yield path


def write_study(out: Path, found: Sequence[Outcome], title: str) -> Path:
    """`out`/study.html and study.csv: a row for every scan, and why it has no result."""
    from brgm_med.pipelines.report import Subject, study_report

    with ExitStack() as kept:
        subjects = []
        for one in found:
            name = one.scan.sidecar["Sources"][0].rsplit(":", 1)[-1]
            report = out / f"{one.scan.destination}.html"
            files = {"certificate": kept.enter_context(certificate_of(one))} if one.certificate else {}
            if one.status == "done" and report.is_file():
                files["report"] = report
            subjects.append(Subject(name, STATUS[one.status], one.reason, **files))
        return study_report(out / "study.html", subjects, title=title, force=True)


def renew_report(one: Outcome, out: Path, prior: str) -> Path:
    """The report of a scan that is done, made anew from its derivative. Raises as `report.subject_report` does."""
    from brgm_med.pipelines.report import subject_report
    from brgm_med.pipelines.results.nifti import measured_beside
    from brgm_med.pipelines.steps.convert import convert

    place = out / one.scan.destination
    images = [p for p in (place.with_name(place.name + end) for end in (".nii.gz", ".nii")) if p.is_file()]
    if not images:
        raise InputRefusedError(f"{place}: its image is gone; run participant again")
    measured = measured_beside(images[0])
    with tempfile.TemporaryDirectory() as folder, certificate_of(one) as certificate:
        scan, _ = convert(one.scan.place, Path(folder), series=one.scan.series, metadata=one.scan.metadata)
        return subject_report(
            place.with_name(place.name + ".html"),
            scan=scan,
            result=images[0],
            certificate=certificate,
            measured=measured if measured.is_file() else None,
            mask=one.scan.mask,
            prior=prior,
            force=True,
        )


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
                "as consistent with the measured values as their noise asks by a covariance-weighted projection"
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
