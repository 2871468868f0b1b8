"""The methods of a study as a paragraph for a paper. Times, hosts and folders stay out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.files import make_folder
from brgm_med.pipelines.dataset.description import write_if_new
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.report import Outcome
from brgm_med.priors import SELF
from brgm_med.priors.bundle import load

PAPER = (
    "Marinescu RV, Moyer D, Golland P. Bayesian Image Reconstruction using Deep Generative Models. arXiv:2012.04567.\n"
)

Certificates = Sequence[Mapping[str, Any]]


def cite(out: Path, settings: Settings, outcomes: Sequence[Outcome]) -> None:
    """`out`/logs/CITATION.md: a paragraph of methods that is true of what `out` holds."""
    make_folder(out / "logs")
    text = _trained(settings, len(outcomes)) if settings.task == "train" else _reconstructed(settings, outcomes)
    text += " Voxels that were not measured are inferred by a statistical model: for research, not for diagnosis."
    write_if_new(out / "logs" / "CITATION.md", f"# Methods\n\n{text}\n\n# Reference\n\n{PAPER}")


def _trained(settings: Settings, scans: int) -> str:
    assert settings.population is not None
    prior = load(settings.population)
    return (
        f"{scans} T1-weighted scans were registered rigidly to the template of {_prior(prior.name, prior.sha256)} and "
        f"normalised with brgm-med {__version__}, and a StyleGAN2 prior of their coronal slices is trained on those "
        f"that were not refused, up to {settings.kimg:g} thousand slices, seed {settings.seed}."
    )


def _reconstructed(settings: Settings, outcomes: Sequence[Outcome]) -> str:
    done = [one.certificate for one in outcomes if one.status == "done"]
    text = _filled(done) if settings.task == "inpaint" else _super_resolved(done)
    others, assumed = len(outcomes) - len(done), sum(not one["acquisition"]["Stated"] for one in done)
    if assumed:
        text += f" The slice profile was assumed from the voxel spacing in {assumed} of them."
    if others:
        text += f" {others} further scan{'s were' if others != 1 else ' was'} not reconstructed."
    return f"{text} The random seed was {settings.seed}."


def _filled(done: Certificates) -> str:
    scans = f"{len(done)} scan{'s' * (len(done) != 1)}"
    text = f"Masked voxels of {scans} were filled in with brgm-med {__version__}."
    if not done:
        return text
    return (
        f"{text} The maximum a posteriori image under {_priors(done, 'prior')}, given the voxels around them, was "
        f"searched by L-BFGS{_steps(done)} and blended in the gradient domain; no voxel outside the masks was changed."
    )


def _super_resolved(done: Certificates) -> str:
    """By which priors, in how many scans each, and how exactly."""
    scans = "1 scan was" if len(done) == 1 else f"{len(done)} scans were"
    text = f"{scans} super-resolved with brgm-med {__version__} to isotropic voxels."
    own = [one for one in done if one["prior"]["name"] == SELF]
    alone = [one for one in done if one["prior"]["name"] != SELF]
    beside = [one for one in own if one.get("population_prior", {}).get("weight")]
    if own:
        text += (
            f" In {len(own)} of them cubic interpolation, made consistent with the measured values, was corrected by "
            f"{_each(own, 'prior', 'weight')} times the detail between slices that a network infers, which was trained "
            f"beforehand (SHA-256 {_each(own, 'prior', 'sha256')}) and tuned on each scan's own planes."
        )
    if beside:
        weight = _each(beside, "population_prior", "weight")
        text += (
            f" In {len(beside)} of them {weight} times the correction by the maximum a posteriori image under "
            f"{_priors(beside, 'population_prior')} was added, searched by L-BFGS{_steps(beside)}."
        )
    if alone:
        text += (
            f" In {len(alone)} of them the maximum a posteriori image under {_priors(alone, 'prior')} was searched by "
            f"L-BFGS{_steps(alone)}."
        )
    if not done:
        return text
    worst = max(one["consistency"]["relative_residual"] for one in done)
    return (
        f"{text} All were made consistent with the measured values by a covariance-weighted projection (largest "
        f"relative residual {worst:.1e})."
    )


def _steps(done: Certificates) -> str:
    return f" ({_each(done, 'parameters', 'steps')} evaluations)"


def _priors(done: Certificates, entry: str) -> str:
    return _prior(_each(done, entry, "name"), _each(done, entry, "sha256"))


def _prior(name: str, sha256: str) -> str:
    return f'the prior "{name}" (SHA-256 {sha256})'


def _each(done: Certificates, entry: str, name: str) -> str:
    """The values of `entry`/`name` in certificates, each once."""
    values = sorted({one[entry][name] for one in done})
    return " or ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
