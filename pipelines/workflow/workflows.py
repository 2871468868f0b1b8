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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("NIPYPE_NO_ET", "1")

from nipype import MapNode, Node, Workflow
from nipype.interfaces.utility import IdentityInterface, Merge

from brgm_med.pipelines.workflow.interfaces import (
    Convert,
    Note,
    Preprocess,
    Reconstruct,
    Report,
    Slice,
    Train,
    WriteBack,
    WriteDicom,
    WritePrior,
)
from brgm_med.priors.bundle import DEFAULT_PRIOR

Task = Literal["sr", "inpaint"]

MEM_GB = {
    "convert": 0.5,
    "preprocess": 1.5,
    "slice": 1.0,
    "reconstruct": 3.0,
    "train": 4.0,
    "report": 3.0,
    "write_back": 0.2,
}
"""What a node takes at most, for engines that share memory out. A head of 1 x 1 x 4 mm took 2.1 GB to reconstruct and
2.5 to report on; the others are estimates."""


def prior_place(prior: str) -> str:
    """A shipped prior's name as it is, a folder by its whole path: nodes run in folders of their own.

    Raises PriorError where there is no such prior.
    """
    from brgm_med.priors.bundle import find, names

    return prior if prior in names() else str(find(prior).resolve())


def _fields(name: str, fields: list[str]) -> Node:
    return Node(IdentityInterface(fields=fields), name=name)


def init_preprocess_wf(
    *,
    prior: str = DEFAULT_PRIOR,
    register: bool = True,
    threads: int = 1,
    keep_going: bool = True,
    name: str = "preprocess_wf",
) -> Workflow:
    """convert --> preprocess --> slice, for every scan; with `register` False, convert alone.

    Inputs: `scans` (NIfTI or DICOM), `series` (of DICOM, "" for the only one), `metadata` (content of BIDS sidecars);
    lists of equal length. Outputs, lists again: `scans` (NIfTI), `sidecars`, and `registered`, `poses`, `slices`. A
    scan that is refused gives the same refusal for all of them (see `refusals`), unless `keep_going` is False.
    """
    wf = Workflow(name=name)
    common = {"keep_going": keep_going}
    inputs = _fields("inputnode", ["scans", "series", "metadata"])
    outputs = _fields("outputnode", ["scans", "sidecars", "registered", "poses", "slices"])
    convert = MapNode(
        Convert(**common), ["scan", "series", "metadata"], name="convert", mem_gb=MEM_GB["convert"], n_procs=1
    )
    wf.connect(
        [
            (inputs, convert, [("scans", "scan"), ("series", "series"), ("metadata", "metadata")]),
            (convert, outputs, [("scan", "scans"), ("sidecar", "sidecars")]),
        ]
    )
    if register:
        preprocess = MapNode(
            Preprocess(prior=prior_place(prior), threads=threads, **common),
            ["scan"],
            name="preprocess",
            mem_gb=MEM_GB["preprocess"],
            n_procs=threads,
        )
        cut = MapNode(Slice(**common), ["registered"], name="slice", mem_gb=MEM_GB["slice"])
        wf.connect(
            [
                (convert, preprocess, [("scan", "scan")]),
                (preprocess, cut, [("registered", "registered")]),
                (preprocess, outputs, [("registered", "registered"), ("pose", "poses")]),
                (cut, outputs, [("slices", "slices")]),
            ]
        )
    return wf


