"""The template: the mean of many rigidly aligned heads, the box that a prior covers, and a bulk-brain mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.priors.bundle import PriorBundle
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid

Pose = NDArray[np.float64]
"""A rigid 4 x 4 matrix: template world (RAS mm) -> scan world (RAS mm)."""

BOX_SHAPE = (96, 61, 80)
TEMPLATE_SHAPE = (104, 120, 112)
SPACING = 2.0
VERTEX_BELOW_EDGE = 8.0
NEAR, WIDE, BRAIN_MARGIN = 14.0, 25.0, 4.0
AIR_LEVEL, AIR_MARGIN = 0.03, 8.0


def centred_grid(shape: tuple[int, int, int], spacing: float, centre: tuple[float, float, float]) -> Grid:
    """The RAS+ grid of `shape` voxels of `spacing` mm whose middle lies at world `centre` (mm)."""
    first = np.asarray(centre) - spacing * (np.asarray(shape) - 1) / 2
    return Grid(shape, make_affine(spacing * np.eye(3), first))


@dataclass(frozen=True, eq=False)
class Template:
    """`image` [1, X, Y, Z] on `grid` (RAS+, air 0, mean of the brain 1), `mask` of the same shape (0 or 1: the bulk
    of the brain), and `box`, the grid that a prior's slices live on. The box is centred on world (0, 0, 0)."""

    image: Tensor
    mask: Tensor
    grid: Grid
    box: Grid

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        """[X, Y, Z]: within 14 mm of the bulk of the brain, so about as far as the scalp."""
        return ndi.distance_transform_edt(self.mask[0].numpy() == 0, self.grid.spacing) < NEAR

    @cached_property
    def wide(self) -> NDArray[np.bool_]:
        """[X, Y, Z]: within 25 mm of the bulk of the brain, so with the scalp and some air."""
        return ndi.distance_transform_edt(self.mask[0].numpy() == 0, self.grid.spacing) < WIDE

    @cached_property
    def air(self) -> NDArray[np.bool_]:
        """[X, Y, Z]: more than 8 mm from the head."""
        head = self.image[0].numpy() > AIR_LEVEL
        return np.asarray(ndi.distance_transform_edt(~head, self.grid.spacing) > AIR_MARGIN)

    @cached_property
    def without_skull(self) -> Template:
        """The brain alone: air beyond 4 mm from its bulk."""
        brain = ndi.distance_transform_edt(self.mask[0].numpy() == 0, self.grid.spacing) <= BRAIN_MARGIN
        return replace(self, image=self.image * torch.from_numpy(brain))

    @classmethod
    def load(cls, folder: Path, box: Grid) -> Template:
        """Read `template.nii.gz` and `mask.nii.gz` of `folder`. Raises PriorError when one is unreadable."""
        parts = []
        for name in ("template.nii.gz", "mask.nii.gz"):
            try:
                parts.append(nib.nifti1.load(folder / name))
                values = [torch.from_numpy(p.get_fdata(dtype=np.float32))[None] for p in parts]
            except Exception as error:
                raise PriorError(f"{folder / name}: cannot be read ({error}); reinstall the prior") from error
        return cls(values[0], values[1], Grid.of(values[0], np.asarray(parts[0].affine, np.float64)), box)

    def save(self, folder: Path) -> None:
        """Write `template.nii.gz` (uint8, scaled: steps of 1/255 of its range) and `mask.nii.gz` into `folder`."""
        for name, values in (("template", self.image[0].numpy()), ("mask", self.mask[0].to(torch.uint8).numpy())):
            image = nib.nifti1.Nifti1Image(values, self.grid.affine)
            image.header.set_data_dtype(np.uint8)
            image.header.set_xyzt_units("mm")
            nib.nifti1.save(image, folder / f"{name}.nii.gz")

    def trimmed(self, margin: int = 6) -> Template:
        """Crop the planes of air that lie more than `margin` voxels from the head and outside the box."""
        corners = (self.box.corners() - self.grid.affine[:3, 3]) / self.grid.affine.diagonal()[:3]
        cut = [slice(None)]
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            used = np.nonzero(((self.image[0].numpy() > AIR_LEVEL).sum(others)) > 20)[0]
            first = min(used[0] - margin, int(np.floor(corners[:, axis].min())))
            last = max(used[-1] + margin, int(np.ceil(corners[:, axis].max())))
            cut.append(slice(max(0, int(first)), min(self.image.shape[axis + 1], int(last) + 1)))
        start = make_affine(np.eye(3), [c.start for c in cut[1:]])
        image, mask = (t[tuple(cut)].contiguous() for t in (self.image, self.mask))
        return Template(image, mask, Grid.of(image, self.grid.affine @ start), self.box)


def brain_mask(image: NDArray[np.float32], spacing: float, vertex: int) -> NDArray[np.bool_]:
    """The bulk of the brain in a mean T1 head, [X, Y, Z] RAS+ with its vertex at index `vertex` along Z.

    Threshold between cerebrospinal fluid and grey matter, erosion until the scalp lets go, the component nearest
    to 60 mm below the vertex, dilation back. Only for intensity scales: it is no skull stripping.
    """
    depth = vertex - np.arange(image.shape[2])
    window = (depth * spacing < 120) & (depth > 0)
    bright = image > 0.5 * np.percentile(image[..., window], 97)
    eroded = ndi.binary_erosion(bright & window, iterations=round(6 / spacing))
    labels, count = ndi.label(eroded)
    if count == 0:
        raise ValueError("no brain found in the mean image: are these heads?")
    largest = 1 + int(np.argmax(ndi.sum_labels(eroded, labels, range(1, count + 1))))
    core = ndi.binary_dilation(labels == largest, iterations=round(4 / spacing))
    return ndi.binary_fill_holes(core & bright)


def vertex_index(image: NDArray[np.float32]) -> int:
    """Index along Z (superior) of the highest plane that holds scalp: 20 voxels above a quarter of the 97th
    percentile."""
    counts = (image > 0.25 * np.percentile(image, 97)).sum((0, 1))
    return int(np.nonzero(counts > 20)[0].max())


def centred(image: Tensor, grid: Grid) -> tuple[Template, Pose]:
    """A mean head as a template, and the translation [4, 4] from the new world to the image's.

    The box: x = 0 stays; along S the vertex lies 8 mm below the upper edge; along A the middle of the brain mask.
    """
    values = image[0].numpy()
    top = vertex_index(values)
    mask = brain_mask(values, grid.spacing[0], top)
    along = np.nonzero(mask.any((0, 2)))[0]
    middle = grid.affine[1, 3] + grid.spacing[1] * (along[0] + along[-1]) / 2
    upper = grid.affine[2, 3] + grid.spacing[2] * (top + 0.5) + VERTEX_BELOW_EDGE
    shift = make_affine(np.eye(3), (0.0, middle, upper - SPACING * BOX_SHAPE[2] / 2))
    moved = Grid(grid.shape, np.linalg.inv(shift) @ grid.affine)
    inside = torch.from_numpy(mask.astype(np.float32))[None]
    scaled = image / image[inside > 0].mean()
    return Template(scaled, inside, moved, centred_grid(BOX_SHAPE, SPACING, (0, 0, 0))), shift


def load_template(prior: PriorBundle) -> Template:
    """The template of a prior, with the box that its slices live on.

    Raises PriorError where it is unreadable, and for a prior of pictures, which has none.
    """
    box = Grid(prior.grid_shape, np.asarray(prior.metadata["grid"]["affine"], np.float64))
    return Template.load(prior.folder, box)
