"""The command line's kinds of values, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import BrgmError
from brgm_med.priors.bundle import DEFAULT_PRIOR


def positive(kind: type[int] | type[float]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


count.__name__ = "count"


def noise(text: str) -> float | str:
    if text == "auto":
        return text
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


noise.__name__ = "noise level"


def angle(text: str) -> float:
    value = float(text)
    if not abs(value) <= 180:
        raise ValueError
    return value


angle.__name__ = "angle"


def place(text: str) -> Path:
    """A path with a name, which `.` has not: results are named after it."""
    path = Path(text)
    return path if path.name not in ("", "..") else path.resolve()


def scan_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    text = "NIfTI file; folder, DICOMDIR, zip or file of DICOM slices; picture or radiograph"
    which = "which DICOM series (brgm-med series lists them)"
    if several:
        text += "; again for further scans of the same head"
        which += "; of several scans, one for each"
    action = "append" if several else "store"
    parser.add_argument("--in", dest="scan", type=place, action=action, required=True, metavar="SCAN", help=text)
    parser.add_argument("--series", action=action, metavar="UID|NUMBER", help=which)
    parser.add_argument("--affine", choices=("sform", "qform"), default="auto", help="which one to believe")
    parser.add_argument("--force", action="store_true", help="overwrite existing outputs")


def dicom_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like", type=Path, metavar="DICOM", help="series whose patient and study a DICOM result of NIfTI input gets"
    )
    parser.add_argument("--uid-seed", metavar="TEXT", help="DICOM UIDs made of this and the image (default: random)")
    parser.add_argument("--deidentify", action="store_true", help="of DICOM output (PS3.15 basic profile)")
    parser.add_argument("--keep-private", action="store_true", help="keep the private elements of DICOM input")


def acquisition_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float32", "source"), default="float32", help="voxel type of the output")
    parser.add_argument(
        "--slice-thickness", type=positive(float), metavar="MM", help="full width (Gaussian: at half maximum)"
    )
    parser.add_argument("--profile", choices=("box", "gaussian", "trapezoid"), help="slice profile (default: box)")
    parser.add_argument("--gap", type=float, metavar="MM", help="gap between slices")


def reconstruction_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, help="file, or folder of pictures or DICOM (default: the input's name + _brgm)"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="JSON file (default: beside the output)")
    parser.add_argument("--prior", default=DEFAULT_PRIOR, metavar="NAME|DIR")
    parser.add_argument("--steps", type=positive(int), metavar="N", help="steps of the MAP search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=positive(int), metavar="N")


def study_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", type=Path, metavar="BIDS_DIR", help="the scans")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the derivatives; made if need be")
    parser.add_argument(
        "level",
        choices=("participant", "group"),
        help="every scan by itself; the study: its table, or the training on all scans",
    )
    parser.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these subjects")
    parser.add_argument("--task", choices=("sr", "inpaint", "train"), default="sr")
    text = "bids, or plain: NIfTI files in any folders, and a folder or zip of DICOM for each volume"
    parser.add_argument("--layout", choices=("bids", "plain"), default="bids", help=text)
    text = "path from BIDS_DIR to a scan's mask, with wildcards, {sub}, {ses}, ... and {stem}, the scan's name"
    parser.add_argument("--mask-pattern", metavar="GLOB", help=text)
    parser.add_argument("--series", metavar="UID|NUMBER", help="which DICOM series, where a folder holds several")
    parser.add_argument("-w", "--work", type=Path, metavar="DIR", help="what is done already (default: OUT_DIR_work)")
    parser.add_argument("--nprocs", type=positive(int), default=1, metavar="N", help="nodes side by side (default: 1)")
    parser.add_argument("--mem-gb", type=positive(float), metavar="G", help="memory of all of them together")
    parser.add_argument("--threads", type=positive(int), default=1, metavar="N", help="of a node (default: 1)")
    text = 'JSON: {"plugin": "SLURM", "plugin_args": {...}}; SGE and PBS likewise'
    parser.add_argument("--use-plugin", type=Path, metavar="FILE", help=text)
    parser.add_argument("--stop-on-first-crash", action="store_true", help="else what does not depend on it goes on")
    parser.add_argument("--reports-only", action="store_true", help="from the derivatives that are there")
    parser.add_argument("--dry-run", action="store_true", help="list the scans and what becomes of them")
    parser.add_argument("--prior", default=DEFAULT_PRIOR, metavar="NAME|DIR")
    parser.add_argument("--steps", type=positive(int), metavar="N", help="steps of the MAP search")
    parser.add_argument("--kimg", type=positive(float), default=100.0, help="train until so many thousand images")
    parser.add_argument("--random-seed", type=int, default=0, metavar="S")


class Install(argparse.Action):
    """An option that installs the completion of its own parser, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from brgm_med.pipelines.completion import install

        try:
            print(f"wrote {install(parser)}; it works in new shells that have bash-completion")
        except BrgmError as error:
            parser.exit(error.exit_code, f"brgm-med: {error}\n")
        parser.exit()