def init_train_wf(
    *,
    kimg: float,
    template: str = DEFAULT_PRIOR,
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
    inputs, outputs = _fields("inputnode", ["slices"]), _fields("outputnode", ["prior"])
    options = {} if held_out is None else {"held_out": held_out}
    step = Train(
        kimg=kimg,
        template=prior_place(template),
        architecture=dict(architecture or {}),
        seed=seed,
        threads=threads,
        **options,
    )
    train = Node(step, name="train", mem_gb=MEM_GB["train"], n_procs=threads)
    wf.connect([(inputs, train, [("slices", "slices")]), (train, outputs, [("prior", "prior")])])
    return wf


def init_reconstruct_wf(
    *,
    task: Task = "sr",
    prior: str | None = DEFAULT_PRIOR,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    keep_going: bool = True,
    name: str = "reconstruct_wf",
) -> Workflow:
    """reconstruct --> report, for every scan: super-resolve it, or fill its hole, on its own grid.

    Inputs: `scans` (NIfTI) and `sidecars`, `masks` to inpaint, `names` of the results; lists of equal length; and
    `prior` (a bundle's folder), where the keyword `prior` is None. Outputs: `results`, `certificates` and `reports`,
    lists. `steps` None: the task's own.
    """
    wf = Workflow(name=name)
    inputs = _fields("inputnode", ["scans", "sidecars", "masks", "names", "prior"])
    outputs = _fields("outputnode", ["results", "certificates", "reports"])
    step = Reconstruct(task=task, seed=seed, threads=threads, keep_going=keep_going)
    if prior is not None:
        step.inputs.prior = prior_place(prior)
    if steps is not None:
        step.inputs.steps = steps
    each = {"scans": "scan", "sidecars": "sidecar", "names": "name"} | ({"masks": "mask"} if task == "inpaint" else {})
    reconstruct = MapNode(step, list(each.values()), name="reconstruct", mem_gb=MEM_GB["reconstruct"], n_procs=threads)
    wf.connect([(inputs, reconstruct, list(each.items()) + ([] if prior is not None else [("prior", "prior")]))])
    wf.connect([(reconstruct, outputs, [("result", "results"), ("certificate", "certificates")])])
    said = Report(keep_going=keep_going)
    if prior is not None:
        said.inputs.prior = prior_place(prior)
    shown = {"scans": "scan"} | ({"masks": "mask"} if task == "inpaint" else {})
    report = MapNode(
        said, [*shown.values(), "result", "certificate"], name="report", mem_gb=MEM_GB["report"], n_procs=1
    )
    wf.connect([(inputs, report, list(shown.items()) + ([] if prior is not None else [("prior", "prior")]))])
    wf.connect([(reconstruct, report, [("result", "result"), ("certificate", "certificate")])])
    wf.connect([(report, outputs, [("report", "reports")])])
    return wf


def init_write_back_wf(
    *, out_dir: Path | str, task: Task = "sr", uid_seed: str = "0", dicom: bool = True, name: str = "write_back_wf"
) -> Workflow:
    """dicom --> write_back, for every scan: what the work directory holds, to `out_dir`.

    Inputs: `results`, `certificates`, `reports`, `sources` (the scans as they came), `series`, `destinations` (names
    under `out_dir`, without an ending), `sidecars` (dictionaries, what the JSON files say); lists of equal length.
    Output: `files`, lists. Where a source was MR in DICOM, and `dicom`, a derived series is written too, with UIDs made
    of `uid_seed` and the image.
    """
    wf = Workflow(name=name)
    fields = ["results", "certificates", "reports", "sources", "series", "destinations", "sidecars"]
    inputs, outputs = _fields("inputnode", fields), _fields("outputnode", ["files"])
    each = {"results": "result", "certificates": "certificate", "reports": "report", "destinations": "destination"}
    each["sidecars"] = "sidecar"
    write_back = MapNode(
        WriteBack(out_dir=os.path.abspath(out_dir)),
        [*each.values(), *(["dicom"] if dicom else [])],
        name="write_back",
        mem_gb=MEM_GB["write_back"],
        run_without_submitting=True,
    )
    wf.connect([(inputs, write_back, list(each.items())), (write_back, outputs, [("files", "files")])])
    if dicom:
        series = MapNode(
            WriteDicom(task=task, uid_seed=uid_seed, keep_going=True),
            ["result", "certificate", "source", "series"],
            name="dicom",
            mem_gb=MEM_GB["convert"],
        )
        given = [("results", "result"), ("certificates", "certificate"), ("sources", "source"), ("series", "series")]
        wf.connect([(inputs, series, given), (series, write_back, [("dicom", "dicom")])])
    return wf


def init_brgm_wf(
    *,
    out_dir: Path | str,
    task: Task = "sr",
    prior: str = DEFAULT_PRIOR,
    train: Mapping[str, Any] | None = None,
    dicom: bool = True,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    name: str = "brgm_wf",
) -> Workflow:
    """The whole way, for every scan; the module's docstring draws it.

    Inputs, lists of equal length: `scans`, `series`, `metadata`, `masks` (to inpaint), `destinations`, `sidecars`.
    Output: `files`. With `train` (keywords of `init_train_wf`, at least `kimg`) a prior is trained on these scans
    first, in the space of `prior`, and they are reconstructed with it; else with `prior`. A scan that is refused is
    named in `out_dir`/logs and stops no other.
    """
    wf = Workflow(name=name)
    inputs = _fields("inputnode", ["scans", "series", "metadata", "masks", "destinations", "sidecars"])
    outputs = _fields("outputnode", ["files"])
    before = init_preprocess_wf(prior=prior, register=train is not None, threads=threads)
    reconstruct = init_reconstruct_wf(
        task=task, prior=prior if train is None else None, steps=steps, seed=seed, threads=threads
    )
    back = init_write_back_wf(out_dir=out_dir, task=task, uid_seed=str(seed), dicom=dicom)
    wf.connect(
        [
            (inputs, before, [(f, f"inputnode.{f}") for f in ("scans", "series", "metadata")]),
            (before, reconstruct, [(f"outputnode.{f}", f"inputnode.{f}") for f in ("scans", "sidecars")]),
            (
                reconstruct,
                back,
                [(f"outputnode.{f}", f"inputnode.{f}") for f in ("results", "certificates", "reports")],
            ),
            (inputs, reconstruct, [("destinations", "inputnode.names")]),
            (inputs, back, [("scans", "inputnode.sources"), ("series", "inputnode.series")]),
            (inputs, back, [(f, f"inputnode.{f}") for f in ("destinations", "sidecars")]),
            (back, outputs, [("outputnode.files", "files")]),
        ]
    )
    if task == "inpaint":
        wf.connect(inputs, "masks", reconstruct, "inputnode.masks")
    if train is not None:
        training = init_train_wf(**{"template": prior, "seed": seed, "threads": threads, **train})
        wf.connect(before, "outputnode.slices", training, "inputnode.slices")
        wf.connect(training, "outputnode.prior", reconstruct, "inputnode.prior")
    return wf


def init_study_train_wf(
    groups: Mapping[str, Mapping[str, list[Any]]],
    *,
    out_dir: Path | str,
    prior: str = DEFAULT_PRIOR,
    train: Mapping[str, Any] | None = None,
    threads: int = 1,
    name: str = "brgm_med",
) -> Workflow:
    """convert --> preprocess --> slice for every group of scans, and, with `train`, one training on all of them.

    `groups` names the groups and gives each the inputs of `init_brgm_wf` (`scans`, `series`, `metadata`,
    `destinations`). How each scan was registered, or why it was refused, is noted in `out_dir`/logs; the prior goes to
    `out_dir`/prior. What was prepared before, by the same workflow without `train`, is not prepared again.
    """
    wf = Workflow(name=name)
    folder = os.path.abspath(out_dir)
    join = Node(Merge(len(groups)), name="join")
    for i, (group, given) in enumerate(groups.items(), 1):
        one = init_preprocess_wf(prior=prior, threads=threads, name=group)
        one.get_node("inputnode").inputs.trait_set(**{f: given[f] for f in ("scans", "series", "metadata")})
        note = MapNode(
            Note(out_dir=folder), ["result", "pose", "destination"], name=f"note_{group}", run_without_submitting=True
        )
        note.inputs.destination = given["destinations"]
        wf.connect(one, "outputnode.slices", note, "result")
        wf.connect(one, "outputnode.poses", note, "pose")
        if train is not None:
            wf.connect(one, "outputnode.slices", join, f"in{i}")
    if train is not None:
        training = init_train_wf(**{"template": prior, "threads": threads, **train})
        publish = Node(WritePrior(out_dir=folder), name="write_prior", run_without_submitting=True)
        wf.connect(
            [
                (join, training, [("out", "inputnode.slices")]),
                (training, publish, [("outputnode.prior", "prior")]),
            ]
        )
    return wf
