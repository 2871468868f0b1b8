"""Nipype workflows over scans. Each has an `inputnode` and an `outputnode`; lists of scans run side by side (MapNodes).

                      init_brgm_wf
    scans --> [preprocess_wf: convert --> preprocess --> slice]
                 |  scans, sidecars                        | slices
                 v                                         v
              [reconstruct_wf: reconstruct --> report] <------- prior ------- [train_wf]
                 |  results, certificates, reports
                 v
              [write_back_wf] --> derivatives (and DICOM where the scan was DICOM)

Without training, the prior is one that is at hand, and nothing is preprocessed or sliced: a reconstruction registers
the scan itself, because its likelihood lives on the scan's own grid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nipype import MapNode, Node, Workflow
from nipype.interfaces.utility import IdentityInterface, Merge

from brgm_med.errors import UsageError
from brgm_med.pipelines.workflow.compute import Convert, Preprocess, Reconstruct, Slice, Train
from brgm_med.pipelines.workflow.engines import MEM_GB
from brgm_med.pipelines.workflow.publish import Note, Report, WriteBack, WriteDicom, WritePrior
from brgm_med.pipelines.workflow.step import Step
from brgm_med.priors import AUTO, DEFAULT, SELF, population
from brgm_med.priors.bundle import find, names

Task = Literal["sr", "inpaint"]


def prior_path(prior: str) -> str:
    """A shipped prior's name, "auto" and "self" as they are, a folder by its whole path: nodes run in folders of their
    own.

    Raises PriorError where there is no such prior.
    """
    return prior if prior in (AUTO, SELF, *names()) else str(find(prior).resolve())


def trained_in(prior: str) -> str:
    """The population prior in whose space heads are prepared. Raises UsageError for "self", which has none."""
    space = population(prior)
    if space is None:
        raise UsageError(f"prior {prior}: has no template to prepare heads for a training; name a population prior")
    return space


def _fields(name: str, *fields: str) -> Node:
    return Node(IdentityInterface(fields=list(fields)), name=name)


def _each(step: Step, name: str, fields: Sequence[str], n_procs: int = 1, **options: Any) -> MapNode:
    """A node that runs `step` for each item of the lists that are its inputs `fields`."""
    return MapNode(step, list(fields), name=name, mem_gb=MEM_GB[name], n_procs=n_procs, **options)


def init_preprocess_wf(
    *,
    prior: str = DEFAULT,
    register: bool = True,
    threads: int = 1,
    keep_going: bool = True,
    allow_missing_files: bool = False,
    several: bool = False,
    name: str = "preprocess_wf",
) -> Workflow:
    """convert --> preprocess --> slice, for every scan; with `register` False, convert alone.

    Inputs: `scans` (NIfTI or DICOM), `series` (of DICOM, "" for the only one), `metadata` (content of BIDS sidecars);
    lists of equal length. Outputs, lists again: `scans` (NIfTI), `sidecars`, and `registered`, `poses`, `slices`. A
    scan that is refused gives the same refusal for all of them (see `refusals`), unless `keep_going` is False.
    `allow_missing_files`: of DICOM, see `dicom.series.the_series`. With `several`, each scan has others of the same
    head, which are converted beside it: inputs `further_scans` and `further_metadata`, lists of lists, and output
    `further_scans`.
    """
    wf = Workflow(name=name)
    read = [("scans", "scan"), ("series", "series"), ("metadata", "metadata")]
    written = [("scan", "scans"), ("sidecar", "sidecars")]
    if several:
        read += [("further_scans", "further_scans"), ("further_metadata", "further_metadata")]
        written.append(("further_scans", "further_scans"))
    inputs = _fields("inputnode", *dict(read))
    outputs = _fields("outputnode", "scans", "sidecars", "further_scans", "registered", "poses", "slices")
    reader = Convert(keep_going=keep_going, allow_missing_files=allow_missing_files)
    convert = _each(reader, "convert", [field for _, field in read])
    edges: list[Any] = [(inputs, convert, read), (convert, outputs, written)]
    if register:
        step = Preprocess(prior=prior_path(prior), threads=threads, keep_going=keep_going)
        preprocess = _each(step, "preprocess", ["scan"], threads)
        cut = _each(Slice(keep_going=keep_going), "slice", ["registered"])
        edges += [
            (convert, preprocess, [("scan", "scan")]),
            (preprocess, cut, [("registered", "registered")]),
            (preprocess, outputs, [("registered", "registered"), ("pose", "poses")]),
            (cut, outputs, [("slices", "slices")]),
        ]
    wf.connect(edges)
    return wf


def init_train_wf(
    *,
    kimg: float,
    template: str = DEFAULT,
    held_out: int | None = None,
    architecture: Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int = 1,
    name: str = "train_wf",
) -> Workflow:
    """train, once, on the slices of all heads that were not refused.

    Input: `slices`, a list of what Slice gives. Output: `prior`, the folder of a bundle. The keywords are those of
    `training.slices.train_on_slices`.
    """
    wf = Workflow(name=name)
    inputs, outputs = _fields("inputnode", "slices"), _fields("outputnode", "prior")
    options = {"kimg": kimg, "seed": seed, "threads": threads} | ({} if held_out is None else {"held_out": held_out})
    step = Train(template=prior_path(template), architecture=dict(architecture or {}), **options)
    train = Node(step, name="train", mem_gb=MEM_GB["train"], n_procs=threads)
    wf.connect([(inputs, train, [("slices", "slices")]), (train, outputs, [("prior", "prior")])])
    return wf


def init_reconstruct_wf(
    *,
    task: Task = "sr",
    prior: str | None = AUTO,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    keep_going: bool = True,
    options: Mapping[str, Any] | None = None,
    several: bool = False,
    name: str = "reconstruct_wf",
) -> Workflow:
    """reconstruct --> report, for every scan: super-resolve it, or fill its hole, on its own grid.

    Inputs: `scans` (NIfTI) and `sidecars`, `masks` to inpaint, `names` of the results; lists of equal length; and
    `prior` (a bundle's folder), where the keyword `prior` is None. Outputs: `results`, maps of what was `measured`,
    `certificates` and `reports`, lists. `prior`: as of Reconstruct. `steps` None: the task's own. `options`: further
    inputs of Reconstruct, for all scans, such as `noise` or `device`. With `several`, each scan has others of the same
    head that go into its result: input `further_scans`, a list of lists.
    """
    wf = Workflow(name=name)
    inputs = _fields("inputnode", "scans", "sidecars", "further_scans", "masks", "names", "prior")
    outputs = _fields("outputnode", "results", "measured", "certificates", "reports")
    stated = {} if prior is None else {"prior": prior_path(prior)}
    reported = {} if prior in (AUTO, SELF) else stated
    trained = [("prior", "prior")] if prior is None else []
    scan = [("scans", "scan"), *([("masks", "mask")] if task == "inpaint" else [])]
    own = [("sidecars", "sidecar"), ("names", "name"), *([("further_scans", "further_scans")] if several else [])]
    results = [("result", "result"), ("measured", "measured"), ("certificate", "certificate")]
    search: dict[str, Any] = {} if steps is None else {"steps": steps}
    search |= dict(options or {})
    step = Reconstruct(task=task, seed=seed, threads=threads, keep_going=keep_going, **stated, **search)
    reconstruct = _each(step, "reconstruct", [field for _, field in (*scan, *own)], threads)
    report = _each(Report(keep_going=keep_going, **reported), "report", [field for _, field in (*scan, *results)])
    edges: list[Any] = [
        (inputs, reconstruct, [*scan, *own, *trained]),
        (reconstruct, outputs, [("result", "results"), ("measured", "measured"), ("certificate", "certificates")]),
        (inputs, report, [*scan, *trained]),
        (reconstruct, report, results),
        (report, outputs, [("report", "reports")]),
    ]
    wf.connect(edges)
    return wf


def init_write_back_wf(
    *,
    out_dir: Path | str,
    task: Task = "sr",
    uid_seed: str = "0",
    dicom: bool = True,
    allow_missing_files: bool = False,
    name: str = "write_back_wf",
) -> Workflow:
    """dicom --> write_back, for every scan: what the work directory holds, to `out_dir`.

    Inputs: `results`, `certificates`, `reports`, `sources` (the scans as they came), `series`, `destinations` (names
    under `out_dir`, without an ending), `sidecars` (dictionaries, what the JSON files say); lists of equal length.
    Output: `files`, lists. Where a source was MR in DICOM, and `dicom`, a derived series is written too, with UIDs made
    of `uid_seed` and the image; `allow_missing_files`: of the source, see `dicom.series.the_series`.
    """
    wf = Workflow(name=name)
    results = [("results", "result"), ("certificates", "certificate")]
    publish = [*results, ("reports", "report"), ("destinations", "destination"), ("sidecars", "sidecar")]
    source = [*results, ("sources", "source"), ("series", "series")]
    inputs = _fields("inputnode", *dict(publish), "sources", "series")
    outputs = _fields("outputnode", "files")
    fields = [field for _, field in publish] + (["dicom"] if dicom else [])
    step = WriteBack(out_dir=os.path.abspath(out_dir))
    write_back = _each(step, "write_back", fields, run_without_submitting=True)
    wf.connect([(inputs, write_back, publish), (write_back, outputs, [("files", "files")])])
    if dicom:
        step = WriteDicom(task=task, uid_seed=uid_seed, allow_missing_files=allow_missing_files, keep_going=True)
        series = _each(step, "dicom", [field for _, field in source])
        wf.connect([(inputs, series, source), (series, write_back, [("dicom", "dicom")])])
    return wf


def init_brgm_wf(
    *,
    out_dir: Path | str,
    task: Task = "sr",
    prior: str = AUTO,
    train: Mapping[str, Any] | None = None,
    dicom: bool = True,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    allow_missing_files: bool = False,
    options: Mapping[str, Any] | None = None,
    several: bool = False,
    name: str = "brgm_wf",
) -> Workflow:
    """The whole way, for every scan; the module's docstring draws it.

    Inputs, lists of equal length: `scans`, `series`, `metadata`, `masks` (to inpaint), `destinations`, `sidecars`.
    Output: `files`. With `train` (keywords of `init_train_wf`, at least `kimg`) a prior is trained on these scans
    first, in the space of `prior`, and they are reconstructed with it alone; else with `prior`. A scan that is refused
    is named in `out_dir`/logs and stops no other. `allow_missing_files`: of DICOM, see `dicom.series.the_series`.
    `options`: see `init_reconstruct_wf`. With `several`, each scan has others of the same head, which go into its
    result: inputs `further_scans` and `further_metadata`, lists of lists.
    """
    wf = Workflow(name=name)
    further = ["further_scans", "further_metadata"] if several else []
    read = ["scans", "series", "metadata", *further]
    inputs = _fields("inputnode", *read, "masks", "destinations", "sidecars")
    outputs = _fields("outputnode", "files")
    space = DEFAULT if train is None else trained_in(prior)
    files: dict[str, Any] = {"allow_missing_files": allow_missing_files}
    before = init_preprocess_wf(prior=space, register=train is not None, threads=threads, several=several, **files)
    search: dict[str, Any] = {"steps": steps, "seed": seed, "threads": threads}
    search |= {"options": options, "several": several}
    reconstruct = init_reconstruct_wf(task=task, prior=prior if train is None else None, **search)
    back = init_write_back_wf(out_dir=out_dir, task=task, uid_seed=str(seed), dicom=dicom, **files)
    edges: list[Any] = [
        (inputs, before, [(field, f"inputnode.{field}") for field in read]),
        (before, reconstruct, _through("scans", "sidecars", *further[:1])),
        (reconstruct, back, _through("results", "certificates", "reports")),
        (inputs, reconstruct, [("destinations", "inputnode.names")]),
        (inputs, back, [("scans", "inputnode.sources"), ("series", "inputnode.series")]),
        (inputs, back, [(field, f"inputnode.{field}") for field in ("destinations", "sidecars")]),
        (back, outputs, [("outputnode.files", "files")]),
    ]
    if task == "inpaint":
        edges.append((inputs, reconstruct, [("masks", "inputnode.masks")]))
    if train is not None:
        training = init_train_wf(**{"template": space, "seed": seed, "threads": threads, **train})
        edges += [(before, training, _through("slices")), (training, reconstruct, _through("prior"))]
    wf.connect(edges)
    return wf


def _through(*fields: str) -> list[tuple[str, str]]:
    """Outputs of one workflow to the inputs of the same names of another."""
    return [(f"outputnode.{field}", f"inputnode.{field}") for field in fields]


def init_study_train_wf(
    groups: Mapping[str, Mapping[str, list[Any]]],
    *,
    out_dir: Path | str,
    prior: str = AUTO,
    train: Mapping[str, Any] | None = None,
    threads: int = 1,
    allow_missing_files: bool = False,
    name: str = "brgm_med",
) -> Workflow:
    """convert --> preprocess --> slice for every group of scans, and, with `train`, one training on all of them.

    `groups` names the groups and gives each the inputs of `init_brgm_wf` (`scans`, `series`, `metadata`,
    `destinations`). How each scan was registered, or why it was refused, is noted in `out_dir`/logs; the prior goes to
    `out_dir`/prior. What was prepared before, by the same workflow without `train`, is not prepared again.
    """
    wf = Workflow(name=name)
    folder, space = os.path.abspath(out_dir), trained_in(prior)
    join = Node(Merge(len(groups)), name="join")
    for i, (group, lists) in enumerate(groups.items(), 1):
        one = init_preprocess_wf(prior=space, threads=threads, allow_missing_files=allow_missing_files, name=group)
        one.get_node("inputnode").inputs.trait_set(**{f: lists[f] for f in ("scans", "series", "metadata")})
        fields = ["result", "pose", "destination"]
        note = MapNode(Note(out_dir=folder), fields, name=f"note_{group}", run_without_submitting=True)
        note.inputs.destination = lists["destinations"]
        wf.connect([(one, note, [("outputnode.slices", "result"), ("outputnode.poses", "pose")])])
        if train is not None:
            wf.connect(one, "outputnode.slices", join, f"in{i}")
    if train is not None:
        training = init_train_wf(**{"template": space, "threads": threads, **train})
        publish = Node(WritePrior(out_dir=folder), name="write_prior", run_without_submitting=True)
        wf.connect(
            [(join, training, [("out", "inputnode.slices")]), (training, publish, [("outputnode.prior", "prior")])]
        )
    return wf
