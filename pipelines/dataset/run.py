"""`brgm-med run`: a directory of scans in, a directory of derivatives out. A BIDS App."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med.errors import BrgmError, CannotWriteError, UsageError
from brgm_med.files import make_folder
from brgm_med.pipelines.console import say
from brgm_med.pipelines.dataset import bids
from brgm_med.pipelines.dataset.bids import Scan
from brgm_med.pipelines.dataset.outcomes import cite, outcomes, renew_report, write_study
from brgm_med.pipelines.dataset.settings import Level, Settings
from brgm_med.pipelines.workflow import engines
from brgm_med.pipelines.workflow.refusals import write_refusal
from brgm_med.pipelines.workflow.write_back import note

if TYPE_CHECKING:
    from nipype import Workflow


def run(
    place: Path,
    out: Path,
    level: Level,
    settings: Settings,
    *,
    labels: Sequence[str] = (),
    layout: Literal["bids", "plain"] = "bids",
    series: str | None = None,
    mask_pattern: str | None = None,
    work: Path | None = None,
    nprocs: int = 1,
    mem_gb: float | None = None,
    plugin: Path | None = None,
    stop_on_first_crash: bool = False,
    reports_only: bool = False,
    dry_run: bool = False,
) -> None:
    """Do `level` of the study at `place`, into `out`; `work` (default: OUT_work beside it) remembers what is done.

    participant: every scan is reconstructed, or, to train, registered and sliced. group: the table of the study
    (study.html, study.csv), and, to train, the training, into `out`/prior. Each scan ends as a derivative, or as a note
    in `out`/logs that says why there is none. Raises BrgmError (exit code 1) where a scan has none, once all others are
    done; other errors as the exit codes say.
    """
    engines.limit_threads(settings.threads)
    place, out = place.resolve(), out.resolve()
    work = (work or out.with_name(f"{out.name}_work")).resolve()
    check_places(place, out, work)
    given: dict[str, Any] = {"labels": labels, "layout": layout, "series": series, "mask_pattern": mask_pattern}
    scans = find(place, settings, **given, without=(out, work))
    if dry_run:
        for scan in scans:
            print(f"{scan.place.relative_to(place)}: {scan.problem or scan.destination}")
        return
    chosen = engines.engine(nprocs, mem_gb, plugin)
    make_folder(out)
    crashed: list[str] = []
    with alone(work, out):
        if not reports_only:
            for scan in scans:
                if scan.problem is not None:
                    refuse(scan, out)
            good = [scan for scan in scans if scan.problem is None]
            workflow = graph(good, settings, level, out)
            if good and workflow is not None:
                crashed = engines.run(workflow, work, chosen, stop_on_first_crash=stop_on_first_crash, report=say)
        if layout == "bids":
            bids.describe_dataset(out, place, f"brgm-med {settings.task} of {place.name}")
        found = outcomes(scans, out, settings.task)
        cite(out, settings, found)
        if reports_only:
            for one in (one for one in found if one.certificate and settings.task != "train"):
                say(f"{renew_report(one, out, settings.prior).relative_to(out)}: written")
        if level == "group":
            write_study(out, found, f"{settings.task} of {place.name}")
    for one in found:
        if one.status != "done":
            say(f"{one.scan.place.relative_to(place)}: {one.status}: {one.reason}")
    bad = sum(one.status != "done" for one in found)
    done = f"{len(found) - bad} of {len(found)} scans done"
    if crashed:
        raise BrgmError(f"{place}: {done}, {len(crashed)} nodes crashed ({crashed[0]} first): see {work / 'crash'}")
    if bad:
        raise BrgmError(f"{place}: {done}; why the others are not is said above and in {out / 'logs'}")
    say(f"{done}; derivatives are in {out}")


def check_places(place: Path, out: Path, work: Path) -> None:
    """Raises UsageError for folders that must not lie in one another."""
    if out == place or place.is_relative_to(out):
        raise UsageError(f"{out}: the derivatives must not lie over the scans; choose another output folder")
    for other in (place, out):
        if work == other or other.is_relative_to(work) or work.is_relative_to(other):
            raise UsageError(f"{work}: the work directory and {other} must not lie in one another; give another -w")


def find(
    place: Path,
    settings: Settings,
    *,
    labels: Sequence[str] = (),
    layout: str = "bids",
    series: str | None = None,
    mask_pattern: str | None = None,
    without: Sequence[Path] = (),
) -> list[Scan]:
    """The scans of the study, see `bids`. Raises UsageError for options that do not go together."""
    if mask_pattern is not None and settings.task != "inpaint":
        raise UsageError("--mask-pattern: is for --task inpaint; leave it out")
    if layout == "plain":
        if labels:
            raise UsageError("--participant-label: is for BIDS; with --layout plain all scans are taken")
        return bids.find_plain(place, task=settings.task, series=series, mask_pattern=mask_pattern, without=without)
    if series is not None:
        raise UsageError("--series: is for DICOM; add --layout plain")
    from brgm_med.priors.bundle import load

    spacing = load(settings.prior).spacing
    return bids.find_scans(place, task=settings.task, spacing=spacing, labels=labels, mask_pattern=mask_pattern)


def refuse(scan: Scan, out: Path) -> None:
    """Note in `out`/logs a scan that is refused before any step."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        note(write_refusal(Path(folder), scan.place, "find", BrgmError(scan.problem)), out, scan.destination)


