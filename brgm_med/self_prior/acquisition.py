"""A scan of parallel slices and the isotropic grid of its reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from brgm_med.corruptions import Profile, SliceProfile, along
from brgm_med.errors import InputRefusedError
from brgm_med.self_prior.thick_axis import ThickAxis

LEAST_STEP = 1.3
"""Slices must lie this many pixels apart, or the scan has nothing to teach."""

FEWEST_PIXELS = 32
"""Shortest side of a plane from which pairs are made."""

SHARP = 1.5
"""Pixels that are longer than the shortest by more than this factor have no fine detail to teach along that side."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """A scan of parallel slices: how each of its axes samples the isotropic grid of the reconstruction.

    The grid has the scan's axes and first edges and the finest in-plane spacing, `pixel` (mm). `axes`: one `ThickAxis`
    per axis of the scan, None where both grids agree; `axis`: the number of the slice axis.
    """

    axes: tuple[ThickAxis | None, ...]
    axis: int
    pixel: float

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float],
        axis: int,
        thickness: float | None = None,
        profile: Profile = "box",
    ) -> Acquisition:
        """Of a scan of that `shape` [X, Y, Z] and `spacing` (mm), slices along `axis` of `thickness` mm (None: the
        spacing). In plane, each pixel averages its own width. Raises InputRefusedError where the slices are no thicker
        than pixels or the planes are too small to learn from."""
        plane = [a for a in range(3) if a != axis]
        pixel = min(spacing[a] for a in plane)
        step = spacing[axis] / pixel
        if step < LEAST_STEP:
            raise InputRefusedError(
                f"slices every {spacing[axis]:g} mm and pixels of {pixel:g} mm: no thick slices, nothing to learn"
            )
        if min(shape[a] * spacing[a] / pixel for a in plane) < max(FEWEST_PIXELS, 4 * step):
            raise InputRefusedError(
                f"planes of {shape[plane[0]]} x {shape[plane[1]]} pixels are too small to learn from"
            )
        widths = [s / pixel for s in spacing]
        if thickness is not None:
            widths[axis] = thickness / pixel
        axes: list[ThickAxis | None] = []
        for a in range(3):
            ratio = spacing[a] / pixel
            if ratio <= 1 + 1e-3:
                axes.append(None)
                continue
            thin = int(-(-(shape[a] * ratio - 1e-6) // 1))
            axes.append(ThickAxis(thin, shape[a], ratio, widths[a], profile if a == axis else "box"))
        return cls(tuple(axes), axis, pixel)

    @property
    def thick(self) -> ThickAxis:
        """The slice axis."""
        thick = self.axes[self.axis]
        assert thick is not None
        return thick

    @property
    def corruption(self) -> SliceProfile:
        """A: images on the isotropic grid -> the scan."""
        return SliceProfile([None if a is None else a.matrix for a in self.axes])

    def base(self, scan: Tensor) -> Tensor:
        """Cubic interpolation made consistent, axis by axis: a scan [X', Y', Z'] on the isotropic grid, [X, Y, Z]."""
        for number, axis in enumerate(self.axes):
            if axis is not None:
                scan = along(scan, axis.base, number)
        return scan

    def planes(self, scan: Tensor) -> Tensor:
        """The scan's planes with isotropic pixels, [P, X, Y], P along the slices."""
        for number, axis in enumerate(self.axes):
            if axis is not None and number != self.axis:
                scan = along(scan, axis.base, number)
        return scan.movedim(self.axis, 0).contiguous()

    def views(self, planes: Tensor) -> list[Tensor]:
        """`planes` [P, X, Y] turned so that each sharp in-plane axis comes second once: what may be made thick."""
        ratios = [1.0 if axis is None else axis.step for number, axis in enumerate(self.axes) if number != self.axis]
        turned = (planes, planes.transpose(1, 2))
        return [view for view, ratio in zip(turned, ratios, strict=True) if ratio <= SHARP]
