"""A head made of smooth ellipsoids, drawn exactly at any pose on any grid. World (0, 0, 0): mid-brain."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.template import BOX_SHAPE, SPACING, Template, centred_grid

# Centre (R, A, S) and half axes, mm, and the value that the inside takes; later ones are drawn over earlier ones.
PARTS = (
    ((0, -8, -110), (50, 55, 70), 0.5),  # neck
    ((0, 75, -60), (14, 22, 16), 0.6),  # nose
    ((0, 0, -10), (78, 98, 84), 0.9),  # scalp
    ((0, 0, -5), (72, 92, 76), 0.1),  # skull
    ((0, 0, 0), (66, 84, 66), 0.75),  # cortex
    ((0, 0, 0), (55, 70, 54), 1.15),  # white matter
    ((0, -50, -48), (44, 28, 22), 0.85),  # cerebellum
    ((0, -22, -66), (12, 14, 34), 1.1),  # brain stem
    ((-12, 4, 10), (7, 32, 12), 0.25),  # ventricles
    ((12, 4, 10), (7, 32, 12), 0.25),
    ((-24, 8, 0), (10, 16, 12), 0.8),  # deep grey matter
    ((24, 8, 0), (10, 16, 12), 0.8),
    ((0, 0, 50), (2, 82, 20), 0.3),  # fissure
    ((-32, 78, -38), (13, 13, 13), 0.2),  # eyes
    ((32, 78, -38), (13, 13, 13), 0.2),
)


def head(grid: Grid, pose: NDArray[np.float64] | None = None, edge: float = 2.0) -> Tensor:
    """[1, X, Y, Z]: the head seen on `grid`; `pose` maps the head's own world to the grid's. Edges: `edge` mm soft."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    to_head = np.linalg.inv(np.eye(4) if pose is None else pose) @ grid.affine
    points = index @ to_head[:3, :3].T + to_head[:3, 3]
    values = np.zeros(grid.shape)
    for centre, axes, level in PARTS:
        radius = np.linalg.norm((points - centre) / np.asarray(axes), axis=-1)
        depth = (1 - radius) * min(axes) / edge
        values += (level - values) / (1 + np.exp(-np.clip(2 * depth, -50, 50)))
    return torch.from_numpy(values.astype(np.float32))[None]


@cache
def template() -> Template:
    """The head as its own template, with the box of the shipped prior."""
    grid = centred_grid((52, 56, 46), 2 * SPACING, (0, 0, -2))
    image = head(grid)
    box = centred_grid(BOX_SHAPE, SPACING, (0, 0, 0))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    points = index * 2 * SPACING + grid.affine[:3, 3]
    mask = torch.from_numpy((np.linalg.norm(points / (62, 80, 62), axis=-1) < 1).astype(np.float32))[None]
    return Template(image / image[mask > 0].mean(), mask, grid, box)


def inside_brain(grid: Grid) -> NDArray[np.bool_]:
    """[X, Y, Z]: inside the phantom's cortex, cerebellum or brain stem."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    within = [np.linalg.norm((points - np.asarray(c)) / np.asarray(a), axis=-1) < 1 for c, a, _ in PARTS[4:8]]
    return np.any(within, axis=0)


def rigid(pitch: float, yaw: float, roll: float, shift: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotations about R, S and A (degrees) and a translation (mm), [4, 4]."""
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xzy", [pitch, yaw, roll], degrees=True).as_matrix()
    pose[:3, 3] = shift
    return pose
