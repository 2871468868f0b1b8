"""The command line's kinds of values, and the options that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

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
thickness = kind(
    "thickness", lambda text: text if text == "estimate" else float(text), lambda v: v == "estimate" or 0 < v < INFINITY
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


class Parser(argparse.ArgumentParser):
    """A parser that suggests an option like the one that is unknown."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match("unrecognized arguments: (--[^ =]+)", message)
        close = get_close_matches(unknown[1], self._known(), 1, 0.6) if unknown else []
        super().error(message + (f"; did you mean {close[0]}?" if close else ""))

    def _known(self) -> list[str]:
        """The options of all commands."""
        below = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        commands = [command for action in below for command in action.choices.values()]
        return [option for command in commands for action in command._actions for option in action.option_strings]


class Help(argparse.RawDescriptionHelpFormatter):
    """Help in which every option says its default, and examples stay as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default is None or action.default is False or action.default in ([], argparse.SUPPRESS)
        if "default" in text or silent or action.required or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def examples(parser: argparse.ArgumentParser, *lines: str) -> None:
    """What stands at the end of the help."""
    parser.epilog = "examples:\n" + "\n".join(f"  brgm-med {line}" for line in lines)


def group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The group of options of that title, new where there is none yet."""
    known = (one for one in parser._action_groups if one.title == title)
    return next(known, None) or parser.add_argument_group(title)


def talk_arguments(parser: argparse.ArgumentParser) -> None:
    one_of = group(parser, "messages").add_mutually_exclusive_group()
    one_of.add_argument("--quiet", action="store_true", help="warnings and errors only")
    one_of.add_argument("--verbose", action="store_true", help="with times, and every step of a search")


def take_scans(a: argparse.Namespace) -> None:
    """The scans that were named with --in or without, as `a.scan`; ends with the usage where there is none, or there
    are more than the command takes."""
    if not hasattr(a, "positional"):
        return
    scans = [*(a.positional or ()), *(a.scan or ())]
    if not scans:
        a.parser.error("the following arguments are required: SCAN (or --in SCAN)")
    if not a.several and len(scans) > 1:
        a.parser.error(f"{len(scans)} scans are named, and {a.command} takes one")
    a.scan = scans if a.several else scans[0]


def scan_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    entry = group(parser, "the scan")
    text = "NIfTI file; folder, DICOMDIR, zip or file of DICOM slices; picture or radiograph"
    which = "which DICOM series (brgm-med series lists them; default: the only one)"
    if several:
        text += "; several are further scans of the same head"
        which += "; of several scans, one for each"
    entry.add_argument("positional", type=scan_path, nargs="*", metavar="SCAN", help=text)
    text = "the same, by an option" + ", again for further scans" * several + " (default: SCAN)"
    entry.add_argument("--in", dest="scan", type=scan_path, action="append", metavar="SCAN", help=text)
    parser.set_defaults(several=several)
    entry.add_argument("--series", action="append" if several else "store", metavar="UID|NUMBER", help=which)
    missing_files_argument(entry)
    text = "which one to believe (default: auto, the sform where there is one, and both must agree)"
    entry.add_argument("--affine", choices=("sform", "qform"), default="auto", help=text)


def missing_files_argument(parser: argparse._ActionsContainer) -> None:
    text = "read a folder of DICOM although files beside the slices are empty, no DICOM, or not there"
    parser.add_argument("--allow-missing-files", action="store_true", help=text)


def dicom_arguments(parser: argparse.ArgumentParser) -> None:
    entry = group(parser, "DICOM output")
    text = "series whose patient and study a DICOM result of NIfTI input gets (default: none, the result is NIfTI)"
    entry.add_argument("--like", type=Path, metavar="DICOM", help=text)
    entry.add_argument("--uid-seed", metavar="TEXT", help="DICOM UIDs made of this and the image (default: random)")
    entry.add_argument("--deidentify", action="store_true", help="of DICOM output (PS3.15 basic profile)")
    entry.add_argument("--keep-private", action="store_true", help="keep the private elements of DICOM input")


def acquisition_arguments(parser: argparse.ArgumentParser, estimate: bool = False, axis: bool = False) -> None:
    """`estimate`: the slice thickness may also be estimated; `axis`: with the slice axis and the noise."""
    entry = group(parser, "how it was acquired")
    text = "full width (Gaussian: at half maximum; default: as DICOM or the JSON file say, else the slices' spacing)"
    if estimate:
        text += "; estimate: as the scan looks"
    metavar = "MM|estimate" if estimate else "MM"
    entry.add_argument("--slice-thickness", type=thickness if estimate else positive_float, metavar=metavar, help=text)
    text = "slice profile (default: box)"
    entry.add_argument("--profile", choices=("box", "gaussian", "trapezoid"), help=text)
    text = "gap between slices (default: what the thickness leaves)"
    entry.add_argument("--gap", type=float, metavar="MM", help=text)
    if axis:
        text = "slices lie along it (default: as DICOM or the JSON file say, else the coarsest)"
        entry.add_argument("--slice-axis", choices=("R", "A", "S"), help=text)
        text = (
            "standard deviation of the scan's noise, in its units (default: auto, from the scan); 0 keeps every value"
        )
        entry.add_argument("--noise", type=noise, metavar="auto|SD|0", help=text)


def spacing_argument(entry: argparse._ArgumentGroup) -> None:
    text = "voxel size of the result (default: the finest of the scans and the prior)"
    entry.add_argument("--spacing", type=positive_float, metavar="MM", help=text)


def dtype_argument(entry: argparse._ArgumentGroup) -> None:
    text = "voxel type of a NIfTI output"
    entry.add_argument("--dtype", choices=("float32", "source"), default="float32", help=text)


def search_arguments(parser: argparse.ArgumentParser, auto: bool = False) -> None:
    """`auto`: the prior may also be the scan's own."""
    entry = group(parser, "the prior")
    if auto:
        text = (
            "self: what the scan's own planes teach; NAME or DIR: that population prior alone; auto (default): both, "
        )
        text += "the shipped population prior as far as it knows such scans"
        entry.add_argument("--prior", default=AUTO, metavar="auto|self|NAME|DIR", help=text)
    else:
        text = "population prior: one that is shipped, or a folder"
        entry.add_argument("--prior", default=DEFAULT, metavar="NAME|DIR", help=text)
    text = "of the MAP search; learning from a scan shortens in proportion (default: the task's)"
    entry.add_argument("--steps", type=positive_int, metavar="N", help=text)


def reconstruction_arguments(parser: argparse.ArgumentParser, auto: bool = False) -> None:
    entry = group(parser, "the result")
    text = "file, or folder of pictures or DICOM (default: the input's name + _brgm)"
    entry.add_argument("--out", type=Path, metavar="PATH", help=text)
    entry.add_argument("--certificate", type=Path, metavar="FILE", help="JSON file (default: beside the output)")
    text = "write no page that shows the result (of a volume: its name and _report.html)"
    entry.add_argument("--no-report", action="store_true", help=text)
    entry.add_argument("--force", action="store_true", help="overwrite existing outputs")
    search_arguments(parser, auto)
    entry = group(parser, "the computation")
    entry.add_argument("--seed", type=int, default=0, metavar="N", help="of random numbers")
    entry.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    text = "results repeat to the last bit for equal numbers of them (default: all cores)"
    entry.add_argument("--threads", type=positive_int, metavar="N", help=text)
