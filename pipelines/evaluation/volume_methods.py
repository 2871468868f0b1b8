"""Methods that reconstruct whole volumes, by name, and the rows that one head gives."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from brgm_med.consistency import certificate, project
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.console import say
from brgm_med.pipelines.evaluation.measure import Job, keep, tools
from brgm_med.pipelines.evaluation.memory import peak
from brgm_med.pipelines.evaluation.subjects import Subject
from brgm_med.pipelines.evaluation.table import Row
from brgm_med.pipelines.evaluation.volumes import Case, Judge, turned_case
from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan
from brgm_med.pipelines.reconstruct.registration import error_covariance
from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
from brgm_med.priors.bundle import PriorBundle
from brgm_med.search import VOLUME, Search
from brgm_med.transforms.acquire import fine_grid, interpolate
from brgm_med.transforms.geometry import Grid

LEVELS = ("4", "6", "8")
"""Slice thicknesses, mm, when none are named."""

SCORED = (
    "Heads in Gaussian slices along S, turned by 5 to 15 degrees about each axis. Every image is resampled once, by a "
    "cubic B-spline, to the truth's grid, and scored inside the scan's field of view less a slice."
)
"""The measurement and its scores, for the report."""

COLUMNS = ("PSNR", "SSIM", "LPIPS", "LPIPS vgg", "RMSE", "MAE", "hole PSNR", "residual", "seconds", "MB")


@dataclass(frozen=True)
class Finer:
    """An `image` [1, X, Y, Z] on `grid`; `residual`: |A x - y| / |y - mean(y)| of the scan, None where that is not
    the method's aim."""

    image: Tensor
    grid: Grid
    residual: float | None = None


Baseline = Callable[[Case], Finer]
VolumeMethod = Callable[[Case, PriorBundle, Search], Finer]


def finer_grid(case: Case) -> Grid:
    """The grid of results: the scan's axes, isotropic at its in-plane spacing."""
    plane = min(s for a, s in enumerate(case.coarse.spacing) if a != case.axis)
    return fine_grid(case.coarse, (plane,) * 3)


def cubic(case: Case) -> Finer:
    """The scan as it is: it is resampled once, onto the truth's grid, as every result is."""
    return Finer(case.scan, case.coarse)


def projected(orthogonal: bool) -> Baseline:
    """Cubic interpolation made consistent with the scan, orthogonally or weighted by the prior's covariance."""

    def method(case: Case) -> Finer:
        fine = finer_grid(case)
        corruption = case.model.corruption(fine, case.coarse)
        start = interpolate(case.scan, case.coarse, fine)
        image = project(start, corruption, case.scan, None if orthogonal else error_covariance(fine))
        residual = certificate(image, corruption, case.scan, corruption.inside(case.coarse.shape))
        return Finer(image, fine, residual["relative_residual"])

    return method


def reconstructed(own: bool, population: bool) -> VolumeMethod:
    """By the scan's own prior, by the population prior, or by both, as `brgm-med sr` does."""

    def method(case: Case, prior: PriorBundle, search: Search) -> Finer:
        scan = Scan(case.scan, case.coarse, case.model, case.noise, case.name)
        result = reconstruct_volume(scan, prior if population else None, own=own, search=search)
        return Finer(result.image, result.grid, residual_of(result))

    return method


def residual_of(result: Reconstruction) -> float:
    """Relative residual of a result at its first scan."""
    scan = result.measurements[0]
    return float(certificate(result.image, scan.operator, scan.values, scan.inside)["relative_residual"])


def unlearned(baseline: Baseline) -> VolumeMethod:
    """A baseline as a method, which needs no prior."""
    return lambda case, _prior, _search: baseline(case)


METHODS: dict[str, VolumeMethod] = {
    "cubic": unlearned(cubic),
    "cubic+consistency": unlearned(projected(orthogonal=False)),
    "cubic+orthogonal": unlearned(projected(orthogonal=True)),
    "self": reconstructed(own=True, population=False),
    "population": reconstructed(own=False, population=True),
    "brgm": reconstructed(own=True, population=True),
}


def known(task: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """The methods named, of a task on whole volumes; None: all. Raises UsageError for another."""
    for name in names or ():
        if name not in METHODS:
            raise UsageError(f"--methods {name}: --task {task} has {', '.join(METHODS)}")
    return tuple(names or METHODS)


def thickness_of(level: str) -> float:
    """Millimetres. Raises UsageError for what is no such number."""
    try:
        if 0 < (thickness := float(level)) < float("inf"):
            return thickness
    except ValueError:
        pass
    raise UsageError(f"--levels {level}: give a slice thickness in mm")


def measure_volume(job: Job, search: Search = VOLUME) -> list[Row]:
    """A row for every method, of one head; without scores where the method refuses the scan."""
    asked, name = job.asked, job.source.path.name
    bundle, models = tools(asked.prior, asked.lpips_weights)
    seed = zlib.crc32(f"{asked.seed} {name}".encode())
    case = turned_case(name, job.source.path, seed, thickness_of(job.level))
    judge, images, rows = Judge(case, models), {"truth": case.truth[0]}, []
    about = {"task": asked.task, "level": job.level, "subject": name, "image": "0"}
    for method in job.methods:
        row = about | {"method": method} | dict.fromkeys(COLUMNS, "")
        rows.append(row)
        begun = time.perf_counter()
        try:
            with peak() as bytes_above:
                result = METHODS[method](case, bundle, search)
        except InputRefusedError as error:
            say(f"{method} refuses {error}")
            continue
        seconds, memory = time.perf_counter() - begun, bytes_above()
        images[method] = judge.on_truth(result.image, result.grid)
        values = judge.scores(images[method]) | {"residual": result.residual}
        row |= {score: f"{value:.9g}" for score, value in values.items() if value is not None}
        row |= {"seconds": f"{seconds:.4f}", "MB": "" if memory is None else f"{memory / 1e6:.1f}"}
    if job.keep is not None:
        index = tuple(range(0, len(judge.slices(case.truth[0])), asked.every))
        subject = Subject(name, case.truth, index, judge.window)
        keep(job.keep, subject, {m: upright(judge, image)[list(index)] for m, image in images.items()})
    return rows


def upright(judge: Judge, image: Tensor) -> Tensor:
    """Slices [N, 1, H, W] of an image [X, Y, Z], superior on top."""
    grid, stack = judge.case.grid, judge.slices(image)
    vertical = grid.index_axis(2)
    rest = [a for a in range(3) if a != judge.across]
    if rest.index(vertical) == 1:
        stack = stack.transpose(2, 3)
    return stack.flip(2) if grid.affine[2, vertical] > 0 else stack
