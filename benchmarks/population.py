"""The training set of the shipped brain prior, and its training.

    python benchmarks/population.py prepare --data ../shared/data --run ~/brgm-train/population [--workers 2]
    python benchmarks/population.py train --run ~/brgm-train/population --kimg 2000 [--start resume/FILE] [--batch 16]

`prepare` registers the training and validation heads of four sources to the template of `brain-t1-coronal`, samples
them on the prior's grid (1.5 mm, 128 x 120 x 112 voxels RAS), and writes `sources.safetensors`,
`validation.safetensors`, `template.nii.gz`, `mask.nii.gz` and `prepared.json` into the run. Finer scans are sampled at
0.75 mm and averaged over 2 x 2 x 2, coarser ones interpolated; `SOURCES` states what each scanner saw. `train` goes on
from `state.pt`, else from a snapshot (`--start`: of this grid, or of the 80 x 96 grid of version 0.1, whose weights are
carried over).
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

from brgm_med.files import digest
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.run import lpips_distance
from brgm_med.priors.bundle import DEFAULT, load
from brgm_med.training import loop
from brgm_med.training.inference import measure_inference
from brgm_med.training.loop import Recipe
from brgm_med.training.measure import measure_sources
from brgm_med.training.sources import Source, Sources, acquisition_kernel, packed
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.intensity import estimate
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.register import find_pose, resample_cubic, similarity
from brgm_med.transforms.slices import coronal_stack
from brgm_med.transforms.template import Pose, Template, centred_grid, load_template

SPACING, SHAPE = 1.5, (128, 120, 112)
BOX = centred_grid(SHAPE, SPACING, (0.0, 0.0, 0.0))
FINE = centred_grid((256, 240, 224), SPACING / 2, (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Scanner:
    """Where a source's heads are, how many train and validate, and what its voxels average and their steps along S and
    R (mm), as ../shared/data/README.md states them."""

    pattern: str
    train: int
    validate: int
    share: float
    true_mm: tuple[float, float]
    step_mm: tuple[float, float]
    stripped: bool = False


SOURCES = {
    "ixi": Scanner("ixi-hh-2mm/t1/*.nii.gz", 120, 15, 0.7, (2.0, 2.0), (2.0, 2.0)),
    "ds000011": Scanner("heads-ds000011/*_T1w.nii.gz", 4, 2, 0.15, (1.35, 1.35), (1.33, 1.0)),
    "ds002748": Scanner("brains-ds002748/*_T1w.nii.gz", 36, 4, 0.15, (1.65, 1.0), (1.0, 1.0), stripped=True),
    "labels": Scanner("labels-synthseg/training_seg_*.nii.gz", 16, 2, 0.0, (0.0, 0.0), (0.0, 0.0)),
}
"""Shares of real contrasts alone. With the labels' (0.2) and random intensity maps (0.3) a prior of 150,000 images
reached every slice (35.2 dB by all latent inputs on IXI), and knew less: in holes of 20 mm of two validation heads it
fell 1.0 and 1.6 dB behind that of version 0.1, whose W+ holds T1 alone."""

ARCHITECTURE = Architecture(base_shape=(7, 8))
RECIPE = Recipe(reconstruction_only=1 << 40, steady=120_000, information=6e-5)
"""Reconstruction alone: the generator that draws is another prior's."""

RIGHT = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 58: 26, 60: 28}
RIGHT |= {62: 30, 137: 136, 164: 163}
"""FreeSurfer's labels of the right side, and of the same on the left."""

FLUID = (4, 5, 14, 15, 24, 43, 44)
WHITE = (2, 7, 16, 28, 41, 46, 60)
GREY = (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58)
"""FreeSurfer's labels of cerebrospinal fluid, white and grey matter."""


@cache
def templates() -> tuple[Template, Template]:
    """The template with the new box: of whole heads, and of brains without skull."""
    whole = load_template(load(DEFAULT))
    whole = Template(whole.image, whole.mask, whole.grid, BOX)
    brain = ndi.binary_dilation(whole.mask[0].numpy() > 0, iterations=2)
    return whole, replace(whole, image=whole.image * torch.from_numpy(brain))


def boxed_out(values: np.ndarray) -> np.ndarray:
    """Where a face was cut out of `values` [X, Y, Z]: zeros in sheets of at least 5 x 5 voxels along any two axes."""
    zero = values == 0
    cut = np.zeros_like(zero)
    for axis in range(3):
        shape = [5, 5, 5]
        shape[axis] = 1
        cut |= ndi.binary_opening(zero, np.ones(shape, bool))
    return ndi.binary_dilation(cut, iterations=1)


def averaged(values: Tensor) -> Tensor:
    """[1, 2 X, 2 Y, 2 Z] -> the means of 2 x 2 x 2, [1, X, Y, Z]."""
    return torch.nn.functional.avg_pool3d(values[None], 2)[0]


