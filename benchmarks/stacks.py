"""What a clinical stack costs: `brgm-med sr` of 256 x 256 x N voxels at an angle, and the same scan's model two ways.

    python benchmarks/stacks.py

The head is the shipped template. Seconds and peak memory are of the whole command, in a process of its own; N slices
share one field of view, so that the output grid is the same and the likelihood alone grows with N. The second table: an
application of A and its adjoint to a volume whose axes the scan shares, separable and by points.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.priors.bundle import load
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import acquire_turned, oblique_profile, turned
from brgm_med.transforms.simulate import thick_slices
from brgm_med.transforms.template import load_template

FIELD = (230.4, 230.4, 150.0)
ANGLES = (7.0, -4.0, 5.0)


def stack(slices: int, path: Path) -> float:
    """Write a stack of so many slices of the template to `path`; returns its slice thickness, mm."""
    template = load_template(load())
    spacing = np.asarray([FIELD[0] / 256, FIELD[1] / 256, FIELD[2] / slices])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = template.box.corners().mean(0) - (np.asarray(FIELD) - spacing) / 2
    grid = turned(Grid((256, 256, slices), affine), ANGLES)
    model = AcquisitionModel((float(spacing[0]), float(spacing[1]), float(spacing[2])), "gaussian", 2, True)
    image = acquire_turned(1000 * template.image, template.grid, grid, model)
    nib.nifti1.save(nib.nifti1.Nifti1Image(image[0].numpy(), grid.affine), path)
    return float(spacing[2])


def seconds(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """An application and its adjoint, the best of three."""
    best = np.inf
    for _ in range(3):
        begun = time.monotonic()
        start = x.clone().requires_grad_(True)
        f(start).sum().backward()
        best = min(best, time.monotonic() - begun)
    return float(best)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[15, 30, 60, 120])
    options = parser.parse_args(arguments)
    command = Path(sys.executable).with_name("brgm-med")
    print("| slices | seconds | GB |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for slices in sorted(options.slices):  # the peak is that of all commands so far
            scan = Path(folder) / f"{slices}.nii.gz"
            thickness = stack(slices, scan)
            stated = ["--slice-thickness", f"{thickness:g}", "--profile", "gaussian", "--noise", "0"]
            begun = time.monotonic()
            subprocess.run([command, "sr", "--in", scan, *stated], check=True, stderr=subprocess.DEVNULL)
            took = time.monotonic() - begun
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"| {slices} | {took:.0f} | {peak:.2f} |", flush=True)

    grid = Grid((128, 128, 120), np.diag([2.0, 2.0, 2.0, 1.0]))
    coarse, model = thick_slices(grid, "S", 6.0, profile="gaussian")
    x = torch.randn(1, *grid.shape, generator=torch.Generator().manual_seed(0))
    separable, points = model.corruption(grid, coarse), oblique_profile(model, coarse, grid)
    a, b = seconds(separable, x), seconds(points, x)
    print(f"\nA and its adjoint, 128 x 128 x 120 to 40 slices: separable {a * 1e3:.0f} ms, by points {b * 1e3:.0f} ms.")


if __name__ == "__main__":
    main()
