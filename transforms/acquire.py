"""The scanner's sampling as a value: a fine grid, a coarse one, and the slice profile between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from brgm_med.corruptions import Profile, SliceProfile, along, profile_inside, profile_matrix
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid

WORLD = "RAS"
SAME = 1e-3
"""Two spacings that differ by less than this fraction are one."""

CLEARLY = 1.2
"""The slice axis is that of the largest spacing only where this is larger than the next by this factor."""


Lengths = tuple[float, float, float]
"""In mm along a grid's index axes."""


def respaced(grid: Grid, spacing: Sequence[float], shape: Sequence[int]) -> Grid:
    """A grid with the axes and the first edges of `grid`, but that `spacing` (mm, index axes) and `shape`."""
    columns = grid.affine[:3, :3] / np.asarray(grid.spacing) * np.asarray(spacing)
    origin = grid.affine[:3, 3] + 0.5 * (columns - grid.affine[:3, :3]).sum(1)
    x, y, z = shape
    return Grid((x, y, z), make_affine(columns, origin))


def replaced(lengths: Lengths, axis: int, length: float) -> Lengths:
    """`lengths`, but that along `axis`."""
    x, y, z = (length if a == axis else old for a, old in enumerate(lengths))
    return x, y, z


def fine_grid(coarse: Grid, finest: Lengths) -> Grid:
    """The grid of the result: the scan's axes and first edges, its spacing or `finest`, the smaller.

    `finest` in mm along the scan's index axes. Enough voxels to cover the whole scan: ceil(n s_c / s_f). A
    scan's spacing within 0.1 % of `finest` is kept as it is, so that such an axis is left alone.
    """
    spacing, shape = list(coarse.spacing), list(coarse.shape)
    for axis, (n, s, f) in enumerate(zip(coarse.shape, coarse.spacing, finest, strict=True)):
        if s > f * (1 + SAME):
            spacing[axis], shape[axis] = f, int(np.ceil(n * s / f - 1e-6))
    return respaced(coarse, spacing, shape)


