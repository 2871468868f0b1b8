"""Commands on many scans: reconstruct a data set, compare methods on one, ask raters."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from brgm_med.errors import UsageError
from brgm_med.pipelines.cli.arguments import (
    Handler,
    count,
    missing_files_argument,
    named,
    options,
    positive_float,
    positive_int,
    search_arguments,
    selection,
)


def run(parser: argparse.ArgumentParser) -> Handler:
    """A directory of scans (BIDS, NIfTI, DICOM) in, a directory of derivatives out."""
    parser.add_argument("folder", type=Path, metavar="BIDS_DIR", help="the scans")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the derivatives; made if need be")
    text = "every scan by itself; the study: its table, or the training on all scans"
    parser.add_argument("level", choices=("participant", "group"), help=text)
    parser.add_argument(
        "--participant-label", nargs="+", default=[], metavar="LABEL", help="only these subjects (default: all)"
    )
    parser.add_argument("--task", choices=("sr", "inpaint", "train"), default="sr", help="to do with each scan")
    text = "images of BIDS by their suffix (default: T1w T2w FLAIR PDw; T1w where a population prior works alone)"
    parser.add_argument("--suffix", nargs="+", default=[], metavar="SUFFIX", help=text)
    text = "bids, or plain: NIfTI files in any folders, and a folder or zip of DICOM for each volume"
    parser.add_argument("--layout", choices=("bids", "plain"), default="bids", help=text)
    text = "path from BIDS_DIR to a scan's mask, with wildcards, {sub}, {ses}, ... and {stem}, the scan's name"
    text += " (default: *_label-lesion*_mask of its subject)"
    parser.add_argument("--mask-pattern", metavar="GLOB", help=text)
    parser.add_argument(
        "--series",
        metavar="UID|NUMBER",
        help="which DICOM series, where a folder holds several (default: the only one)",
    )
    missing_files_argument(parser)
    parser.add_argument("-w", "--work", type=Path, metavar="DIR", help="what is done already (default: OUT_DIR_work)")
    parser.add_argument("--nprocs", type=positive_int, default=1, metavar="N", help="scans side by side (default: 1)")
    parser.add_argument(
        "--mem-gb", type=positive_float, metavar="G", help="memory of all of them together (default: most)"
    )
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="of a node (default: 1)")
    text = 'JSON: {"plugin": "SLURM", "plugin_args": {...}}; SGE and PBS likewise (default: this machine)'
    parser.add_argument("--use-plugin", type=Path, metavar="FILE", help=text)
    parser.add_argument("--stop-on-first-crash", action="store_true", help="else what does not depend on it goes on")
    parser.add_argument("--reports-only", action="store_true", help="from the derivatives that are there")
    parser.add_argument("--dry-run", action="store_true", help="list the scans and what becomes of them")
    search_arguments(parser, auto=True)
    parser.add_argument("--kimg", type=positive_float, default=100.0, help="train until so many thousand images")
    parser.add_argument("--random-seed", type=int, default=0, metavar="S", help="of random numbers")
    return _run


def _run(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.dataset.run import run
    from brgm_med.pipelines.dataset.settings import Selection, Settings

    settings = Settings(a.task, a.prior, a.steps, a.random_seed, a.threads, a.kimg, a.allow_missing_files)
    selection = Selection(a.participant_label, a.layout, a.series, a.mask_pattern, a.suffix)
    work = options(a, "work", "nprocs", "mem_gb", "stop_on_first_crash", "reports_only", "dry_run")
    run(a.folder, a.out, a.level, settings, selection, plugin=a.use_plugin, **work)


def evaluate(parser: argparse.ArgumentParser) -> Handler:
    """Degrade, reconstruct and measure: methods side by side on images whose truth is known."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of heads, or of pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an interrupted evaluation goes on")
    tasks = ("sr", "slices", "inpaint", "shift", "volumes", "lesions")
    parser.add_argument("--task", choices=tasks, default="sr", help="to compare methods at")
    text = "a population prior (default: the shipped one)"
    parser.add_argument("--prior", metavar="NAME|DIR", help=text)
    text = "factors (sr), mm (slices, volumes, lesions), holes (inpaint) or shifts, by name (default: all of the task)"
    parser.add_argument("--levels", nargs="+", metavar="LEVEL", help=text)
    text = "by name, as the table has them (default: all that suit the level)"
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help=text)
    text = "range of the sorted file names, such as 135:150 (default: all)"
    parser.add_argument("--subjects", type=selection, metavar="FIRST:LAST", help=text)
    text = "range that baselines which learn may learn from (default: none)"
    parser.add_argument("--train", type=selection, metavar="FIRST:LAST", help=text)
    text = "where trained baselines are kept (default: OUT/baselines)"
    parser.add_argument("--baselines", type=Path, metavar="DIR", help=text)
    text = "how many images each network is shown in training (default: the method's)"
    parser.add_argument("--images", type=positive_int, metavar="N", help=text)
    text = "the baseline that meets shifts (default: sr-4)"
    parser.add_argument("--trained", metavar="TASK-LEVEL", help=text)
    text = "of a head, every Nth slice of the prior's box; of volumes, every Nth picture (default: 10)"
    parser.add_argument("--every", type=positive_int, metavar="N", help=text)
    text = "of the first N subjects, keep the results as PNG (default: 3)"
    parser.add_argument("--shown", type=count, metavar="N", help=text)
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes, of one thread each (default: one)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of random numbers (default: 0)")
    parser.add_argument(
        "--lpips-weights", type=Path, metavar="FILE", help="AlexNet or VGG16 weights, offline (default: downloaded)"
    )
    return _evaluate


