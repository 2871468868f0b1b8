"""The second half of the demo: a lesion-sized hole in the demo head, filled. `make demo` runs this after the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.seams import blend_seamless

CENTRE, RADIUS = (28.0, -20.0, 26.0), 14.0
"""Of the hole, world mm: in the demo head's right parietal lobe."""


def cut_hole(head: Path, cut: Path, mask: Path) -> None:
    """Write the head without a ball of `RADIUS` (0 in its place), and the mask that says so."""
    image = nib.nifti1.load(head)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), -1)
    world = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    ball = np.linalg.norm(world - CENTRE, axis=-1) < RADIUS
    values = np.asarray(image.dataobj).copy()
    values[ball] = 0
    nib.nifti1.save(nib.nifti1.Nifti1Image(values, image.affine, image.header), cut)
    nib.nifti1.save(nib.nifti1.Nifti1Image(ball.astype(np.uint8), image.affine), mask)


def compare(head: Path, cut: Path, mask: Path, ours: Path, picture: Path) -> str:
    """Draw hole, interpolation from the rim, ours, truth; say what the errors are, and that nothing else changed."""
    truth, holed, filled = (torch.from_numpy(nib.nifti1.load(p).get_fdata()) for p in (head, cut, ours))
    hole = torch.from_numpy(np.asarray(nib.nifti1.load(mask).dataobj) > 0)
    if not torch.equal(filled[~hole], holed[~hole]):
        raise RuntimeError("voxels outside the hole changed")
    membrane = blend_seamless(holed, torch.zeros_like(holed), hole)
    draw({"hole": holed, "interpolated": membrane, "ours": filled, "truth": truth}, hole, picture)
    errors = {name: float((v - truth)[hole].square().mean().sqrt()) for name, v in (("a", membrane), ("b", filled))}
    return (
        f"{int(hole.sum())} voxels filled, {int((~hole).sum())} others unchanged. Root mean square error inside: "
        f"{errors['b']:.1f}; interpolation from the rim {errors['a']:.1f}; the truth's standard deviation there "
        f"{float(truth[hole].std()):.1f}."
    )


def draw(images: dict[str, Tensor], hole: Tensor, path: Path) -> None:
    """The images [X, Y, Z] through the hole's middle, a coronal and an axial row."""
    mpl.use("Agg")
    from matplotlib import pyplot

    middle = [int(axis.float().mean().round()) for axis in hole.nonzero(as_tuple=True)]
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "coronal": lambda v: v[:, middle[1]].flip(1).T,
        "axial": lambda v: v[:, :, middle[2]].flip(1).T,
    }
    top = float(images["truth"].quantile(0.995))
    figure, axes = pyplot.subplots(2, len(images), figsize=(11, 5.8), layout="constrained", facecolor="black")
    for row, (view, pick) in zip(axes, views.items(), strict=True):
        for axis, (name, volume) in zip(row, images.items(), strict=True):
            axis.imshow(pick(volume), cmap="gray", vmin=0, vmax=top)
            axis.set_axis_off()
            if view == "coronal":
                axis.set_title(name, color="white", fontsize=11)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
