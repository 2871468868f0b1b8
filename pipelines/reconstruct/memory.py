"""Memory of a reconstruction, estimated before it begins, and how much of it there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.transforms.geometry import Grid

PROCESS, SEARCH = 1.2e9, 0.5e9
"""Bytes of the process and of learning from a scan; of a population prior's search, on whatever grid. Measured: 1.1 and
1.4 GB in all on small grids."""

VOXEL, JOINT_VOXEL = 110, 300
"""Bytes a voxel of the result: of one scan, and where several are made consistent together. Measured on a CPU, one
scan: 81 to 104 on grids of 17 and 6 million voxels; two: 270 on 2 million."""

MATRICES = 6
"""Matrices of n x n float64 that a projection holds for an axis of n voxels."""

MOST = 0.8
"""Part of the free memory that is taken by default."""


def estimate(scans: Sequence[Scan], grid: Grid, population: bool) -> float:
    """Bytes at most of a reconstruction of `scans` on `grid`, by a `population` prior too."""
    x, y, z = (float(n) for n in grid.shape)
    voxels = x * y * z
    samples = sum(float(scan.values.numel()) for scan in scans)
    own = (JOINT_VOXEL if len(scans) > 1 else VOXEL) * (voxels + samples)
    return PROCESS + population * SEARCH + own + 8 * MATRICES * (x * x + y * y + z * z)


def check_memory(scans: Sequence[Scan], grid: Grid, population: bool, most: float | None) -> None:
    """Raise InputRefusedError where a reconstruction would take more than `most` bytes (None: `MOST` of `free`)."""
    limit = MOST * free() if most is None else most
    needed = estimate(scans, grid, population)
    if needed > limit:
        x, y, z = grid.shape
        raise InputRefusedError(
            f"{scans[0].name}: a result of {x} x {y} x {z} voxels of {grid.spacing[0]:.3g} mm would take about "
            f"{needed / 1e9:.3g} GB of memory, and {limit / 1e9:.3g} GB are allowed; ask for a coarser grid with "
            "--spacing, or allow more with --max-memory"
        )


def free() -> float:
    """Bytes that this machine has free, or that this container may use, the smaller; infinite where nothing says it."""
    amounts = [float("inf")]
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            amounts.append(1024.0 * int(line.split()[1]))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of the second and the first version of cgroups
        amounts += [float(line) for line in _lines(Path("/sys/fs/cgroup") / name) if line.isdecimal()]
    return min(amounts)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