def _evaluate(a: argparse.Namespace) -> None:
    """The options are named as the fields of `Evaluation`, whose defaults hold where they are left out."""
    from brgm_med.pipelines.evaluation.evaluate import Evaluation, evaluate

    stated = {field.name: getattr(a, field.name) for field in fields(Evaluation)}
    evaluate(Evaluation(**{name: value for name, value in stated.items() if value is not None}))


def study(parser: argparse.ArgumentParser) -> Handler:
    """A forced-choice study: raters choose, blindly, which method's image is most like the true one."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|tally")
    text = "Make a page on which raters choose, and beside it the key that says which letter is which method."
    make = actions.add_parser("make", help="pictures of several methods to a page for raters", description=text)
    make.add_argument("--truth", type=Path, required=True, metavar="DIR", help="folder of the true pictures")
    text = "a method's pictures, named as the true ones are; again for every method, 2 to 6"
    make.add_argument("--method", type=named, action="append", required=True, metavar="NAME=DIR", help=text)
    make.add_argument("--out", type=Path, required=True, metavar="HTML", help="the key goes beside it, ..._key.json")
    make.add_argument("--question", metavar="TEXT", help="to the raters (default: the paper's)")
    text = "of the order of images and letters (default: drawn; the key holds it)"
    make.add_argument("--seed", type=count, metavar="N", help=text)
    make.add_argument(
        "--first", type=positive_int, metavar="N", help="only the first N pictures by name (default: all)"
    )
    text = "Count the votes: shares with intervals, a test against equal choice, agreement; Markdown to stdout."
    tally = actions.add_parser("tally", help="the raters' files to a table", description=text)
    tally.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="what the raters saved")
    text = "of the study (default: forced_choice_key.json beside the first of the results)"
    tally.add_argument("--key", type=Path, metavar="JSON", help=text)
    tally.add_argument("--out", type=Path, metavar="CSV", help="the table as CSV as well (default: none)")
    for action in (make, tally):
        action.add_argument("--force", action="store_true", help="overwrite existing outputs")
    return _study


def _study(a: argparse.Namespace) -> None:
    from brgm_med.pipelines import forced_choice

    if a.action == "tally":
        forced_choice.tally(a.results, key=a.key, out=a.out, force=a.force)
        return
    methods = dict(a.method)
    if len(methods) < len(a.method):
        raise UsageError("--method: two of them have one name; name them differently")
    forced_choice.make(a.truth, methods, a.out, question=a.question, seed=a.seed, first=a.first, force=a.force)