@dataclass(frozen=True)
class AcquisitionModel:
    """The weights of each sample of a scan: a profile along every index axis of the scan.

    `thickness`: mm along the index axes (box width, or a Gaussian's full width at half maximum). `profile`
    holds along `axis`, the slice axis; in-plane, and everywhere when `axis` is None, the profile is a box.
    `stated` says whether a person or a sidecar said so, or the header's spacing was taken for it. `offsets`: of each
    slice along `axis` from its even place, mm; empty where there are none.
    """

    thickness: Lengths
    profile: Profile = "box"
    axis: int | None = None
    stated: bool = False
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in ("box", "gaussian", "trapezoid"):
            raise UsageError(f"unknown slice profile {self.profile!r}: use box, gaussian or trapezoid")
        if self.profile != "box" and self.axis is None:
            raise UsageError(f"a {self.profile} profile needs a slice axis")
        if not all(np.isfinite(t) and t > 0 for t in self.thickness):
            raise UsageError(f"slice thickness {self.thickness} mm: it must be positive")

    def profile_along(self, axis: int) -> Profile:
        """The profile along an index axis: `profile` across the slices, a box elsewhere."""
        return self.profile if axis == self.axis else "box"

    @classmethod
    def from_header(cls, grid: Grid) -> AcquisitionModel:
        """Assumed: every sample averages its own voxel."""
        return cls(grid.spacing)

    @classmethod
    def from_flags(
        cls,
        grid: Grid,
        thickness: float | None = None,
        gap: float | None = None,
        profile: Profile = "box",
        world: str | None = None,
        axis: int | None = None,
    ) -> AcquisitionModel:
        """Stated by a person: slices of `thickness` mm, or the slice spacing less `gap` mm, along one axis.

        The slice axis is `world` (R, A or S), else the index axis `axis`, else that of the largest spacing. Raises
        UsageError where that is not clearly one, or where thickness and gap do not add up to the slice spacing (1 %).
        """
        if world is not None:
            axis = index_axis(grid, world)
        axis = coarsest_axis(grid) if axis is None else axis
        if axis is None:
            spacings = " x ".join(f"{s:.4g}" for s in grid.spacing)
            raise UsageError(
                f"no single axis has clearly the largest spacing ({spacings} mm): state the slice axis (--slice-axis)"
            )
        spacing = grid.spacing[axis]
        if thickness is None:
            thickness = spacing - (gap or 0.0)
        elif gap is not None and abs(thickness + gap - spacing) > 0.01 * spacing:
            raise UsageError(f"slice thickness {thickness:g} + gap {gap:g} mm is not the scan's spacing {spacing:g} mm")
        return cls(replaced(grid.spacing, axis, thickness), profile, axis, True)

    def to_sidecar(self, grid: Grid) -> dict[str, Any]:
        """Entries for a JSON file beside the scan on `grid`; keyed by world axes: its index axes may be reordered."""
        axes = [WORLD[grid.world_axis(a)] for a in range(3)]
        offsets = (
            {} if self.axis is None or not self.offsets else {"Offsets": list(_upward(self.offsets, grid, self.axis))}
        )
        return {
            "BrgmMedAcquisition": {
                "Thickness": {axes[a]: self.thickness[a] for a in range(3)},
                "Spacing": {axes[a]: grid.spacing[a] for a in range(3)},
                "SliceAxis": None if self.axis is None else axes[self.axis],
                "Profile": self.profile,
                **offsets,
            }
        }

    @classmethod
    def from_sidecar(cls, sidecar: Mapping[str, Any], grid: Grid, name: str = "the sidecar") -> AcquisitionModel | None:
        """The model that `to_sidecar` wrote; None when the sidecar has none.

        Raises InputRefusedError when the entry is damaged or was written for another spacing (0.1 %) than the
        grid's; `name` is the file's name in that message.
        """
        entry = sidecar.get("BrgmMedAcquisition")
        if entry is None:
            return None
        try:
            axes = [WORLD[grid.world_axis(a)] for a in range(3)]
            spacing = [float(entry["Spacing"][a]) for a in axes]
            x, y, z = (float(entry["Thickness"][a]) for a in axes)
            slice_axis = entry["SliceAxis"]
            axis = None if slice_axis is None else axes.index(slice_axis)
            offsets = tuple(float(offset) for offset in entry.get("Offsets", ()))
            if offsets and (axis is None or len(offsets) != grid.shape[axis]):
                raise ValueError(f"{len(offsets)} offsets")
            offsets = offsets if axis is None else _upward(offsets, grid, axis)
            model = cls((x, y, z), cast(Profile, entry["Profile"]), axis, True, offsets)
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            raise InputRefusedError(f"{name}: BrgmMedAcquisition is damaged ({error!r}): mend or remove it") from error
        if not np.allclose(spacing, grid.spacing, rtol=SAME, atol=0):
            raise InputRefusedError(
                f"{name}: its spacing {spacing} mm is not the scan's {grid.spacing} mm: mend or remove it"
            )
        return model

    def corruption(self, fine: Grid, coarse: Grid) -> SliceProfile:
        """A: images on `fine` -> samples on `coarse`; both share axes and first edges (else ValueError).

        An axis with the same voxels on both, and slices no thicker than they, is measured as it is.
        """
        expected = respaced(coarse, fine.spacing, fine.shape)
        if not np.allclose(expected.affine, fine.affine, rtol=0, atol=1e-3):
            raise ValueError("acquisition: the grids do not share their axes and first edges")
        axes: list[tuple[Tensor | None, Tensor | None]] = []
        for axis in range(3):
            n_f, n_c = fine.shape[axis], coarse.shape[axis]
            s_f, s_c, t = fine.spacing[axis], coarse.spacing[axis], self.thickness[axis]
            offsets = self.offsets if axis == self.axis else ()
            if n_f == n_c and abs(s_f - s_c) <= 1e-6 * s_c and t <= s_c * (1 + SAME) and not offsets:
                axes.append((None, None))
            else:
                sampling = n_f, s_f, n_c, s_c, t, self.profile_along(axis), offsets
                axes.append((profile_matrix(*sampling), profile_inside(*sampling)))
        return SliceProfile(*zip(*axes, strict=True))


def _upward(offsets: tuple[float, ...], grid: Grid, axis: int) -> tuple[float, ...]:
    """Offsets of slices along R, A or S from those along an index axis, and back: equal, or from the other end."""
    if grid.affine[grid.world_axis(axis), axis] >= 0:
        return offsets
    return tuple(-offset for offset in reversed(offsets))


def interpolate(y: Tensor, coarse: Grid, fine: Grid) -> Tensor:
    """Cubic B-spline of `y` [C, X', Y', Z'] onto `fine`, [C, X, Y, Z] in y's dtype: the baseline.

    Both grids have the same axes and first edges. The image is mirrored at its edges; no value is clipped.
    """
    x = y.as_subclass(Tensor).double()
    for axis in range(3):
        n_f, n_c = fine.shape[axis], coarse.shape[axis]
        ratio = fine.spacing[axis] / coarse.spacing[axis]
        if n_f == n_c and abs(ratio - 1) <= 1e-6:
            continue
        position = ((np.arange(n_f) + 0.5) * ratio - 0.5)[None]
        columns = [map_coordinates(unit, position, order=3, mode="reflect") for unit in np.eye(n_c)]
        x = along(x, torch.from_numpy(np.stack(columns, 1)), axis - 3)
    return x.to(y.dtype)


def coarsest_axis(grid: Grid) -> int | None:
    """The index axis of clearly the largest spacing; None: there is none."""
    *_, second, first = np.argsort(grid.spacing)
    return int(first) if grid.spacing[first] > CLEARLY * grid.spacing[second] else None


def index_axis(grid: Grid, world: str) -> int:
    if world not in tuple(WORLD):
        raise UsageError(f"axis {world!r}: use R, A or S")
    return grid.index_axis(WORLD.index(world))
