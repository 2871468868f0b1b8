"""The command line's kinds of values, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brgm_med.priors import AUTO, DEFAULT

Handler = Callable[[argparse.Namespace], None]
INFINITY = float("inf")


def kind(name: str, parse: Callable[[str], Any], valid: Callable[[Any], bool] = lambda value: True) -> Any:
    """A kind of value for argparse, which names it where a text is none: `parse` raises ValueError, or `valid` is
    False."""

    def read(text: str) -> Any:
        value = parse(text)
        if not valid(value):
            raise ValueError
        return value

    read.__name__ = name
    return read


def _bounds(text: str) -> tuple[int | None, int | None]:
    first, colon, last = text.partition(":")
    if not colon:
        raise ValueError
    return int(first) if first else None, int(last) if last else None


def _pair(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not (sign and folder and name.strip() and name.isprintable() and len(name) <= 60):
        raise ValueError
    return name.strip(), Path(folder)


positive_int = kind("positive int", int, lambda value: value > 0)
positive_float = kind("positive float", float, lambda value: 0 < value < INFINITY)
count = kind("count", int, lambda value: value >= 0)
level = kind("per cent from 1 to 99", float, lambda value: 1 <= value <= 99)
angle = kind("angle", float, lambda value: abs(value) <= 180)
noise = kind(
    "noise level", lambda text: None if text == "auto" else float(text), lambda v: v is None or 0 <= v < INFINITY
)
selection = kind("range", _bounds)
""" "135:150" -> (135, 150), as Python counts; "135:" -> (135, None)."""
named = kind("NAME=DIR", _pair)
"""The name is one that a table can show."""


def scan_path(text: str) -> Path:
    """A path with a name, which `.` has not: results are named after it."""
    path = Path(text)
    return path if path.name not in ("", "..") else path.resolve()


def options(a: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The parsed options `names`, as keyword arguments."""
    return {name: getattr(a, name) for name in names}


def scan_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    text = "NIfTI file; folder, DICOMDIR, zip or file of DICOM slices; picture or radiograph"
    which = "which DICOM series (brgm-med series lists them)"
    if several:
        text += "; again for further scans of the same head"
        which += "; of several scans, one for each"
    action = "append" if several else "store"
    parser.add_argument("--in", dest="scan", type=scan_path, action=action, required=True, metavar="SCAN", help=text)
    parser.add_argument("--series", action=action, metavar="UID|NUMBER", help=which)
    text = "read a folder of DICOM although files beside the slices are empty, no DICOM, or not there"
    parser.add_argument("--allow-missing-files", action="store_true", help=text)
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
        "--slice-thickness", type=positive_float, metavar="MM", help="full width (Gaussian: at half maximum)"
    )
    parser.add_argument("--profile", choices=("box", "gaussian", "trapezoid"), help="slice profile (default: box)")
    parser.add_argument("--gap", type=float, metavar="MM", help="gap between slices")


def search_arguments(parser: argparse.ArgumentParser, auto: bool = False) -> None:
    """`auto`: the prior may also be the scan's own."""
    if auto:
        text = (
            "self: what the scan's own planes teach; NAME or DIR: that population prior alone; auto (default): both, "
        )
        text += "the shipped population prior as far as it knows such scans"
        parser.add_argument("--prior", default=AUTO, metavar="auto|self|NAME|DIR", help=text)
    else:
        parser.add_argument("--prior", default=DEFAULT, metavar="NAME|DIR")
    parser.add_argument(
        "--steps", type=positive_int, metavar="N", help="of the MAP search; learning from a scan shortens in proportion"
    )


def reconstruction_arguments(parser: argparse.ArgumentParser, auto: bool = False) -> None:
    parser.add_argument(
        "--out", type=Path, help="file, or folder of pictures or DICOM (default: the input's name + _brgm)"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="JSON file (default: beside the output)")
    search_arguments(parser, auto)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    text = "results repeat to the last bit for equal numbers of them"
    parser.add_argument("--threads", type=positive_int, metavar="N", help=text)