def slices(volume: Tensor) -> Tensor:
    """[1, X, Y, Z] RAS -> coronal slices [Y, Z, X]."""
    return coronal_stack(volume)[:, 0].contiguous()


def of_image(path: Path, scanner: Scanner) -> tuple[Tensor, Pose, float]:
    """A head's slices, 8 bits [Y, H, W], its pose, and its correlation with the template."""
    values, grid = Heads([path])[0]
    whole, stripped = templates()
    template = stripped if scanner.stripped else whole
    pose = find_pose(values, grid, template)
    correlation = similarity(values, grid, template, pose)[0]
    known = torch.ones_like(values)
    if scanner.stripped:
        known = torch.from_numpy(ndi.binary_erosion(values[0].numpy() > 0)[None]).float()
    elif min(grid.spacing) < SPACING:
        known = torch.from_numpy(~boxed_out(values[0].numpy())[None]).float()
    normalisation = estimate(values, grid, template, pose)
    if min(grid.spacing) < SPACING:
        seen = averaged(resample_cubic(values, grid, FINE, pose, normalisation.low))
        inside = averaged(resample(known, grid, FINE, pose))
    else:
        seen = resample_cubic(values, grid, BOX, pose, normalisation.low)
        inside = resample(known, grid, BOX, pose)
    return packed(slices(normalisation.forward(seen)), slices(inside) > 0.99), pose, correlation


def of_labels(path: Path, scanner: Scanner) -> tuple[Tensor, Pose, float]:
    """A label map's slices [Y, 2 H, 2 W], compact labels, and the pose by an image drawn with T1's order."""
    image = nib.nifti1.load(path)
    labels = np.asarray(image.dataobj).astype(np.int64)
    grid = Grid(labels.shape, image.affine)
    compact, kinds = compact_labels(path.parent)
    means = np.where(np.isin(kinds, (1, 2, 3)), np.array([0.5, 0.2, 0.65, 1.0])[kinds], 0.5)
    means[0] = 0
    drawn = torch.from_numpy(means[compact[labels]].astype(np.float32))[None]
    pose = find_pose(drawn, grid, templates()[0])
    middle = centred_grid((256, 120, 224), SPACING / 2, (0.0, 0.0, 0.0))
    middle.affine[1, 1], middle.affine[1, 3] = SPACING, BOX.affine[1, 3]
    moved = resample(torch.from_numpy(compact[labels]).float()[None], grid, middle, pose, mode="nearest")
    return slices(moved).to(torch.uint8), pose, similarity(drawn, grid, templates()[0], pose)[0]


