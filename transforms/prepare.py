"""A folder of heads -> a template and the normalised coronal stacks that a prior is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.formats import FORMATS, for_reading
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.intensity import estimate
from brgm_med.transforms.register import resample_cubic, rigid_pose
from brgm_med.transforms.slices import coronal_stack
from brgm_med.transforms.template import Pose, Template


def heads_in(folder: Path) -> list[Path]:
    """The scans in `folder` and below, sorted by name. Raises InputRefusedError where there are none."""
    if not folder.is_dir():
        raise InputRefusedError(f"{folder}: is not a folder; give a folder of NIfTI heads")
    found = sorted((p for p in folder.rglob("*") if p.name.endswith(tuple(FORMATS))), key=lambda p: p.name)
    if not found:
        raise InputRefusedError(f"{folder}: holds no scan ({', '.join(FORMATS)}); give a folder of NIfTI heads")
    return found


class Heads(Sequence[tuple[Tensor, Grid]]):
    """Scans as ([1, X, Y, Z] float32, grid), each read when asked for. Raises InputRefusedError as the reader does."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Grid]:  # type: ignore[override]
        path = self.paths[index]
        scan = for_reading(path).read(path)
        return torch.from_numpy(scan.array)[None], Grid(scan.header.shape, scan.affine)


def normalised_stack(image: Tensor, grid: Grid, template: Template, pose: Pose) -> Tensor:
    """A head [1, X, Y, Z] as normalised coronal slices on the template's box, [Y, 1, Z, X]."""
    normalisation = estimate(image, grid, template, pose)
    registered = resample_cubic(image, grid, template.box, pose, normalisation.low)
    return coronal_stack(normalisation.forward(registered))


def prepare_stacks(
    heads: Heads, template: Template, progress: Callable[[str], None]
) -> tuple[NDArray[np.float16], list[Pose], list[float]]:
    """Normalised stacks [heads, Y, 1, Z, X] (float16), the poses and the correlations with the template.

    Raises InputRefusedError, naming the file, for a head that does not register.
    """
    stacks, poses, correlations = [], [], []
    for i, (image, grid) in enumerate(heads):
        try:
            pose, correlation = rigid_pose(image, grid, template)
            stacks.append(normalised_stack(image, grid, template, pose).half().numpy())
        except InputRefusedError as error:
            raise InputRefusedError(f"{heads.paths[i]}: {error}; take it out of the folder") from error
        poses.append(pose)
        correlations.append(correlation)
        progress(f"registered {i + 1} of {len(heads)} heads")
    return np.stack(stacks), poses, correlations
