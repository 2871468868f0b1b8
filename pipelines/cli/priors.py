"""Commands on priors: train, look at, import them, and look at what is installed."""

from __future__ import annotations

import argparse
from pathlib import Path

from brgm_med.pipelines.cli.arguments import Handler, count, options, positive_float, positive_int
from brgm_med.priors import DEFAULT


def train(parser: argparse.ArgumentParser) -> Handler:
    """Train a prior on a folder of head scans, or of pictures."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of NIfTI heads, or of pictures, or a zip of these",
    )
    text = "folder of the run; resumed if it exists; a template in it is used"
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help=text)
    parser.add_argument(
        "--kimg", type=positive_float, default=100.0, metavar="K", help="train until so many thousand images"
    )
    text = "train on the first N heads (or pictures) by name (default: all)"
    parser.add_argument("--heads", type=positive_int, metavar="N", help=text)
    text = "measure on the M heads (or pictures) after those, never trained on (default: a tenth of the folder's)"
    parser.add_argument("--held-out", type=count, metavar="M", help=text)
    text = "processor threads (default: all cores)"
    parser.add_argument("--threads", type=positive_int, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random numbers")
    text = "AlexNet weights, for offline use (default: downloaded)"
    parser.add_argument("--lpips-weights", type=Path, metavar="FILE", help=text)
    return _train


def _train(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.train import train

    train(a.data, a.out, **options(a, "kimg", "heads", "held_out", "threads", "seed", "lpips_weights"))


def prior(parser: argparse.ArgumentParser) -> Handler:
    """List, show, verify or import priors."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|verify|import")
    listed = actions.add_parser("list", help="the shipped priors, or the named ones")
    listed.add_argument("priors", nargs="*", metavar="NAME|DIR", help="which (default: the shipped ones)")
    listed.add_argument("--json", action="store_true", help="for programs")
    for name, text in (("show", "what a prior is and is not good for"), ("verify", "check every file's SHA-256")):
        one = actions.add_parser(name, help=text)
        one.add_argument("prior", nargs="?", default=DEFAULT, metavar="NAME|DIR", help="which (default: %(default)s)")
    text = "Import a StyleGAN2 generator: a pickle of StyleGAN2-ADA, a .pt in rosinality's layout, or safetensors."
    imported = actions.add_parser("import", help="make a prior of somebody else's generator", description=text)
    imported.add_argument("file", type=Path, metavar="FILE", help="nothing in it is run")
    imported.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder of the prior")
    imported.add_argument("--name", help="the prior's name (default: the file's)")
    return _prior


def _prior(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.priors import list_priors, show_prior, verify_prior

    if a.action == "list":
        list_priors(a.priors, a.json)
    elif a.action == "import":
        from brgm_med.pipelines.steps.import_prior import import_prior

        import_prior(a.file, a.out, a.name)
    elif a.action == "show":
        show_prior(a.prior)
    else:
        verify_prior(a.prior)


def doctor(parser: argparse.ArgumentParser) -> Handler:
    """Print what is installed, which device and weights, what is missing and how to get it."""
    parser.add_argument("--json", action="store_true", help="for programs")
    return _doctor


def _doctor(a: argparse.Namespace) -> None:
    from brgm_med.pipelines.steps.priors import doctor

    doctor(a.json)