@cache
def compact_labels(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """From labels to 0, 1, 2, ..., and of each the kind of tissue (see `contrast.coloured`)."""
    known = np.load(folder / "generation_labels.npy")
    compact = np.zeros(int(known.max()) + 1, np.int64)
    compact[known] = np.arange(len(known))
    for right, left in RIGHT.items():  # both sides have one contrast
        compact[right] = compact[left]
    kinds = np.zeros(len(known), np.int64)
    for kind, names in ((1, FLUID), (2, GREY), (3, WHITE)):
        kinds[compact[list(names)]] = kind
    return compact, kinds


def one(path: Path, name: str) -> tuple[Tensor, Pose, float]:
    torch.set_num_threads(1)
    return (of_labels if name == "labels" else of_image)(path, SOURCES[name])


def prepare(data: Path, run: Path, workers: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run) as folder:
        with tarfile.open(data / "labels-synthseg.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        record: dict[str, Any] = {"grid": {"shape": list(BOX.shape), "affine": BOX.affine.tolist()}, "heads": {}}
        parts: dict[str, list[Source]] = {"sources": [], "validation": []}
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for name, scanner in SOURCES.items():
                paths = sorted((Path(folder) if name == "labels" else data).glob(scanner.pattern))
                paths = paths[: scanner.train + scanner.validate]
                stacks, entries = [], []
                for path, (stack, pose, correlation) in zip(
                    paths, pool.map(one, paths, [name] * len(paths)), strict=True
                ):
                    stacks.append(stack)
                    entry = {"name": path.name, "sha256": digest(path), "correlation": correlation}
                    entries.append(entry | {"pose": pose.tolist()})
                    print(f"{name}: {path.name}, correlation {correlation:.2f}", flush=True)
                rows, columns = zip(scanner.true_mm, scanner.step_mm, strict=True)
                kernels = (acquisition_kernel(*rows, SPACING), acquisition_kernel(*columns, SPACING))
                tissue = None
                if name == "labels":
                    tissue = torch.zeros(64, dtype=torch.uint8)
                    kinds = torch.from_numpy(compact_labels(Path(folder) / "labels-synthseg")[1])
                    tissue[: len(kinds)] = kinds.to(torch.uint8)
                ends = {"sources": slice(0, scanner.train), "validation": slice(scanner.train, None)}
                for part, chosen in ends.items():
                    parts[part].append(Source(name, scanner.share, kernels, stacks[chosen], tissue))
                record["heads"][name] = {part: entries[chosen] for part, chosen in ends.items()}
    for part, sources in parts.items():
        Sources(sources).save(run / f"{part}.safetensors", spacing=SPACING)
    templates()[0].save(run)
    (run / "prepared.json").write_text(json.dumps(record, indent=1) + "\n")


def carried(path: Path) -> dict[str, Tensor]:
    """The tensors of a snapshot of the 80 x 96 grid (base 5 x 6), for the present grid (base 7 x 8).

    Layers are renamed by their rows; the constant is interpolated, and so are the fully connected layers over the base
    shape, scaled so that they answer a smooth input as before.
    """
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
    renamed = {re.sub(r"b(\d+)(?=\.)", lambda m: f"b{int(m[1]) * 7 // 5}", k): v for k, v in tensors.items()}

    def resized(maps: Tensor) -> Tensor:
        return interpolate(maps.reshape(1, -1, 5, 6), (7, 8), mode="bilinear", align_corners=False)[0]

    const = renamed["generator.synthesis.b7.const"]
    renamed["generator.synthesis.b7.const"] = resized(const)
    ratio = (30 / 56) ** 0.5  # the gains, 1 / sqrt(inputs), take care of the other half
    fc = renamed["discriminator.b7.fc.weight"]
    renamed["discriminator.b7.fc.weight"] = resized(fc).reshape(len(fc), -1) * ratio
    weight = renamed["encoder.weight"]
    layers, _, w_dim = weight.shape
    turned = weight.reshape(layers, -1, 30, w_dim).permute(0, 1, 3, 2)
    sized = resized(turned).reshape(layers, -1, w_dim, 56).permute(0, 1, 3, 2)
    renamed["encoder.weight"] = sized.reshape(layers, -1, w_dim) * ratio
    return renamed


def started(path: Path, state: TrainState, folder: Path) -> None:
    """Start `state` from a snapshot of this grid or of that of version 0.1."""
    with safe_open(path, "pt") as file:
        old = "generator.synthesis.b5.const" in file.keys()  # noqa: SIM118 (no mapping)
    if not old:
        state.load_snapshot(path)
        return
    tensors = carried(path)
    fresh = {f"generator.{k}": v for k, v in state.generator.state_dict().items() if k.endswith("noise_const")}
    moved = folder / "carried.safetensors"
    save_file({k: v.contiguous() for k, v in (tensors | fresh).items()}, moved, {"iteration": "0", "images": "0"})
    state.load_snapshot(moved)


def train(run: Path, kimg: float, start: Path | None, batch: int, threads: int, lpips_weights: Path | None) -> None:
    set_up_torch(threads)
    loaded, validation = (Sources.load(run / f"{part}.safetensors") for part in ("sources", "validation"))
    sources = Sources([replace(s, share=SOURCES[s.name].share) for s in loaded.sources if SOURCES[s.name].share])
    whole = [source for source in sources.sources if not SOURCES[source.name].stripped]
    recipe = replace(RECIPE, batch=batch)
    state = TrainState.new(ARCHITECTURE, seed=recipe.seed, rate=recipe.rate)
    if (run / "state.pt").is_file():
        state.load(run / "state.pt")
    elif start is not None:
        started(start, state, run)
    features = lpips_distance(lpips_weights)
    few = validation.spread(8)

    def quality(now: TrainState) -> dict[str, float]:
        reached = measure_sources(now.average, now.average_encoder, validation, features)
        inferred = measure_inference(now.average, now.average_encoder, whole, validation)
        return {**reached, **inferred, "score": inferred["inference"]}

    loop.train(
        state,
        recipe,
        sources,
        run,
        images=int(kimg * 1000),
        perceptual=features,
        measure=quality,
        shown=(few.image, few.position),
        snapshot_every=1500.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing, training = commands.add_parser("prepare"), commands.add_parser("train")
    for command in (preparing, training):
        command.add_argument("--run", type=Path, required=True)
    preparing.add_argument("--data", type=Path, required=True)
    preparing.add_argument("--workers", type=int, default=2)
    training.add_argument("--kimg", type=float, required=True)
    training.add_argument("--start", type=Path)
    training.add_argument("--batch", type=int, default=16)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--lpips-weights", type=Path)
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.data, options.run, options.workers)
    else:
        train(options.run, options.kimg, options.start, options.batch, options.threads, options.lpips_weights)


if __name__ == "__main__":
    main()
