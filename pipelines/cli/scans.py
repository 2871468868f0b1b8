"""Commands on scans: reconstruct, fill, degrade, list and send them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brgm_med.errors import UsageError
from brgm_med.pipelines.cli.arguments import (
    Handler,
    acquisition_arguments,
    angle,
    count,
    dicom_arguments,
    dtype_argument,
    examples,
    group,
    level,
    noise,
    options,
    positive_float,
    positive_int,
    reconstruction_arguments,
    scan_arguments,
    scan_path,
)
from brgm_med.pipelines.console import give
from brgm_med.priors import population

ONLY_VOLUMES = (
    *("like", "series", "slice_thickness", "profile", "gap", "slice_axis", "spacing", "noise"),
    *("dtype", "affine", "same_world", "max_memory", "allow_missing_files"),
    *("level", "samples", "roi", "even_odd"),
)
"""Options of `sr` that pictures have not."""
SEARCH = ("preset", "project", "perceptual", "lpips_weights")
"""Options of its search."""
EVERY = ("prior", "force", "steps", "seed", "device", "threads", "certificate")
"""Options of every reconstruction."""


def sr(parser: argparse.ArgumentParser) -> Handler:
    """Super-resolve a scan (or a picture): thick slices in, voxels as fine as its planes' out."""
    scan_arguments(parser, several=True)
    acquisition_arguments(parser, estimate=True)
    entry = group(parser, "how it was acquired")
    text = "slices lie along it (default: as DICOM or the JSON file say, else the coarsest)"
    entry.add_argument("--slice-axis", choices=("R", "A", "S"), help=text)
    text = "standard deviation of the scan's noise, in its units (default: auto, from the scan); 0 keeps every value"
    entry.add_argument("--noise", type=noise, metavar="auto|SD|0", help=text)
    text = "bring every second slice to the level of the others where they clearly differ (default: as they are)"
    entry.add_argument("--even-odd", choices=("correct",), help=text)
    text = "scans of several frames of reference lie in one world all the same"
    entry.add_argument("--same-world", action="store_true", help=text)
    reconstruction_arguments(parser, auto=True)
    entry = group(parser, "the result")
    text = "voxel size of the result (default: the finest of the scans and the prior)"
    entry.add_argument("--spacing", type=positive_float, metavar="MM", help=text)
    dtype_argument(entry)
    text = "of a picture (default: up to the prior's size)"
    entry.add_argument("--factor", type=positive_int, metavar="N", help=text)
    text = "refuse what would take more memory (default: most of what is free)"
    entry.add_argument("--max-memory", type=positive_float, metavar="GB", help=text)
    text = "of intervals, in per cent: their bounds and the standard deviation are written beside the result"
    text += " (default: no intervals)"
    entry.add_argument("--level", type=level, metavar="PERCENT", help=text)
    text = "so many samples of the truth as it may be, and intervals (of 90 %% without --level; default: 0)"
    entry.add_argument("--samples", type=count, metavar="N", help=text)
    text = "a mask: its volume and the mean intensity in it are stated with an interval (default: none)"
    entry.add_argument("--roi", type=Path, metavar="MASK", help=text)
    text = "the paper's own search (Eq. 5, 500 steps of Adam) in the generator of a --prior"
    entry.add_argument("--preset", choices=("default", "paper"), default="default", help=text)
    text = "leave the answer of a --prior's search as it is: nothing keeps its measured value"
    entry.add_argument("--no-projection", dest="project", action="store_false", help=text)
    text = "perceptual term of a population prior's search (default: none; of --preset paper: vgg)"
    entry.add_argument("--perceptual", choices=("discriminator", "alex", "vgg", "none"), help=text)
    text = "AlexNet or VGG16 weights, for offline use (default: downloaded)"
    entry.add_argument("--lpips-weights", type=Path, metavar="FILE", help=text)
    dicom_arguments(parser)
    examples(
        parser,
        "sr scan.nii.gz                                 scan_brgm.nii.gz, its certificate, map and report",
        "sr scan.nii.gz --slice-thickness 4 --gap 1     slices of 4 mm every 5 mm",
        "sr axial.nii.gz coronal.nii.gz --out both.nii.gz",
        "sr DICOM_FOLDER --series 3 --out NEW_FOLDER    a derived series",
    )
    return _sr


