"""The command line: `brgm-med COMMAND`. Parsing only; the work is in `steps`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, UsageError

ONLY_VOLUMES = (
    *("like", "series", "slice_thickness", "profile", "gap", "spacing", "noise"),
    *("dtype", "affine", "perceptual", "lpips_weights"),
)
"""Options of `sr` that pictures have not."""

Handler = Callable[[argparse.Namespace], None]


def _positive(kind: type[int] | type[float]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_count.__name__ = "count"


def _noise(text: str) -> float | str:
    if text == "auto":
        return text
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


_noise.__name__ = "noise level"


def _angle(text: str) -> float:
    value = float(text)
    if not abs(value) <= 180:
        raise ValueError
    return value


_angle.__name__ = "angle"


def _choices(a: argparse.Namespace) -> Any:
    from brgm_med.transforms.formats.dicom_derived import Choices

    if not a.deidentify:
        return Choices(a.uid_seed, a.keep_private)
    from brgm_med.pipelines.deidentification import begin

    for name in ("uid_seed", "keep_private"):
        if getattr(a, name):
            raise UsageError(f"--deidentify: excludes --{name.replace('_', '-')}; leave one of the two out")
    return Choices(transform=begin(a.out))


def _place(text: str) -> Path:
    """A path with a name, which `.` has not: results are named after it."""
    path = Path(text)
    return path if path.name not in ("", "..") else path.resolve()


def _on_pictures(a: argparse.Namespace, volumes_only: Sequence[str], work: Callable[..., object]) -> bool:
    """Whether `a.scan` is a picture or a folder of pictures; `work(picture, out, **options)` is then done for each.

    Raises UsageError for options that only mean volumes.
    """
    from brgm_med.pipelines.pictures import each
    from brgm_med.transforms.formats import kind_of

    folder = a.scan.is_dir()
    if kind_of(a.scan) != "picture":
        return False
    for name in volumes_only:
        if getattr(a, name) not in (None, "auto", "none", "float32"):
            raise UsageError(f"--{name.replace('_', '-')}: is for volumes, not for {a.scan}; leave it out")
    if folder and a.certificate is not None:
        raise UsageError(f"--certificate: {a.scan} is a folder, and every result has one of its own; leave it out")
    if a.deidentify and (folder or a.out is None or a.out.suffix.lower() != ".dcm"):
        raise UsageError("--deidentify: of pictures, takes one at a time, to an --out whose name ends in .dcm")
    names = ("prior", "force", "steps", "seed", "device", "threads", "certificate")
    options = {name: getattr(a, name) for name in names} | {"choices": _choices(a)}
    if folder:
        each(a.scan, a.out, lambda scan, out: work(scan, out, **options))
    else:
        work(a.scan, a.out, **options)
    return True


def _sr(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.pictures import super_resolve_picture
    from brgm_med.pipelines.steps import super_resolve

    scans, a.scan = a.scan, a.scan[0]
    if len(scans) == 1 and _on_pictures(a, ONLY_VOLUMES, partial(super_resolve_picture, factor=a.factor)):
        return
    if a.factor is not None:
        raise UsageError(f"--factor: is for pictures; {a.scan} is a volume, whose spacing says it")
    super_resolve(
        scans,
        a.out,
        force=a.force,
        prior=a.prior,
        steps=a.steps,
        seed=a.seed,
        perceptual=a.perceptual,
        lpips_weights=a.lpips_weights,
        affine=a.affine,
        series=a.series,
        device=a.device,
        threads=a.threads,
        certificate=a.certificate,
        thickness=a.slice_thickness,
        profile=a.profile,
        gap=a.gap,
        spacing=a.spacing,
        noise=None if a.noise in (None, "auto") else a.noise,
        dtype=a.dtype,
        like=a.like,
        choices=_choices(a),
    )


def _inpaint(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.inpaint import inpaint
    from brgm_med.pipelines.pictures import inpaint_picture, mask_of

    def one(scan: Path, out: Path | None, **options: Any) -> object:
        return inpaint_picture(scan, mask_of(a.mask, scan), out, mask_known=a.mask_known, **options)

    if _on_pictures(a, ("like", "affine", "series"), one):
        return
    inpaint(
        a.scan,
        a.mask,
        a.out,
        mask_known=a.mask_known,
        force=a.force,
        prior=a.prior,
        steps=a.steps,
        seed=a.seed,
        affine=a.affine,
        series=a.series,
        device=a.device,
        threads=a.threads,
        certificate=a.certificate,
        like=a.like,
        choices=_choices(a),
    )


def _degrade(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps import degrade

    degrade(
        a.scan,
        a.out,
        thickness=a.slice_thickness,
        axis=a.axis,
        profile=a.profile or "box",
        gap=a.gap or 0.0,
        factor=a.factor,
        turn=a.turn,
        dtype=a.dtype,
        affine=a.affine,
        series=a.series,
        force=a.force,
        like=a.like,
        choices=_choices(a),
    )


def _train(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.training import train

    train(
        a.data,
        a.out,
        kimg=a.kimg,
        heads=a.heads,
        held_out=a.held_out,
        threads=a.threads,
        seed=a.seed,
        lpips_weights=a.lpips_weights,
    )


def _run(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.run import Settings, run

    settings = Settings(a.task, a.prior, a.steps, a.random_seed, a.threads, a.kimg)
    names = ("layout", "series", "mask_pattern", "work", "nprocs", "mem_gb", "stop_on_first_crash", "reports_only")
    options = {name: getattr(a, name) for name in (*names, "dry_run")}
    run(a.place, a.out, a.level, settings, labels=a.participant_label, plugin=a.use_plugin, **options)


def _prior(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.inspect import list_priors, show_prior, verify_prior

    if a.action == "list":
        list_priors(a.priors)
    elif a.action == "import":
        from brgm_med.pipelines.importing import import_prior

        import_prior(a.file, a.out, a.name)
    elif a.action == "show":
        show_prior(a.prior)
    else:
        verify_prior(a.prior)


def _send(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.sending import send

    send(a.path, a.to, calling=a.calling, retries=a.retries)


def _series(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.series import list_series

    list_series(a.place, a.json)


def _doctor(_a: argparse.Namespace) -> None:
    from brgm_med.pipelines.inspect import doctor

    doctor()


def _scan_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    text = "NIfTI file; folder, DICOMDIR, zip or file of DICOM slices; picture or radiograph"
    which = "which DICOM series (brgm-med series lists them)"
    if several:
        text += "; again for further scans of the same head"
        which += "; of several scans, one for each"
    action = "append" if several else "store"
    parser.add_argument("--in", dest="scan", type=_place, action=action, required=True, metavar="SCAN", help=text)
    parser.add_argument("--series", action=action, metavar="UID|NUMBER", help=which)
    parser.add_argument("--affine", choices=("sform", "qform"), default="auto", help="which one to believe")
    parser.add_argument("--force", action="store_true", help="overwrite existing outputs")


def _dicom_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like", type=Path, metavar="DICOM", help="series whose patient and study a DICOM result of NIfTI input gets"
    )
    parser.add_argument("--uid-seed", metavar="TEXT", help="DICOM UIDs made of this and the image (default: random)")
    parser.add_argument("--deidentify", action="store_true", help="of DICOM output (PS3.15 basic profile)")
    parser.add_argument("--keep-private", action="store_true", help="keep the private elements of DICOM input")


def _acquisition_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float32", "source"), default="float32", help="voxel type of the output")
    parser.add_argument(
        "--slice-thickness", type=_positive(float), metavar="MM", help="full width (Gaussian: at half maximum)"
    )
    parser.add_argument("--profile", choices=("box", "gaussian", "trapezoid"), help="slice profile (default: box)")
    parser.add_argument("--gap", type=float, metavar="MM", help="gap between slices")


def _reconstruction_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, help="file, or folder of pictures or DICOM (default: the input's name + _brgm)"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="JSON file (default: beside the output)")
    parser.add_argument("--prior", default="brain-t1-coronal", metavar="NAME|DIR")
    parser.add_argument("--steps", type=_positive(int), metavar="N", help="steps of the MAP search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=_positive(int), metavar="N")


def _study_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--nprocs", type=_positive(int), default=1, metavar="N", help="nodes side by side (default: 1)")
    parser.add_argument("--mem-gb", type=_positive(float), metavar="G", help="memory of all of them together")
    parser.add_argument("--threads", type=_positive(int), default=1, metavar="N", help="of a node (default: 1)")
    text = 'JSON: {"plugin": "SLURM", "plugin_args": {...}}; SGE and PBS likewise'
    parser.add_argument("--use-plugin", type=Path, metavar="FILE", help=text)
    parser.add_argument("--stop-on-first-crash", action="store_true", help="else what does not depend on it goes on")
    parser.add_argument("--reports-only", action="store_true", help="from the derivatives that are there")
    parser.add_argument("--dry-run", action="store_true", help="list the scans and what becomes of them")
    parser.add_argument("--prior", default="brain-t1-coronal", metavar="NAME|DIR")
    parser.add_argument("--steps", type=_positive(int), metavar="N", help="steps of the MAP search")
    parser.add_argument("--kimg", type=_positive(float), default=100.0, help="train until so many thousand images")
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


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="brgm-med",
        description="Bayesian reconstruction of medical scans with deep generative priors. For research, not for "
        "diagnosis.",
        epilog="Exit codes: 0 done, 2 usage, 3 input refused, 4 could not write, 5 prior or weights missing or "
        "damaged, 1 anything else.",
    )
    top.add_argument("--version", action="version", version=f"brgm-med {__version__}")
    text = "write completion for bash to where bash-completion looks for it"
    top.add_argument("--install-completion", action=Install, help=text)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(handler=handler)
        return made

    sr = command(
        "sr", _sr, "Super-resolve a head scan (or a picture): thick slices or large voxels in, the prior's spacing out."
    )
    _scan_arguments(sr, several=True)
    _acquisition_arguments(sr)
    _reconstruction_arguments(sr)
    _dicom_arguments(sr)
    sr.add_argument("--spacing", type=_positive(float), metavar="MM", help="of the result (default: the finest)")
    sr.add_argument(
        "--noise",
        type=_noise,
        metavar="auto|SD|0",
        help="standard deviation of the scan's noise, in its units (default: auto, from the air); 0 keeps every value",
    )
    sr.add_argument("--factor", type=_positive(int), metavar="N", help="of a picture (default: up to the prior's size)")
    sr.add_argument("--perceptual", choices=("discriminator", "alex", "vgg", "none"), default="none")
    sr.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet or VGG16 weights, for offline use")

    inpaint = command(
        "inpaint", _inpaint, "Fill a hole in a head scan (or a picture); every other voxel stays as it is."
    )
    _scan_arguments(inpaint)
    inpaint.add_argument(
        "--mask", type=Path, required=True, help="integer image, on any grid; voxels that are not 0 are unknown"
    )
    inpaint.add_argument("--mask-known", action="store_true", help="voxels of the mask that are 0 are unknown instead")
    _reconstruction_arguments(inpaint)
    _dicom_arguments(inpaint)

    degrade = command("degrade", _degrade, "Simulate a coarser acquisition of a scan.")
    _scan_arguments(degrade)
    _acquisition_arguments(degrade)
    _dicom_arguments(degrade)
    degrade.add_argument("--out", type=Path, required=True)
    degrade.add_argument(
        "--turn",
        type=_angle,
        nargs=3,
        metavar=("R", "A", "S"),
        help="turn the scanner's axes by so many degrees about R, A and S",
    )
    degrade.add_argument("--axis", choices=("R", "A", "S"), help="the slice axis")
    degrade.add_argument("--factor", type=_positive(int), metavar="N", help="downsample the coronal plane instead")

    series = command("series", _series, "List the DICOM volumes in a folder, DICOMDIR, zip or file.")
    series.add_argument("place", type=_place, metavar="DIR")
    series.add_argument("--json", action="store_true", help="for programs")

    train = command("train", _train, "Train a prior on a folder of head scans, or of pictures.")
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of NIfTI heads, or of pictures")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder of the run; resumed if it exists; a template in it is used",
    )
    train.add_argument("--kimg", type=_positive(float), default=100.0, help="train until so many thousand images")
    train.add_argument(
        "--heads", type=_positive(int), metavar="N", help="train on the first N heads (or pictures) by name"
    )
    train.add_argument(
        "--held-out",
        type=_count,
        metavar="M",
        help="measure on the M heads (or pictures) after those, never trained on (default: a tenth of the folder's)",
    )
    train.add_argument("--threads", type=_positive(int), metavar="N")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet weights, for offline use")

    study = command("run", _run, "A directory of scans (BIDS, NIfTI, DICOM) in, a directory of derivatives out.")
    _study_arguments(study)

    prior = command("prior", _prior, "List, show, verify or import priors.")
    actions = prior.add_subparsers(dest="action", required=True, metavar="list|show|verify|import")
    listed = actions.add_parser("list", help="the shipped priors, or the named ones")
    listed.add_argument("priors", nargs="*", metavar="NAME|DIR")
    for name, text in (("show", "what a prior is and is not good for"), ("verify", "check every file's SHA-256")):
        actions.add_parser(name, help=text).add_argument("prior", nargs="?", default="brain-t1-coronal")
    text = "Import a StyleGAN2 generator: a pickle of StyleGAN2-ADA, a .pt in rosinality's layout, or safetensors."
    imported = actions.add_parser("import", help="make a prior of somebody else's generator", description=text)
    imported.add_argument("file", type=Path, metavar="FILE", help="nothing in it is run")
    imported.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder of the prior")
    imported.add_argument("--name", help="the prior's name (default: the file's)")

    send = command("send", _send, "Store DICOM files, as they are, in an archive (PACS): C-STORE or STOW-RS.")
    send.add_argument(
        "path", type=Path, metavar="DIR", help="folder (with all below) or file; what is no DICOM is skipped"
    )
    send.add_argument("--to", required=True, metavar="AET@HOST:PORT|URL", help="or http(s)://host/.../studies")
    send.add_argument(
        "--as", dest="calling", default="BRGM-MED", metavar="AET", help="our own title (default: BRGM-MED)"
    )
    send.add_argument(
        "--retries",
        type=_count,
        default=3,
        metavar="N",
        help="of what may succeed later, after 1, 4, 16 ... s (default: 3)",
    )

    command("doctor", _doctor, "What is installed, which device and weights, what is missing and how to get it.")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are one line on stderr, never a traceback."""
    # Warnings of libraries are not for users; BRGM_MED_DEBUG=1 shows them and tracebacks.
    debug = bool(os.environ.get("BRGM_MED_DEBUG"))
    if not debug:
        import warnings

        warnings.simplefilter("ignore")
    options = parser().parse_args(arguments)
    # Ended from outside is like Ctrl-C: whatever was being written is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.handler(options)
    except BrgmError as error:
        if debug:
            raise
        print(f"brgm-med: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("brgm-med: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"brgm-med: unexpected error, {what} (BRGM_MED_DEBUG=1 shows where)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
