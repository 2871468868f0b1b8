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
from brgm_med.pipelines.arguments import (
    Install,
    acquisition_arguments,
    angle,
    count,
    dicom_arguments,
    evaluation_arguments,
    forced_choice_arguments,
    noise,
    place,
    positive,
    reconstruction_arguments,
    scan_arguments,
    study_arguments,
)
from brgm_med.priors.bundle import DEFAULT_PRIOR

ONLY_VOLUMES = (
    *("like", "series", "slice_thickness", "profile", "gap", "spacing", "noise"),
    *("dtype", "affine", "perceptual", "lpips_weights"),
)
"""Options of `sr` that pictures have not."""

Handler = Callable[[argparse.Namespace], None]


def _choices(a: argparse.Namespace) -> Any:
    from brgm_med.transforms.formats.dicom.derived import Choices

    if not a.deidentify:
        return Choices(a.uid_seed, a.keep_private)
    from brgm_med.pipelines.results.deidentification import begin

    for name in ("uid_seed", "keep_private"):
        if getattr(a, name):
            raise UsageError(f"--deidentify: excludes --{name.replace('_', '-')}; leave one of the two out")
    return Choices(transform=begin(a.out))


def _on_pictures(a: argparse.Namespace, volumes_only: Sequence[str], work: Callable[..., object]) -> bool:
    """Whether `a.scan` is a picture or a folder of pictures; `work(picture, out, **options)` is then done for each.

    Raises UsageError for options that only mean volumes.
    """
    from brgm_med.pipelines.steps.picture_folder import each
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
    from brgm_med.pipelines.steps import super_resolve
    from brgm_med.pipelines.steps.pictures import super_resolve_picture

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
    from brgm_med.pipelines.steps.inpaint import inpaint
    from brgm_med.pipelines.steps.picture_folder import mask_of
    from brgm_med.pipelines.steps.pictures import inpaint_picture

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
    from brgm_med.pipelines.steps.degrade import degrade

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
    from brgm_med.pipelines.steps.train import train

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
    from brgm_med.pipelines.dataset.run import run
    from brgm_med.pipelines.dataset.settings import Settings

    settings = Settings(a.task, a.prior, a.steps, a.random_seed, a.threads, a.kimg)
    names = ("layout", "series", "mask_pattern", "work", "nprocs", "mem_gb", "stop_on_first_crash", "reports_only")
    options = {name: getattr(a, name) for name in (*names, "dry_run")}
    run(a.place, a.out, a.level, settings, labels=a.participant_label, plugin=a.use_plugin, **options)


def _evaluate(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.evaluation.evaluate import Evaluation, evaluate

    given = {name: value for name, value in vars(a).items() if name not in ("command", "handler") and value is not None}
    evaluate(Evaluation(**given))


def _forced_choice(a: argparse.Namespace) -> None:
    from brgm_med.pipelines import forced_choice

    if a.action == "tally":
        forced_choice.tally(a.results, key=a.key, out=a.out, force=a.force)
        return
    methods = dict(a.method)
    if len(methods) < len(a.method):
        raise UsageError("--method: two of them have one name; name them differently")
    forced_choice.make(a.truth, methods, a.out, question=a.question, seed=a.seed, first=a.first, force=a.force)


def _prior(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.priors import list_priors, show_prior, verify_prior

    if a.action == "list":
        list_priors(a.priors)
    elif a.action == "import":
        from brgm_med.pipelines.steps.import_prior import import_prior

        import_prior(a.file, a.out, a.name)
    elif a.action == "show":
        show_prior(a.prior)
    else:
        verify_prior(a.prior)


def _send(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.send.send import send

    send(a.path, a.to, calling=a.calling, retries=a.retries)


def _series(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.series import list_series

    list_series(a.place, a.json)


def _doctor(_a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.priors import doctor

    doctor()


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
    scan_arguments(sr, several=True)
    acquisition_arguments(sr)
    reconstruction_arguments(sr)
    dicom_arguments(sr)
    sr.add_argument("--spacing", type=positive(float), metavar="MM", help="of the result (default: the finest)")
    sr.add_argument(
        "--noise",
        type=noise,
        metavar="auto|SD|0",
        help="standard deviation of the scan's noise, in its units (default: auto, from the air); 0 keeps every value",
    )
    sr.add_argument("--factor", type=positive(int), metavar="N", help="of a picture (default: up to the prior's size)")
    sr.add_argument("--perceptual", choices=("discriminator", "alex", "vgg", "none"), default="none")
    sr.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet or VGG16 weights, for offline use")

    inpaint = command(
        "inpaint", _inpaint, "Fill a hole in a head scan (or a picture); every other voxel stays as it is."
    )
    scan_arguments(inpaint)
    inpaint.add_argument(
        "--mask", type=Path, required=True, help="integer image, on any grid; voxels that are not 0 are unknown"
    )
    inpaint.add_argument("--mask-known", action="store_true", help="voxels of the mask that are 0 are unknown instead")
    reconstruction_arguments(inpaint)
    dicom_arguments(inpaint)

    degrade = command("degrade", _degrade, "Simulate a coarser acquisition of a scan.")
    scan_arguments(degrade)
    acquisition_arguments(degrade)
    dicom_arguments(degrade)
    degrade.add_argument("--out", type=Path, required=True)
    degrade.add_argument(
        "--turn",
        type=angle,
        nargs=3,
        metavar=("R", "A", "S"),
        help="turn the scanner's axes by so many degrees about R, A and S",
    )
    degrade.add_argument("--axis", choices=("R", "A", "S"), help="the slice axis")
    degrade.add_argument("--factor", type=positive(int), metavar="N", help="downsample the coronal plane instead")

    series = command("series", _series, "List the DICOM volumes in a folder, DICOMDIR, zip or file.")
    series.add_argument("place", type=place, metavar="DIR")
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
    train.add_argument("--kimg", type=positive(float), default=100.0, help="train until so many thousand images")
    train.add_argument(
        "--heads", type=positive(int), metavar="N", help="train on the first N heads (or pictures) by name"
    )
    train.add_argument(
        "--held-out",
        type=count,
        metavar="M",
        help="measure on the M heads (or pictures) after those, never trained on (default: a tenth of the folder's)",
    )
    train.add_argument("--threads", type=positive(int), metavar="N")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet weights, for offline use")

    study = command("run", _run, "A directory of scans (BIDS, NIfTI, DICOM) in, a directory of derivatives out.")
    study_arguments(study)

    text = "Degrade, reconstruct and measure: methods side by side on images whose truth is known."
    evaluation_arguments(command("evaluate", _evaluate, text))

    text = "A forced-choice study: raters choose, blindly, which method's image is most like the true one."
    forced_choice_arguments(command("study", _forced_choice, text))

    prior = command("prior", _prior, "List, show, verify or import priors.")
    actions = prior.add_subparsers(dest="action", required=True, metavar="list|show|verify|import")
    listed = actions.add_parser("list", help="the shipped priors, or the named ones")
    listed.add_argument("priors", nargs="*", metavar="NAME|DIR")
    for name, text in (("show", "what a prior is and is not good for"), ("verify", "check every file's SHA-256")):
        actions.add_parser(name, help=text).add_argument("prior", nargs="?", default=DEFAULT_PRIOR)
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
        type=count,
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
