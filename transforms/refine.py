"""Pose and bias field of a scan, fitted to the prior's image of it: a few Gauss-Newton steps on some of its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.bias_field import TERMS, LogBiasField, terms
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile, stack_grid
from brgm_med.transforms.template import Pose

SAMPLES = 40_000
STEPS = 3
HEAD = 0.2
MARGIN = 4.0
"""Samples are used where the prior's head is brighter than this (air 0, brain 1), so many voxels inside the box."""

MOVE_MM, TURN_DEGREES, LOG_FACTOR = 2.0, 1.5, 0.15
"""Expected errors of a registration's shift and rotation and of the log of the bias field: standard deviations."""

IDENTIFIED = 0.5
"""A parameter is identified where the scan leaves less than this part of its expected deviation."""

MOVES = ("shift R", "shift A", "shift S", "turn R", "turn A", "turn S")


@dataclass(frozen=True)
class Refined:
    """`pose` and `bias_field` as fitted; `moved_mm` and `turned_degrees` from where the pose was; `unidentified`: names
    of parameters that the scan hardly determines; `residual`: root mean square before and after, normalised units."""

    pose: Pose
    bias_field: LogBiasField
    moved_mm: float
    turned_degrees: float
    unidentified: tuple[str, ...]
    residual: tuple[float, float]


def refine(
    stack: Tensor,
    box: Grid,
    measured: Tensor,
    scan: Grid,
    model: AcquisitionModel,
    pose: Pose,
    bias_field: LogBiasField,
    noise: float,
    used: Tensor | None = None,
) -> Refined:
    """The pose and bias field under which slices `stack` [Y, 1, Z, X] of `box` best give `measured` [1, X', Y', Z'].

    Both normalised (air -1, brain 0), `measured` with its bias field; the search starts from `pose` and `bias_field`.
    Minimised is the squared difference over `noise` (its standard deviation), plus the squares of all changes over what
    is expected of them. At most `SAMPLES` of the scan's samples inside the head are used, chosen at random with a fixed
    seed; `used` [X', Y', Z'] bool: of these only. The fit is never worse than the start. Deterministic.
    """
    volume, source = stack.movedim(1, 0), stack_grid(box)
    everywhere = oblique_profile(model, scan, source, pose)
    head = everywhere.spread(everywhere.samples(volume) + 1)[0] > HEAD
    known = torch.ones_like(head) if used is None else used
    inside = (head & known & everywhere.covered(MARGIN)).flatten().nonzero()[:, 0]
    picked = inside[torch.randperm(len(inside), generator=torch.Generator().manual_seed(0))[:SAMPLES]].sort().values
    chosen = torch.zeros(head.numel(), dtype=torch.bool).index_fill(0, picked, True).reshape(head.shape)
    target = measured.flatten()[picked].double().numpy() + 1
    at = torch.stack(torch.unravel_index(picked, head.shape), -1).double()
    expected = np.asarray([MOVE_MM] * 3 + [TURN_DEGREES] * 3 + [LOG_FACTOR] * len(TERMS))

    def predict(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Intensities (air 0) of the samples under parameters x, and their derivatives by the bias field's."""
        there = pose @ moved(x[:6])
        intensity = (oblique_profile(model, scan, source, there, chosen).samples(volume)[0] + 1).double().numpy()
        to_template = torch.from_numpy(np.linalg.inv(there) @ scan.affine)
        basis = terms(at @ to_template[:3, :3].T + to_template[:3, 3]).numpy()
        biased = np.exp(basis @ (bias_field.coefficients + x[6:])) * intensity
        return biased, basis * biased[:, None]

    def cost(x: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
        return float(np.sum((target - predicted) ** 2) / noise**2 + np.sum((x / expected) ** 2))

    x = np.zeros(len(expected))
    predicted, basis = predict(x)
    before = now = cost(x, predicted)
    first = float(np.sqrt(np.mean((target - predicted) ** 2)))
    hessian = np.diag(expected**-2)
    for _ in range(STEPS):
        moves = 0.25 * np.eye(6, len(x))
        jacobian = np.column_stack([*((predict(x + m)[0] - predict(x - m)[0]) / 0.5 for m in moves), basis])
        hessian = jacobian.T @ jacobian / noise**2 + np.diag(expected**-2)
        slope = jacobian.T @ (target - predicted) / noise**2 - x / expected**2
        trial = x + np.linalg.solve(hessian, slope)
        there, there_basis = predict(trial)
        if not cost(trial, there) < now:
            break
        x, predicted, basis, now = trial, there, there_basis, cost(trial, there)
    left = np.sqrt(np.diag(np.linalg.inv(hessian))) / expected
    names = (*MOVES, *(f"bias field {name}" for name in TERMS))
    last = float(np.sqrt(np.mean((target - predicted) ** 2))) if now < before else first
    return Refined(
        pose @ moved(x[:6]),
        LogBiasField(bias_field.coefficients + x[6:]),
        float(np.linalg.norm(x[:3])),
        float(np.linalg.norm(x[3:6])),
        tuple(name for name, part in zip(names, left, strict=True) if part > IDENTIFIED),
        (first, last),
    )


def moved(x: NDArray[np.float64]) -> Pose:
    """A rigid change of the pose on the template's side: shifts (mm), then a rotation vector (degrees), [6]."""
    return make_affine(Rotation.from_rotvec(x[3:6], degrees=True).as_matrix(), x[:3])
