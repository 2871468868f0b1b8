"""Scores of reconstructions against the truth: one resampling each, one mask, one window for every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brgm_med.metrics import lpips, ssim
from brgm_med.perceptual import LPIPS
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.register import resample_cubic

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


def inside(case: Case) -> Tensor:
    """Voxels of the truth in the scan's field of view less a slice, and in the box of its signal, [X, Y, Z] bool."""
    core = torch.zeros(1, *case.coarse.shape)
    margin = [1 if a == case.axis else EDGE for a in range(3)]
    core[0][tuple(slice(m, -m) for m in margin)] = 1
    mask = resample(core, case.coarse, case.grid)[0] > 0.99
    signal = (case.truth[0] > SIGNAL * float(case.truth.max())).nonzero()
    low, high = signal.min(0).values, signal.max(0).values + 1
    box = torch.zeros_like(mask)
    box[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True
    return mask & box


class Judge:
    """Scores of images on the truth's grid. `mask` [X, Y, Z]: see `inside`; `window`: the truth's 0.5th and 99.5th
    percentile in there; `box`: the smallest that holds the mask; `across`: the axis of the slices that are looked at,
    coronal ones, or sagittal ones where the scan's are coronal."""

    def __init__(self, case: Case, model: LPIPS | None) -> None:
        self.case, self.lpips, self.mask = case, model, inside(case)
        truth = case.truth[0]
        low, high = torch.quantile(truth[self.mask][::20].double(), torch.tensor([0.005, 0.995]).double()).tolist()
        self.window = (low, high)
        index = self.mask.nonzero()
        self.box = tuple(
            slice(int(a), int(b) + 1) for a, b in zip(index.min(0).values, index.max(0).values, strict=True)
        )
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
        return float(10 * np.log10((self.window[1] - self.window[0]) ** 2 / error))

    def mean(self, product: Tensor) -> float:
        return float(product[self.mask].double().mean())

    def scores(self, image: Tensor) -> dict[str, float]:
        """PSNR (dB) of the voxels in the mask of an image [X, Y, Z] on the truth's grid, and `pictures`."""
        return {"psnr": self.psnr(self.mean((image - self.case.truth[0]).square()))} | self.pictures(image)

    def pictures(self, image: Tensor) -> dict[str, float]:
        """SSIM, and LPIPS where there is a model: means over every second slice, the truth outside the mask."""
        seen = torch.where(self.mask, image, self.case.truth[0])
        a, b = (v[self.box].movedim(self.across, 0)[4:-4:2, None] for v in (seen, self.case.truth[0]))
        found = {"ssim": float(ssim(a, b, self.window[1] - self.window[0]).mean())}
        if self.lpips is not None:
            found["lpips"] = float(lpips(a, b, self.window, self.lpips).mean())
        return found

    def statement(self) -> str:
        """The interpolator, the mask and the scores, in words."""
        case, axis = self.case, self.case.axis
        edges = " x ".join(f"{s * (1 if a == axis else EDGE):.3g}" for a, s in enumerate(case.coarse.spacing))
        plane = "coronal" if case.grid.world_axis(self.across) == 1 else "sagittal"
        name = "" if self.lpips is None else " and LPIPS (AlexNet)"
        return (
            "Every method's image is resampled once, by a cubic B-spline from its own grid to the truth's. Scored are "
            f"{int(self.mask.sum())} voxels: the scan's field of view less {edges} mm at its edges (a slice; {EDGE} "
            f"pixels), in the box that holds all of the head over {100 * SIGNAL:g} % of its maximum. SSIM{name}: means "
            f"over every second {plane} slice, the truth outside. Window: the truth's 0.5th to 99.5th percentile there."
        )
