"""The presets of `sr`: the default search, and the paper's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from brgm_med.errors import UsageError
from brgm_med.pipelines.reconstruct.compute import Network
from brgm_med.pipelines.results.certificate import Entry

if TYPE_CHECKING:
    from brgm_med.search import Search

Preset = Literal["default", "paper"]


def check_preset(preset: Preset, project: bool, own: bool) -> None:
    """Raise UsageError where a search of the generator alone is asked for, and the scan's `own` prior is in use."""
    option = "--preset paper" if preset == "paper" else "--no-projection"
    if own and (preset == "paper" or not project):
        raise UsageError(f"{option}: is of a search in a generator alone; name a population prior with --prior")


def chosen_search(
    default: Search, preset: Preset, steps: int | None, project: bool, perceptual: Network | None
) -> tuple[Search, Network, Entry]:
    """The search of a preset, the network of its perceptual term, and both for the certificate.

    The paper's network is VGG16 unless `perceptual` says another; the default search has no such term.
    """
    from brgm_med.posterior import GREY_VALUES
    from brgm_med.search import PAPER

    search = replace(PAPER if preset == "paper" else default, projected=project).limited_to(steps)
    network: Network = perceptual or ("vgg" if preset == "paper" else "none")
    weights = {"noise": search.misfit, "perceptual": search.perceptual_weight, "prior": search.prior_weight}
    if preset == "paper":
        weights = {"perceptual": 0.0 if network == "none" else 1.0, "pixel": 0.001 * GREY_VALUES**2}
        weights |= {"w": 100.0, "colinear": 3.0}
    entry: Entry = {"steps": search.iterations, "perceptual": network, "weights": weights}
    if preset == "paper":
        entry["preset"] = preset
    return search, network, entry if project else entry | {"projected": False}
