"""Every method by name. A name is a method and what is done to its result: "cubic+consistency".

A new method is a function from a `Setting` to a `Method` and a line here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from brgm_med.errors import UsageError
from brgm_med.pipelines.evaluation import untrained
from brgm_med.pipelines.evaluation.esrgan import esrgan, network
from brgm_med.pipelines.evaluation.generator import blended, generator_map, made_consistent, orthogonal
from brgm_med.pipelines.evaluation.interpolation import cubic, lanczos, nearest
from brgm_med.pipelines.evaluation.memory import peak
from brgm_med.pipelines.evaluation.principal import principal_components
from brgm_med.pipelines.evaluation.problems import Problem
from brgm_med.pipelines.evaluation.projections import ablation, pulse
from brgm_med.pipelines.evaluation.setting import Method, Setting
from brgm_med.pipelines.evaluation.supervised import supervised

METHODS: dict[str, Callable[[Setting], Method]] = {
    "map": generator_map,
    "nearest": nearest,
    "cubic": cubic,
    "lanczos": lanczos,
    "tv": untrained.total_variation,
    "dip": untrained.deep_image_prior,
    "pca": principal_components,
    "pulse": pulse,
    **{f"projection-{step}": ablation(step) for step in "abcdef"},
    "supervised": supervised,
    "esrgan": esrgan,
    "biharmonic": untrained.biharmonic,
    "telea": untrained.telea,
    "navier-stokes": untrained.navier_stokes,
}
FINISHES: dict[str, Callable[[Setting, Tensor, Tensor, nn.Module], Tensor]] = {
    "blend": blended,
    "consistency": made_consistent,
    "orthogonal": orthogonal,
}
BLEND, ALONE = "map+blend+consistency", "map+consistency"
OURS = (BLEND, ALONE, "map+blend", "map+blend+orthogonal")
"""Our own chains: the MAP, blended with the linear-Gaussian mean and projected, which is nearer to the truth in squared
error; without the blend, as `reconstruct_slices` and the population prior alone do, which is sharper; without the
projection; and with the orthogonal one."""

TRAINED = ("pca", "supervised")
ONCE = "4"
"""The factor at which alone the slow ones and the one that has a single factor are asked, unless they are named."""


def known(name: str) -> str:
    """The name itself, a chain of known parts. Raises UsageError for another."""
    method, *finishes = name.split("+")
    if method not in METHODS or any(finish not in FINISHES for finish in finishes):
        names = ", ".join(METHODS)
        raise UsageError(f"--methods {name}: is none of {names}, nor one of these with +{' or +'.join(FINISHES)}")
    return name


def unavailable(name: str, perceptual: bool) -> str | None:
    """Reason why a method cannot run on this machine, a line; None if it can. `perceptual`: LPIPS has its weights."""
    method = known(name).split("+")[0]
    if method.startswith("projection") and not perceptual:
        return f"--methods {method}: needs weights for LPIPS (brgm-med doctor tells how to get them)"
    try:
        if method == "esrgan":
            network()
        elif method in untrained.NEEDS:
            untrained.needed(method)
    except UsageError as error:
        return str(error)
    return None


def default_methods(problem: Problem, channels: int = 1) -> list[str]:
    """The methods that are asked of a problem when none are named."""
    hole = problem.task == "inpaint"
    learned = _and_consistent(*(["pca"] if channels == 1 else []), *([] if hole else ["supervised"]))
    if hole:
        return [*OURS, "biharmonic", "telea", "navier-stokes", "tv", *learned]
    if problem.task == "shift":
        return [*OURS[:2], *_and_consistent("cubic"), *learned]
    methods = [*OURS, *_and_consistent("nearest", "cubic", "lanczos"), "tv", *learned]
    if problem.task == "sr" and problem.level in ("4", "8"):
        methods.append("pulse")
    if problem.task == "sr" and problem.level == ONCE:
        methods += [*_and_consistent("esrgan"), "dip", *(f"projection-{step}" for step in "abcdef")]
    return methods


def _and_consistent(*methods: str) -> list[str]:
    return [name for method in methods for name in (method, f"{method}+consistency")]


@dataclass(frozen=True)
class Result:
    """A method's images [N, C, H, W], and what they cost for all of them: seconds, and bytes of memory at the peak."""

    images: Tensor
    seconds: float
    memory: int | None


def reconstructions(names: Sequence[str], setting: Setting, y: Tensor, corruption: nn.Module) -> dict[str, Result]:
    """The result of every method in `names`. What is common to several is computed once, and counted for each."""
    results: dict[str, Result] = {}

    def result(chain: str) -> Result:
        if chain not in results:
            before, _, last = chain.rpartition("+")
            start = result(before) if before else None
            begun = time.perf_counter()
            with peak() as bytes_above:
                if start is None:
                    images = METHODS[last](setting)(y, corruption)
                else:
                    images = FINISHES[last](setting, start.images, y, corruption)
            seconds, memory = time.perf_counter() - begun, bytes_above()
            if start is not None:
                seconds += start.seconds
                memory = max(memory, start.memory) if memory is not None and start.memory is not None else None
            results[chain] = Result(images.float(), seconds, memory)
        return results[chain]

    return {name: result(known(name)) for name in names}
