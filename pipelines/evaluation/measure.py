"""One subject and one problem: measured, reconstructed by every method, and compared with the truth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from brgm_med.corruptions import Mask
from brgm_med.errors import PriorError
from brgm_med.metrics import lpips, mae, psnr, rmse, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.methods import Result, reconstructions
from brgm_med.pipelines.evaluation.problems import Problem, problem_at
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.pipelines.evaluation.subjects import EVERY, Range, Source, Subject
from brgm_med.pipelines.evaluation.supervised import IMAGES
from brgm_med.pipelines.evaluation.table import Row
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.priors import DEFAULT
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.weights import Net, lpips_features, lpips_heads

Models = dict[str, LPIPS]
"""Perceptual distances by the name of their score, of those whose weights are there."""

NETS: dict[str, Net] = {"LPIPS": "alex", "LPIPS vgg": "vgg"}
COSTS = ("residual", "seconds", "MB")
"""|A x - y| over |y - mean(y)| of the image; of an image, on one core; of all images at once, at the peak."""

SHOWN = 3
"""Of the first so many subjects, pictures are kept."""


@dataclass(frozen=True)
class Evaluation:
    """The options of an evaluation.

    `levels` and `methods` None: the defaults of the task. `subjects` and `train` are ranges of the data's sorted file
    names; baselines that learn are trained on `train`, unless they are in `baselines` already.
    """

    data: Path
    out: Path
    task: str = "sr"
    prior: str = DEFAULT
    levels: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    subjects: Range = (None, None)
    train: Range | None = None
    baselines: Path | None = None
    images: int = IMAGES
    trained: str = "sr-4"
    every: int = EVERY
    shown: int = SHOWN
    workers: int = 1
    seed: int = 0
    lpips_weights: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of trained baselines."""
        return self.baselines or self.out / "baselines"


@dataclass(frozen=True)
class Job:
    """The work of one process: `methods` at one level, for one subject. `keep`: where pictures of the results go; None
    for nowhere."""

    asked: Evaluation
    source: Source
    level: str
    methods: tuple[str, ...]
    keep: Path | None


def measure(job: Job) -> list[Row]:
    """A row for every image and method."""
    asked = job.asked
    bundle, models = tools(asked.prior, asked.lpips_weights)
    subject = job.source.load(bundle, asked.every)
    problem = problem_of(asked.task, job.level, bundle, asked.trained)
    truth = problem.truth(subject.images)
    seed = zlib.crc32(f"{asked.seed} {subject.name}".encode())
    y = problem.measure(truth, seed)
    _, c, h, w = truth.shape
    alex = models.get("LPIPS")
    setting = Setting(bundle, (c, h, w), subject.index, problem.trained_for, asked.folder, alex, problem.noise, seed)
    results = reconstructions(job.methods, setting, y, problem.corruption)
    rows = []
    for method, result in results.items():
        entries = scores(result, truth, y, problem.corruption, subject.window, models)
        about = {"task": asked.task, "level": job.level, "subject": subject.name}
        for number, position in enumerate(subject.index):
            row = about | {"image": str(position), "method": method}
            rows.append(row | {name: values[number] for name, values in entries.items()})
    if job.keep is not None:
        shown = {method: result.images for method, result in results.items()} | {"truth": truth}
        if isinstance(problem.corruption, Mask):
            shown["measured"] = y.where(problem.corruption.mask, torch.tensor(-1.0))
        keep(job.keep, subject, shown)
    return rows


def scores(
    result: Result, truth: Tensor, y: Tensor, corruption: nn.Module, window: tuple[float, float], models: Models
) -> dict[str, list[str]]:
    """Every score and cost of each image, as the table holds it: empty where there is none."""
    image, span = result.images, window[1] - window[0]
    error = (corruption(image.double()) - y.double()).flatten(1).norm(dim=1)
    size = (y - y.flatten(1).mean(1).reshape(-1, 1, 1, 1)).double().flatten(1).norm(dim=1)
    distances = {name: lpips(image, truth, window, model) for name, model in models.items()}
    hidden = ~corruption.mask if isinstance(corruption, Mask) else None
    values = {
        "PSNR": psnr(image, truth, span),
        "SSIM": ssim(image, truth, span),
        **{name: distances.get(name) for name in NETS},
        "RMSE": rmse(image, truth, span),
        "MAE": mae(image, truth, span),
        "hole PSNR": None if hidden is None else psnr(image[..., hidden], truth[..., hidden], span),
        "residual": error / size,
    }
    cells = {name: [""] * len(image) if v is None else [f"{float(x):.9g}" for x in v] for name, v in values.items()}
    cells["seconds"] = [f"{result.seconds / len(image):.4f}"] * len(image)
    cells["MB"] = ["" if result.memory is None else f"{result.memory / 1e6:.1f}"] * len(image)
    return cells


def problem_of(task: str, level: str, bundle: PriorBundle, trained: str = "sr-4") -> Problem:
    """One problem, for the images of a prior."""
    return problem_at(task, level, bundle.image_shape, bundle.spacing if bundle.volumetric else None, trained)


def keep(folder: Path, subject: Subject, images: dict[str, Tensor]) -> None:
    """Write each method's images to `folder`/method/subject_position.png, the subject's window being 0 to 255."""
    low, high = subject.window
    for method, stack in images.items():
        (folder / method).mkdir(parents=True, exist_ok=True)
        for position, image in zip(subject.index, stack, strict=True):
            levels = ((image - low) * (255 / (high - low))).clamp(0, 255).round().byte().numpy()
            picture = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
            picture.save(folder / method / f"{subject.name.split('.')[0]}_{position}.png")


@cache
def tools(prior: str, weights: Path | None) -> tuple[PriorBundle, Models]:
    """The prior and the perceptual distances, which all jobs of one process share."""
    set_up_torch(1)
    return load(prior), perceptual(weights)


def perceptual(weights: Path | None = None) -> Models:
    """LPIPS with AlexNet and with VGG16, where their weights are: in the file `weights`, if it holds them, or where
    `brgm-med doctor` finds them."""
    models = {}
    for name, net in NETS.items():
        with suppress(PriorError):
            models[name] = LPIPS(net, lpips_features(net, weights), lpips_heads(net))
    return models
