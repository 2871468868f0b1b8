"""Whole heads in thick slices of a turned scanner, and scores of reconstructions against the truth: one resampling
each, one mask, one window for every method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from brgm_med.metrics import lpips, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.transforms.acquire import AcquisitionModel, respaced
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.oblique import acquire_turned, turned
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.register import resample_cubic
from brgm_med.transforms.simulate import thick_slices

SIGNAL = 0.1
"""The head is where the truth exceeds this part of its maximum."""

EDGE = 3
"""Pixels of the scan, at each edge of its planes, that are not judged; of its slices it is one."""


@dataclass
class Case:
    """`truth` [1, X, Y, Z] on `grid`; `scan` of it on `coarse`; the noise's standard deviation in its intensities."""

    name: str
    truth: Tensor
    grid: Grid
    scan: Tensor
    coarse: Grid
    model: AcquisitionModel
    noise: float = 0.0

    @property
    def axis(self) -> int:
        """The scan's slice axis."""
        assert self.model.axis is not None
        return self.model.axis


def turned_case(name: str, path: Path, seed: int, thickness: float = 6.0, world: str = "S") -> Case:
    """The head at `path` in Gaussian slices of `thickness` mm along `world`, by a scanner that is turned by 5 to 15
    degrees about each axis. Square pixels. Raises UsageError where no such slice fits, InputRefusedError as the reader
    does."""
    ((truth, grid),) = Heads([path])
    finest = sorted(grid.spacing)[1]
    shape = tuple(int(n * s / finest + 1e-6) for n, s in zip(grid.shape, grid.spacing, strict=True))
    coarse, model = thick_slices(respaced(grid, (finest,) * 3, shape), world, thickness, profile="gaussian")
    random = np.random.default_rng(seed)
    degrees = random.uniform(5, 15, 3) * random.choice([-1, 1], 3)
    coarse = turned(coarse, degrees)
    return Case(name, truth, grid, acquire_turned(truth, grid, coarse, model), coarse, model)


def inside(case: Case) -> Tensor:
    """Voxels of the truth in the scan's field of view less a slice, and in the box of its signal, [X, Y, Z] bool."""
    core = torch.zeros(1, *case.coarse.shape)
    margin = [1 if a == case.axis else EDGE for a in range(3)]
    x, y, z = (slice(m, -m) for m in margin)
    core[0, x, y, z] = 1
    mask = resample(core, case.coarse, case.grid)[0] > 0.99
    box = torch.zeros_like(mask)
    box[bounds(case.truth[0] > SIGNAL * float(case.truth.max()))] = True
    return mask & box


def bounds(mask: Tensor) -> tuple[slice[int], ...]:
    """The smallest box of a mask [X, Y, Z] that is True somewhere."""
    index = mask.nonzero()
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(index.min(0).values, index.max(0).values, strict=True))


class Judge:
    """Scores of images on the truth's grid. `models`: perceptual distances by the name of their score.

    `mask` [X, Y, Z]: see `inside`; `window`: the truth's 0.5th and 99.5th percentile in there, `span` its width; `box`:
    the smallest that holds the mask; `across`: the axis of the slices that are looked at, coronal ones, or sagittal
    ones where the scan's are coronal.
    """

    def __init__(self, case: Case, models: Mapping[str, LPIPS]) -> None:
        self.case, self.models, self.mask = case, models, inside(case)
        truth = case.truth[0]
        low, high = torch.quantile(truth[self.mask][::20].double(), torch.tensor([0.005, 0.995]).double()).tolist()
        self.window, self.span = (low, high), high - low
        self.box = bounds(self.mask)
        self.across = case.grid.index_axis(0 if case.coarse.world_axis(case.axis) == 1 else 1)

    def on_truth(self, image: Tensor, own: Grid) -> Tensor:
        """[1, X, Y, Z] on a method's `own` grid -> on the truth's grid [X, Y, Z], by one cubic B-spline."""
        grid = self.case.grid
        if np.allclose(own.affine, grid.affine, atol=1e-3):
            result = torch.zeros(grid.shape)
            shape = [min(a, b) for a, b in zip(own.shape, grid.shape, strict=True)]
            corner = tuple(slice(0, n) for n in shape)
            result[corner] = image[0][corner]
            return result
        return resample_cubic(image, own, grid)[0]

    def psnr(self, error: float) -> float:
        """Decibels of a mean square error."""
        return float(10 * np.log10(self.span**2 / error))

    def mean(self, product: Tensor) -> float:
        """Over the mask, of [X, Y, Z]."""
        return float(product[self.mask].double().mean())

    def slices(self, image: Tensor) -> Tensor:
        """Slices through the scan's own, [N, 1, H, W], of an image [X, Y, Z]; the truth outside the mask."""
        shown = torch.where(self.mask, image, self.case.truth[0])
        return shown[self.box].movedim(self.across, 0)[:, None]

    def pictures(self, image: Tensor) -> dict[str, float]:
        """SSIM, and LPIPS under each model's name: means over every second slice."""
        seen, true = (self.slices(v)[4:-4:2] for v in (image, self.case.truth[0]))
        distances = {name: float(lpips(seen, true, self.window, model).mean()) for name, model in self.models.items()}
        return {"SSIM": float(ssim(seen, true, self.span).mean()), **distances}

    def scores(self, image: Tensor) -> dict[str, float]:
        """Every score of an image [X, Y, Z] on the truth's grid; RMSE and MAE where the window is 0 to 255."""
        error = image - self.case.truth[0]
        square, absolute = self.mean(error.square()), self.mean(error.abs())
        errors = {"RMSE": 255 * math.sqrt(square) / self.span, "MAE": 255 * absolute / self.span}
        return {"PSNR": self.psnr(square), **self.pictures(image), **errors}

    def statement(self) -> str:
        """The interpolator, the mask and the scores, in words."""
        case, axis = self.case, self.case.axis
        edges = " x ".join(f"{s * (1 if a == axis else EDGE):.3g}" for a, s in enumerate(case.coarse.spacing))
        plane = "coronal" if case.grid.world_axis(self.across) == 1 else "sagittal"
        name = " and LPIPS (AlexNet)" if self.models else ""
        return (
            "Every method's image is resampled once, by a cubic B-spline from its own grid to the truth's. Scored are "
            f"{int(self.mask.sum())} voxels: the scan's field of view less {edges} mm at its edges (a slice; {EDGE} "
            f"pixels), in the box that holds all of the head over {100 * SIGNAL:g} % of its maximum. SSIM{name}: means "
            f"over every second {plane} slice, the truth outside. Window: the truth's 0.5th to 99.5th percentile there."
        )
