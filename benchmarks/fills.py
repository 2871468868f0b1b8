"""Spherical holes in whole heads of every contrast, filled: by `inpaint`, with and without its texture, and by others.

    python benchmarks/fills.py --data ../shared/data [--which validation|test] [--only TEXT] [--prior NAME|DIR]

A hole of 20 and one of 40 mm in the right half of each brain. PSNR in the hole, on the range from the scan's 0.5th to
its 99.5th percentile; LPIPS (AlexNet) of the box around it and 8 voxels more, in the coronal slices through it, axial
ones for scans of axial slices, enlarged to at least 64 pixels; gradient: root mean square inside the hole, as a part of
the truth's there: below 1, the fill is smoother than what it replaces.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from brgm_med.corruptions import Mask
from brgm_med.metrics import lpips
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.untrained import filled
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.hole import inpaint_volume
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.priors import DEFAULT
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.seams import blend_seamless
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads
from self_prior_measure import perceptual

SIZES = (20.0, 40.0)
FROM_CENTRE = (30.0, -10.0, 20.0)
"""Of the hole, from the centre of mass of the head, mm RAS."""

HEAD = 0.3
"""The head is what exceeds this part of the upper end of the range."""

PER_SLICE = ("biharmonic", "telea", "navier-stokes")


def paths(data: Path, which: str) -> Iterator[Path]:
    other, brains = (("05", "06"), (36, 37)) if which == "validation" else (("07", "08", "09"), (40, 41))
    thick = ("01", "05") if which == "validation" else other
    yield from (data / "heads-ds000011" / f"sub-{s}_T1w.nii.gz" for s in other)
    yield from sorted((data / "brains-ds002748").glob("*_T1w.nii.gz"))[brains[0] : brains[1]]
    yield from (data / "heads-ds000011" / f"sub-{s}_T2w.nii.gz" for s in thick)
    if which == "test":
        yield from sorted((data / "brain-4contrast").glob("*.nii.gz"))


def ball(grid: Grid, centre: np.ndarray, size: float) -> Tensor:
    world = np.argwhere(np.ones(grid.shape, bool)) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return torch.from_numpy((np.linalg.norm(world - centre, axis=1) < size / 2).reshape(grid.shape))


def sliced(image: Tensor, axis: int, which: list[int], box: tuple[slice, ...]) -> Tensor:
    """Slices [N, 1, H, W] of an image [X, Y, Z] in a box, enlarged to at least 64 pixels."""
    rest = tuple(b for a, b in enumerate(box) if a != axis)
    part = image.movedim(axis, 0)[which][(slice(None), *rest)][:, None]
    return interpolate(part, scale_factor=max(1, -(-64 // min(part.shape[2:]))), mode="nearest")


def by_slices(truth: Tensor, hole: Tensor, axis: int, window: tuple[float, float], method: str) -> Tensor:
    """The slices with a hole, each filled by a classical method; values on [-1, 1], as these methods take them."""
    low, high = window
    image, holes = truth.movedim(axis, 0).clone(), hole.movedim(axis, 0)
    for index in holes.flatten(1).any(1).nonzero()[:, 0].tolist():
        values = (image[index][None, None] - low) / (high - low) * 2 - 1
        answer = filled(values, Mask(~holes[index]), method)[0, 0]
        image[index] = torch.where(holes[index], (answer + 1) / 2 * (high - low) + low, image[index])
    return image.movedim(0, axis)


def gradient(image: Tensor, where: Tensor, spacing: tuple[float, ...]) -> float:
    steps = np.gradient(image.double().numpy(), *spacing)
    return float(np.sqrt(sum(s[where.numpy()] ** 2 for s in steps).mean()))


def rows(path: Path, size: float, prior: PriorBundle, model: LPIPS) -> Iterator[str]:
    ((truth, grid),) = Heads([path])
    low, high = torch.quantile(truth.flatten()[::20].double(), torch.tensor([0.005, 0.995]).double()).tolist()
    middle = np.asarray(ndi.center_of_mass(truth[0].numpy() > HEAD * high))
    hole = ball(grid, grid.affine[:3, :3] @ middle + grid.affine[:3, 3] + np.asarray(FROM_CENTRE), size)
    scan = Scan(truth, grid, AcquisitionModel(grid.spacing, stated=True), 0.0, path.name)
    result = inpaint_volume(scan, hole, prior)
    assert result.population is not None
    rim = blend_seamless(truth, torch.zeros_like(truth), hole, grid.spacing)[0]
    thick = max(grid.spacing) > 1.5 * min(grid.spacing)
    axis = int(np.argmax(grid.spacing)) if thick else grid.index_axis(1)
    images = {"rim (harmonic)": rim}
    images |= {name: by_slices(truth[0], hole, axis, (low, high), name) for name in PER_SLICE}
    images["ours without texture"] = blend_seamless(truth, result.unprojected, hole, grid.spacing)[0]
    images["ours"] = result.image[0]
    box = ndi.find_objects(ndi.binary_dilation(hole.numpy(), iterations=8).astype(np.int8))[0]
    through = hole.movedim(axis, 0).flatten(1).any(1).nonzero()[:, 0].tolist()
    inner = torch.from_numpy(ndi.binary_erosion(hole.numpy()))
    yield f"\n{path.name}, {size:g} mm: b {result.population.weight:.2f}, {result.population.reason}\n"
    yield "| method | PSNR | LPIPS | gradient |\n|---|---|---|---|"
    for name, image in images.items():
        error = float((image - truth[0])[hole].square().mean())
        shown, true = (sliced(x, axis, through, box) for x in (image, truth[0]))
        distance = float(lpips(shown, true, (low, high), model).mean())
        steep = gradient(image, inner, grid.spacing) / gradient(truth[0], inner, grid.spacing)
        yield f"| {name} | {10 * np.log10((high - low) ** 2 / error):.2f} | {distance:.4f} | {steep:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("validation", "test"), default="validation")
    parser.add_argument("--only", default="", help="scans whose name has this in it")
    parser.add_argument("--prior", default=DEFAULT)
    options = parser.parse_args()
    set_up_torch(1)
    prior, model = load(options.prior), perceptual(options.data.parent / "weights" / "alexnet_features_fp16.pth")
    for path in paths(options.data, options.which):
        for size in SIZES if options.only in path.name else ():
            for line in rows(path, size, prior, model):
                print(line, flush=True)


if __name__ == "__main__":
    main()
