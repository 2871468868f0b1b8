"""The work on the scans of a study: their graphs, each a job of one process, and the records of what is done."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med.pipelines.console import LOG, progress, say
from brgm_med.pipelines.dataset.remembered import inputs_of, is_done, outputs_of, prior_of, remember
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.workflow import engines
from brgm_med.pipelines.workflow.write_back import IN_BIDS

if TYPE_CHECKING:
    from nipype import Workflow

    from brgm_med.pipelines.workflow.jobs import Job

GRAPH = "brgm_med"
"""Name of a study's graph, and of its folder in the work directory."""

KNOWN = re.compile(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*(_[A-Za-z0-9]+)?")
LONGEST_KNOWN = 60
"""Names that are taken as they are: in these no two differ by - and _ alone; and their letters."""


def work_on_each(
    scans: Sequence[Scan], settings: Settings, out: Path, work: Path, chosen: engines.Engine, stop: bool
) -> list[str]:
    """Work on those scans whose records do not say that nothing is to be done; returns names of what crashed.

    A job has one scan, or, to train, all of a subject. With `stop`, none is begun after one has crashed. Progress is in
    jobs; where details are wanted, every node has a line too.
    """
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        name = scan.group if settings.task == "train" else scan.destination
        groups.setdefault(node_name(name), []).append(scan)
    prior, pending, details = prior_of(settings), dict[str, "Job"](), LOG.isEnabledFor(logging.DEBUG)
    for name, members in groups.items():
        inputs, record = inputs_of(members, settings, prior, out), record_of(work, name)
        if not is_done(record, inputs, outputs_of(members, out)):
            pending[name] = partial(work_on, members, settings, out, work, record, inputs, stop, details)
    if not pending:
        return []
    say_identical([scan.path for scan in scans if not is_nifti(scan.path)])
    from brgm_med.pipelines.workflow import jobs

    steps = ("preprocess",) if settings.task == "train" else ("reconstruct", "report")
    mem_gb = max(engines.MEM_GB[step] for step in steps)
    size: dict[str, Any] = {"n_procs": settings.threads, "mem_gb": mem_gb}
    label = "preparing subjects" if settings.task == "train" else "reconstructing scans"
    with progress(label, len(pending)) as advance:

        def ended(line: str) -> None:
            if line.endswith("crashed"):
                say(line)
            advance(line)

        return jobs.run(pending, work, chosen, **size, stop_on_first_crash=stop, report=ended)


def work_on(
    scans: Sequence[Scan],
    settings: Settings,
    out: Path,
    work: Path,
    record: Path,
    inputs: str,
    stop: bool,
    details: bool = False,
) -> list[str]:
    """A job: the graph of `scans` in this process, and the `record` of its end; returns names of nodes that crashed.

    With `details`, every node that has ended is told.
    """
    report = say if details else None
    crashed = engines.run(graph(scans, settings, out), work, ("Linear", {}), stop_on_first_crash=stop, report=report)
    if not crashed:
        remember(record, inputs, outputs_of(scans, out))
    return crashed


def record_of(work: Path, name: str) -> Path:
    """The record of a job's end, beside its nodes."""
    return work / GRAPH / name / "done.json"


def graph(scans: Sequence[Scan], settings: Settings, out: Path, train: bool = False) -> Workflow:
    """A workflow for all of `scans`; with `train`, and the training on them."""
    from nipype import Workflow

    from brgm_med.pipelines.workflow.workflows import init_brgm_wf, init_study_train_wf

    files = {"allow_missing_files": settings.allow_missing_files}
    options: dict[str, Any] = {"prior": settings.prior, "threads": settings.threads, **files}
    if settings.task == "train":
        groups: dict[str, list[Scan]] = {}
        for scan in scans:
            groups.setdefault(node_name(scan.group), []).append(scan)
        return init_study_train_wf(
            {group: lists_of(members) for group, members in groups.items()},
            out_dir=out,
            train={"kimg": settings.kimg, "seed": settings.seed} if train else None,
            name=GRAPH,
            **options,
        )
    study = Workflow(name=GRAPH)
    for scan in scans:
        one = init_brgm_wf(
            out_dir=out,
            task=settings.task,
            steps=settings.steps,
            seed=settings.seed,
            dicom=not is_nifti(scan.path),
            several=bool(scan.further),
            options={"device": settings.device, **settings.model.stated},
            name=node_name(scan.destination),
            **options,
        )
        one.get_node("inputnode").inputs.trait_set(**lists_of([scan]))
        study.add_nodes([one])
    return study


def is_nifti(path: Path) -> bool:
    """True by its name; what else a study holds is DICOM."""
    return path.name.endswith((".nii", ".nii.gz"))


def node_name(name: str) -> str:
    """A name for Nipype, of letters, digits and underscores: of a subject or a derivative of BIDS its own, of others a
    hash."""
    last = name.rsplit("/", 1)[-1]
    known = KNOWN.fullmatch(last) and len(last) <= LONGEST_KNOWN and (name == last or IN_BIDS.fullmatch(name))
    return last.replace("-", "_") if known else f"scan_{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def lists_of(scans: Sequence[Scan]) -> dict[str, list[Any]]:
    """The lists that `init_brgm_wf` takes."""
    lists: dict[str, list[Any]] = {
        "scans": [str(s.path) for s in scans],
        "series": [s.series for s in scans],
        "metadata": [s.metadata for s in scans],
        "destinations": [s.destination for s in scans],
        "sidecars": [s.sidecar for s in scans],
    }
    if scans[0].further:
        lists["further_scans"] = [[str(path) for path, _ in s.further] for s in scans]
        lists["further_metadata"] = [[metadata for _, metadata in s.further] for s in scans]
    return lists | ({"masks": [str(s.mask) for s in scans]} if scans[0].mask is not None else {})