def _sr(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.report import subject_report
    from brgm_med.pipelines.steps import super_resolve
    from brgm_med.pipelines.steps.pictures import super_resolve_picture

    scans, a.scan = a.scan, a.scan[0]
    if len(scans) == 1 and _on_pictures(a, ONLY_VOLUMES, partial(super_resolve_picture, factor=a.factor), SEARCH):
        return
    if a.factor is not None:
        raise UsageError(f"--factor: is for pictures; {a.scan} is a volume, whose spacing says it")
    scan = ("affine", "series", "profile", "gap", "slice_axis", "noise", "same_world", "even_odd")
    volume = options(a, *EVERY, *scan, "spacing", "dtype", "like", "max_memory", "allow_missing_files")
    volume |= options(a, "level", "roi") | {"samples": a.samples or 0}
    features = options(a, *SEARCH)
    page = None if a.no_report else subject_report
    choices = _choices(a)
    give(super_resolve(scans, a.out, thickness=a.slice_thickness, choices=choices, report=page, **volume, **features))


def inpaint(parser: argparse.ArgumentParser) -> Handler:
    """Fill a hole in a head scan (or a picture); every other voxel stays as it is."""
    scan_arguments(parser)
    entry = group(parser, "the hole")
    text = "integers or a DICOM SEG, on any grid; where it is not 0 is unknown"
    entry.add_argument("--mask", type=Path, required=True, metavar="MASK", help=text)
    text = "voxels of the mask that are 0 are unknown instead"
    entry.add_argument("--mask-known", action="store_true", help=text)
    reconstruction_arguments(parser)
    dicom_arguments(parser)
    examples(
        parser,
        "inpaint scan.nii.gz --mask lesion.nii.gz     scan_brgm.nii.gz, the lesion filled with what is probable",
        "inpaint DICOM_FOLDER --mask SEG.dcm --out NEW_FOLDER",
    )
    return _inpaint


def _inpaint(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.report import subject_report
    from brgm_med.pipelines.steps.inpaint import inpaint
    from brgm_med.pipelines.steps.picture_folder import mask_of
    from brgm_med.pipelines.steps.pictures import inpaint_picture

    def one(scan: Path, out: Path | None, options: Any) -> Path:
        return inpaint_picture(scan, mask_of(a.mask, scan), out, options, mask_known=a.mask_known)

    if _on_pictures(a, ("like", "affine", "series", "allow_missing_files"), one):
        return
    volume = options(a, *EVERY, "mask_known", "affine", "series", "like", "allow_missing_files")
    page = None if a.no_report else subject_report
    give(inpaint(a.scan, a.mask, a.out, choices=_choices(a), report=page, **volume))


def report(parser: argparse.ArgumentParser) -> Handler:
    """Write the page that shows a result and says what its certificate does: before and after, what was measured."""
    parser.add_argument(
        "result", type=Path, metavar="RESULT", help="NIfTI file or folder of DICOM that sr or inpaint wrote"
    )
    text = "the scan that it was made from, the first of several (default: beside it, by the certificate's name)"
    parser.add_argument("--in", dest="scan", type=scan_path, metavar="SCAN", help=text)
    parser.add_argument(
        "--series", metavar="UID|NUMBER", help="which DICOM series that scan is (default: the only one)"
    )
    parser.add_argument("--mask", type=Path, metavar="FILE", help="of what was inpainted (default: beside it)")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="of the result (default: beside it)")
    parser.add_argument("--out", type=Path, metavar="HTML", help="the page (default: RESULT_report.html)")
    parser.add_argument("--force", action="store_true", help="overwrite existing outputs")
    return _report


def _report(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.report import report_beside

    page = report_beside(a.result, **options(a, "scan", "series", "mask", "certificate", "out", "force"))
    give(page)


def degrade(parser: argparse.ArgumentParser) -> Handler:
    """Simulate a coarser acquisition of a scan."""
    scan_arguments(parser)
    acquisition_arguments(parser)
    entry = group(parser, "the simulation")
    entry.add_argument("--out", type=Path, required=True, metavar="PATH", help="file, or folder of DICOM")
    entry.add_argument("--force", action="store_true", help="overwrite existing outputs")
    text = "turn the scanner's axes by so many degrees about R, A and S (default: as the scan's)"
    entry.add_argument("--turn", type=angle, nargs=3, metavar=("R", "A", "S"), help=text)
    entry.add_argument("--axis", choices=("R", "A", "S"), help="the slice axis (default: none is made thicker)")
    text = "downsample the coronal plane instead (default: slices)"
    entry.add_argument("--factor", type=positive_int, metavar="N", help=text)
    dtype_argument(entry)
    dicom_arguments(parser)
    examples(parser, "degrade fine.nii.gz --axis S --slice-thickness 6 --out thick.nii.gz")
    return _degrade


def _degrade(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.degrade import degrade

    profile = {"thickness": a.slice_thickness, "profile": a.profile or "box", "gap": a.gap or 0.0}
    names = ("axis", "factor", "turn", "dtype", "affine", "series", "force", "like", "allow_missing_files")
    scan = options(a, *names)
    give(degrade(a.scan, a.out, choices=_choices(a), **profile, **scan))


def series(parser: argparse.ArgumentParser) -> Handler:
    """List the DICOM volumes in a folder, DICOMDIR, zip or file."""
    parser.add_argument("folder", type=scan_path, metavar="DIR", help="where the files are")
    parser.add_argument("--json", action="store_true", help="for programs")
    return _series


def _series(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.series import list_series

    list_series(a.folder, a.json)


def send(parser: argparse.ArgumentParser) -> Handler:
    """Store DICOM files, as they are, in an archive (PACS): C-STORE or STOW-RS."""
    parser.add_argument(
        "path", type=Path, metavar="DIR", help="folder (with all below) or file; what is no DICOM is skipped"
    )
    parser.add_argument("--to", required=True, metavar="AET@HOST:PORT|URL", help="or http(s)://host/.../studies")
    text = "our own title (default: BRGM-MED)"
    parser.add_argument("--as", dest="calling", default="BRGM-MED", metavar="AET", help=text)
    text = "of what may succeed later, after 1, 4, 16 ... s (default: 3)"
    parser.add_argument("--retries", type=count, default=3, metavar="N", help=text)
    text = "send although files beside those of DICOM are empty, damaged, or not there"
    parser.add_argument("--allow-missing-files", action="store_true", help=text)
    return _send


def _send(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.send.send import send

    send(a.path, a.to, **options(a, "calling", "retries", "allow_missing_files"))


def _choices(a: argparse.Namespace) -> Any:
    from brgm_med.transforms.formats.dicom.derived import Choices

    if not a.deidentify:
        return Choices(a.uid_seed, a.keep_private)
    from brgm_med.pipelines.results.deidentification import begin

    for name in ("uid_seed", "keep_private"):
        if getattr(a, name):
            raise UsageError(f"--deidentify: excludes --{name.replace('_', '-')}; leave one of the two out")
    return Choices(transform=begin(a.out))


def _on_pictures(
    a: argparse.Namespace, volumes_only: Sequence[str], work: Callable[..., Path], search: Sequence[str] = ()
) -> bool:
    """True if `a.scan` is a picture or a folder of pictures; `work(picture, out, options)` is then done for each.

    Raises UsageError for options that only mean volumes.
    """
    from brgm_med.pipelines.steps.picture_folder import each
    from brgm_med.pipelines.steps.pictures import Options
    from brgm_med.transforms.formats import kind_of

    folder = a.scan.is_dir()
    if kind_of(a.scan) != "picture":
        return False
    for name in volumes_only:
        value = getattr(a, name)
        if value is not False and value not in (None, "auto", "none", "float32"):
            raise UsageError(f"--{name.replace('_', '-')}: is for volumes, not for {a.scan}; leave it out")
    if folder and a.certificate is not None:
        raise UsageError(f"--certificate: {a.scan} is a folder, and every result has one of its own; leave it out")
    if a.deidentify and (folder or a.out is None or a.out.suffix.lower() != ".dcm"):
        raise UsageError("--deidentify: of pictures, takes one at a time, to an --out whose name ends in .dcm")
    a.prior = population(a.prior) or a.prior
    one = partial(work, options=Options(choices=_choices(a), **options(a, *EVERY, *search)))
    if folder:
        each(a.scan, a.out, one)
    else:
        give(one(a.scan, a.out))
    return True