def graph(scans: Sequence[Scan], settings: Settings, level: Level, out: Path) -> Workflow | None:
    """A workflow for every group of scans, in one; None where a level has nothing to compute."""
    from nipype import Workflow

    from brgm_med.pipelines.workflow.workflows import init_brgm_wf, init_study_train_wf

    if level == "group" and settings.task != "train":
        return None
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        groups.setdefault(scan.group, []).append(scan)
    if settings.task == "train":
        return init_study_train_wf(
            {node_name(group): inputs(members) for group, members in groups.items()},
            out_dir=out,
            prior=settings.prior,
            train={"kimg": settings.kimg, "seed": settings.seed} if level == "group" else None,
            threads=settings.threads,
        )
    study = Workflow(name="brgm_med")
    for group, members in groups.items():
        one = init_brgm_wf(
            out_dir=out,
            task=settings.task,
            prior=settings.prior,
            steps=settings.steps,
            seed=settings.seed,
            threads=settings.threads,
            dicom=any(not m.place.name.endswith((".nii", ".nii.gz")) for m in members),
            name=node_name(group),
        )
        one.get_node("inputnode").inputs.trait_set(**inputs(members))
        study.add_nodes([one])
    return study


def node_name(group: str) -> str:
    """A name for Nipype, of letters, digits and underscores; of plain files no name, but a hash of it."""
    known = group.startswith("sub-") and group[4:].isalnum()
    return group.replace("-", "_") if known else f"scan_{hashlib.sha256(group.encode()).hexdigest()[:10]}"


def inputs(scans: Sequence[Scan]) -> dict[str, list[Any]]:
    """The lists that `init_brgm_wf` takes."""
    lists: dict[str, list[Any]] = {
        "scans": [str(s.place) for s in scans],
        "series": [s.series for s in scans],
        "metadata": [s.metadata for s in scans],
        "destinations": [s.destination for s in scans],
        "sidecars": [s.sidecar for s in scans],
    }
    return lists | ({"masks": [str(s.mask) for s in scans]} if scans[0].mask is not None else {})


@contextmanager
def alone(work: Path, out: Path) -> Iterator[None]:
    """The only run in the private folder `work`; others may fill `out` too, from work directories of their own.

    What killed runs left half-written in `out` is removed, where no other run is at it. Raises CannotWriteError where
    another one is at work in `work`.
    """
    import fcntl

    engines.private_folder(work)
    folder = os.open(out, os.O_RDONLY)
    try:
        with open(work / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CannotWriteError(f"{work}: another run is at it; wait for that, or give another -w") from error
            with suppress(OSError):  # others are at work there, or the file system has no locks
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left in [*out.rglob(".brgm-*.part"), *out.rglob(".brgm-*.old")]:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_SH)
            yield
    finally:
        os.close(folder)
