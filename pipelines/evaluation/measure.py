"""One subject and one problem: measured, reconstructed by every method, and compared with the truth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from brgm_med.corruptions import Mask
from brgm_med.errors import PriorError
from brgm_med.metrics import lpips, mae, psnr, rmse, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.methods import Result, reconstructions
from brgm_med.pipelines.evaluation.problems import Problem, problems
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.pipelines.evaluation.subjects import Source
from brgm_med.pipelines.evaluation.table import Row
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.weights import lpips_features, lpips_heads

COSTS = ("residual", "seconds", "MB")
"""|A x - y| over |y - mean(y)| of the image; of an image, on one core; of all images at once, at the peak."""


@dataclass(frozen=True)
class Job:
    """What a process needs to know. `keep`: where pictures of the results go; None for nowhere."""

    source: Source
    task: str
    level: str
    methods: tuple[str, ...]
    prior: str
    every: int
    baselines: Path
    trained: str
    weights: Path | None
    keep: Path | None
    seed: int


def measure(job: Job) -> list[Row]:
    """A row for every image and method."""
    bundle, alex, vgg = _tools(job.prior, job.weights)
    subject = job.source.load(bundle, job.every)
    problem = problem_of(job.task, job.level, bundle, job.trained)
    truth = problem.truth(subject.images)
    seed = zlib.crc32(f"{job.seed} {subject.name}".encode())
    y = problem.measure(truth, seed)
    setting = Setting(
        bundle,
        (truth.shape[1], truth.shape[2], truth.shape[3]),
        subject.index,
        problem.trained_for,
        job.baselines,
        alex,
        problem.noise,
        seed,
    )
    found = reconstructions(job.methods, setting, y, problem.corruption)
    rows = []
    for method, result in found.items():
        entries = scores(result, truth, y, problem, subject.window, alex, vgg)
        for number, place in enumerate(subject.index):
            row = {"task": job.task, "level": job.level, "subject": subject.name, "image": str(place), "method": method}
            rows.append(row | {name: values[number] for name, values in entries.items()})
    if job.keep is not None:
        shown = {method: result.images for method, result in found.items()}
        keep(job.keep, subject.name, subject.index, shown | {"truth": truth}, subject.window)
        if isinstance(problem.corruption, Mask):
            hidden = {"measured": y.where(problem.corruption.mask, torch.tensor(-1.0))}
            keep(job.keep, subject.name, subject.index, hidden, subject.window)
    return rows


def scores(
    result: Result,
    truth: Tensor,
    y: Tensor,
    problem: Problem,
    window: tuple[float, float],
    alex: LPIPS | None,
    vgg: LPIPS | None,
) -> dict[str, list[str]]:
    """Every score and cost of each image, as the table holds it: empty where there is none."""
    image, span = result.images, window[1] - window[0]
    error = (problem.corruption(image.double()) - y.double()).flatten(1).norm(dim=1)
    size = (y - y.flatten(1).mean(1).reshape(-1, 1, 1, 1)).double().flatten(1).norm(dim=1)
    found = {
        "PSNR": psnr(image, truth, span),
        "SSIM": ssim(image, truth, span),
        "LPIPS": None if alex is None else lpips(image, truth, window, alex),
        "LPIPS vgg": None if vgg is None else lpips(image, truth, window, vgg),
        "RMSE": rmse(image, truth, span),
        "MAE": mae(image, truth, span),
        "hole PSNR": None,
        "residual": error / size,
    }
    if isinstance(problem.corruption, Mask):
        hidden = ~problem.corruption.mask
        found["hole PSNR"] = psnr(image[..., hidden], truth[..., hidden], span)
    made = {name: [""] * len(image) if v is None else [f"{float(x):.9g}" for x in v] for name, v in found.items()}
    made["seconds"] = [f"{result.seconds / len(image):.4f}"] * len(image)
    made["MB"] = ["" if result.memory is None else f"{result.memory / 1e6:.1f}"] * len(image)
    return made


def problem_of(task: str, level: str, bundle: PriorBundle, trained: str = "sr-4") -> Problem:
    """One problem, for the images of a prior."""
    return problems(task, [level], bundle.image_shape, bundle.spacing if bundle.volumetric else None, trained)[0]


def keep(
    folder: Path, subject: str, index: Sequence[int], images: dict[str, Tensor], window: tuple[float, float]
) -> None:
    """Write each method's images to `folder`/method/subject_position.png, the window being 0 to 255."""
    for method, stack in images.items():
        (folder / method).mkdir(parents=True, exist_ok=True)
        for place, image in zip(index, stack, strict=True):
            levels = ((image - window[0]) * (255 / (window[1] - window[0]))).clamp(0, 255).round().byte().numpy()
            picture = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
            picture.save(folder / method / f"{subject.split('.')[0]}_{place}.png")


@cache
def _tools(prior: str, weights: Path | None) -> tuple[PriorBundle, LPIPS | None, LPIPS | None]:
    """What every job of one process shares."""
    set_up_torch(1)
    return load(prior), *perceptual(weights)


def perceptual(weights: Path | None = None) -> tuple[LPIPS | None, LPIPS | None]:
    """LPIPS with AlexNet and with VGG16, where their weights are: in the file `weights`, if it holds them, or where
    `brgm-med doctor` finds them; else None."""
    found: list[LPIPS | None] = []
    for net in ("alex", "vgg"):
        try:
            found.append(LPIPS(net, lpips_features(net, weights), lpips_heads(net)))
        except PriorError:
            found.append(None)
    return found[0], found[1]
