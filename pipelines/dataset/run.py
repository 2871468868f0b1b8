"""`brgm-med run`: a directory of scans in, a directory of derivatives out. A BIDS App."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from brgm_med.errors import BrgmError, CannotWriteError, InputRefusedError, UsageError
from brgm_med.files import make_folder
from brgm_med.pipelines.console import say, shown
from brgm_med.pipelines.dataset.bids import find_scans
from brgm_med.pipelines.dataset.citation import cite
from brgm_med.pipelines.dataset.description import describe_dataset
from brgm_med.pipelines.dataset.names import SUFFIXES, T1W
from brgm_med.pipelines.dataset.outcomes import outcome_of, renew_report
from brgm_med.pipelines.dataset.plain import find_plain
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Level, Selection, Settings
from brgm_med.pipelines.dataset.work import graph, work_on_each
from brgm_med.pipelines.report import study_report
from brgm_med.pipelines.workflow import engines
from brgm_med.pipelines.workflow.refusals import write_refusal
from brgm_med.pipelines.workflow.write_back import note
from brgm_med.priors.bundle import load
from brgm_med.staging import NEW, private_folders, scratch_beside, settle_below


def run(
    root: Path,
    out: Path,
    level: Level,
    settings: Settings,
    selection: Selection,
    *,
    work: Path | None = None,
    nprocs: int = 1,
    mem_gb: float | None = None,
    plugin: Path | None = None,
    stop_on_first_crash: bool = False,
    reports_only: bool = False,
    dry_run: bool = False,
) -> None:
    """Run `level` of the study at `root`, into `out`; `work` (default: OUT_work beside it) remembers what is done.

    participant: every scan is reconstructed, or, to train, registered and sliced. group: the table of the study
    (study.html, .csv, .tsv), and, to train, the training, into `out`/prior. Each scan ends as a derivative, or as a
    note in `out`/logs that says why there is none. Raises BrgmError (exit code 1) where a scan has none, once all
    others are done; other errors as the exit codes say.
    """
    engines.limit_threads(settings.threads)
    root, out = root.resolve(), out.resolve()
    work = work or out.with_name(f"{out.name}_work")
    if work.is_symlink():
        raise CannotWriteError(f"{work}: is a link, and the folder that it names would become private; name that")
    work = work.resolve()
    scratch_beside(out)
    check_places(root, out, work)
    scans = find(root, settings, selection, without=(out, work))
    skipped = [scan.path.relative_to(root) for scan in scans if scan.skipped]
    if len(skipped) == len(scans):
        raise InputRefusedError(f"{root}: no scan has a mask, so there is nothing to fill; see --mask-pattern")
    if dry_run:
        for scan in scans:
            print(shown(f"{scan.path.relative_to(root)}: {scan.problem or scan.destination}"))
        return
    for name in skipped:
        say(f"{name}: skipped: has no mask, nothing to fill")
    scans = [scan for scan in scans if not scan.skipped]
    chosen = engines.engine(nprocs, mem_gb, plugin)
    make_folder(out)
    crashed: list[str] = []
    with alone(work, out):
        if not reports_only:
            for scan in scans:
                if scan.problem is not None:
                    refuse(scan, out)
            good = [scan for scan in scans if scan.problem is None]
            if level == "participant":
                crashed = work_on_each(good, settings, out, work, chosen, stop_on_first_crash)
            elif good and settings.task == "train":
                workflow = graph(good, settings, out, train=True)
                crashed = engines.run(workflow, work, chosen, stop_on_first_crash=stop_on_first_crash, report=say)
        title = f"{settings.task} of {root.name}"
        if selection.layout == "bids":
            describe_dataset(out, root, f"brgm-med {title}")
        outcomes = [outcome_of(scan, out, settings.task) for scan in scans]
        cite(out, settings, outcomes)
        if reports_only:
            for scan, outcome in zip(scans, outcomes, strict=True):
                if outcome.certificate and settings.task != "train":
                    say(f"{renew_report(scan, outcome, out, settings).relative_to(out)}: written")
            outcomes = [outcome_of(scan, out, settings.task) for scan in scans]
        if level == "group":
            like = [scan.path for scan in scans if scan.path.exists()]
            study_report(out / "study.html", outcomes, title=title, force=True, like=like)
    bad = [outcome for outcome in outcomes if outcome.status != "done"]
    for outcome in bad:
        say(f"{outcome.name}: {outcome.status}: {outcome.reason}")
    done = f"{len(outcomes) - len(bad)} of {len(outcomes)} scans done"
    if crashed:
        raise BrgmError(f"{root}: {done}, {len(crashed)} nodes crashed ({crashed[0]} first): see {work / 'crash'}")
    if bad:
        raise BrgmError(f"{root}: {done}; why the others are not is said above and in {out / 'logs'}")
    say(f"{done}{f', {len(skipped)} skipped' * bool(skipped)}; derivatives are in {out}")


def check_places(root: Path, out: Path, work: Path) -> None:
    """Raises UsageError for folders that must not lie in one another."""
    if out == root or root.is_relative_to(out):
        raise UsageError(f"{out}: the derivatives must not lie over the scans; choose another output folder")
    for other in (root, out):
        if work == other or other.is_relative_to(work) or work.is_relative_to(other):
            raise UsageError(f"{work}: the work directory and {other} must not lie in one another; give another -w")


def find(root: Path, settings: Settings, selection: Selection, *, without: Sequence[Path]) -> list[Scan]:
    """The scans of the study, see `bids` and `plain`. Raises UsageError for options that do not go together."""
    labels, series, mask_pattern = selection.labels, selection.series, selection.mask_pattern
    if mask_pattern is not None and settings.task != "inpaint":
        raise UsageError("--mask-pattern: is for --task inpaint; leave it out")
    if settings.population is None and settings.task != "sr":
        raise UsageError(f"--prior {settings.prior}: is for --task sr; name a population prior, or leave it out")
    if selection.layout == "plain":
        if labels:
            raise UsageError("--participant-label: is for BIDS; with --layout plain all scans are taken")
        if selection.suffixes:
            raise UsageError("--suffix: is for BIDS; with --layout plain all scans are taken")
        return find_plain(root, task=settings.task, series=series, mask_pattern=mask_pattern, without=without)
    if series is not None:
        raise UsageError("--series: is for DICOM; add --layout plain")
    return find_scans(
        root,
        task=settings.task,
        spacing=None if settings.population is None else load(settings.population).spacing,
        own=settings.own,
        suffixes=selection.suffixes or (SUFFIXES if settings.own else (T1W,)),
        labels=labels,
        mask_pattern=mask_pattern,
    )


def refuse(scan: Scan, out: Path) -> None:
    """Note in `out`/logs a scan that is refused before any step."""
    with private_folders([out]) as folders:
        note(write_refusal(folders[out] / NEW, scan.path, "find", BrgmError(scan.problem)), out, scan.destination)


@contextmanager
def alone(work: Path, out: Path) -> Iterator[None]:
    """The only run in the private folder `work`; others may fill `out` too, from work directories of their own.

    What killed runs left half-written in `out` is removed, where no other run is at it. Raises CannotWriteError where
    another one is at work in `work`.
    """
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
                for left in out.rglob(".brgm-*.part"):  # a file, of an older version
                    if left.is_file():
                        left.unlink()
            for at in (work, out):
                settle_below(at)
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_SH)
            yield
    finally:
        os.close(folder)