def selection(text: str) -> tuple[int | None, int | None]:
    """ "135:150" -> (135, 150), as Python counts; "135:" -> (135, None)."""
    first, _, last = text.partition(":")
    if ":" not in text:
        raise ValueError
    return int(first) if first else None, int(last) if last else None


selection.__name__ = "range"


def evaluation_arguments(command: argparse.ArgumentParser) -> None:
    """What `evaluate` takes; the names are those of `evaluation.evaluate.Evaluation`."""
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of heads, or of pictures")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an interrupted evaluation goes on")
    command.add_argument("--task", choices=("sr", "slices", "inpaint", "shift"), default="sr")
    command.add_argument("--prior", metavar="NAME|DIR")
    text = "factors (sr), mm (slices), holes (inpaint) or shifts, by name (default: all of the task)"
    command.add_argument("--levels", nargs="+", metavar="LEVEL", help=text)
    text = "by name, as the table has them (default: all that suit the level)"
    command.add_argument("--methods", nargs="+", metavar="METHOD", help=text)
    text = "range of the sorted file names, such as 135:150 (default: all)"
    command.add_argument("--subjects", type=selection, metavar="FIRST:LAST", help=text)
    text = "range that opponents which learn may learn from"
    command.add_argument("--train", type=selection, metavar="FIRST:LAST", help=text)
    text = "where trained opponents are kept (default: OUT/opponents)"
    command.add_argument("--opponents", type=Path, metavar="DIR", help=text)
    text = "how many images each network is shown in training"
    command.add_argument("--images", type=positive(int), metavar="N", help=text)
    text = "the opponent that meets shifts (default: sr-4)"
    command.add_argument("--trained", metavar="TASK-LEVEL", help=text)
    text = "of a head, every Nth slice of the prior's box (default: 10)"
    command.add_argument("--every", type=positive(int), metavar="N", help=text)
    text = "of the first N subjects, keep the results as PNG (default: 3)"
    command.add_argument("--shown", type=count, metavar="N", help=text)
    command.add_argument("--workers", type=positive(int), metavar="N", help="processes, of one thread each")
    command.add_argument("--seed", type=int)
    command.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet or VGG16 weights, for offline use")


def named(text: str) -> tuple[str, Path]:
    """NAME=DIR; the name is one that a table can show."""
    name, sign, folder = text.partition("=")
    if not (sign and folder and name.strip() and name.isprintable() and len(name) <= 60):
        raise ValueError
    return name.strip(), Path(folder)


named.__name__ = "NAME=DIR"


def forced_choice_arguments(parser: argparse.ArgumentParser) -> None:
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
    make.add_argument("--first", type=positive(int), metavar="N", help="only the first N pictures by name")
    text = "Count the votes: shares with intervals, a test against equal choice, agreement; Markdown to stdout."
    tally = actions.add_parser("tally", help="the raters' files to a table", description=text)
    tally.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json", help="what the raters saved")
    text = "of the study (default: study_key.json beside the first of the results)"
    tally.add_argument("--key", type=Path, metavar="JSON", help=text)
    tally.add_argument("--out", type=Path, metavar="CSV", help="the table as CSV as well")
    for action in (make, tally):
        action.add_argument("--force", action="store_true", help="overwrite existing outputs")
