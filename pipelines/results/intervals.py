"""The uncertainty of a super-resolved volume as files hold it: maps beside it, entries of its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.console import say
from brgm_med.pipelines.reading import called
from brgm_med.pipelines.results.records import file_record
from brgm_med.transforms.formats.dicom.map import Quantity

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.measurement import Reconstruction
    from brgm_med.pipelines.results.certificate import Entry
    from brgm_med.transforms.formats.dicom.derived import Choices
    from brgm_med.transforms.geometry import Grid

INTERVAL = ("lower", "upper", "std")
"""Names of the maps of an interval."""

LEVEL = 90.0
"""Per cent, where none is named."""

RESTS_ON = (
    "errors on the scan's own planes, made thick and reconstructed; their factor on validation heads of three scanners"
)

NOT_CALIBRATED = "; not calibrated for several scans"

Map = tuple[Quantity, NDArray[np.float32]]


def map_names(samples: int) -> tuple[str, ...]:
    """Names of all maps of an interval and of so many samples."""
    return (*INTERVAL, *(f"sample-{n}" for n in range(1, samples + 1)))


def interval_maps(result: Reconstruction, level: float, samples: int, seed: int) -> Iterator[Map]:
    """Bounds of the interval of `level` per cent, standard deviation, samples: one after another."""
    from brgm_med.pipelines.reconstruct.samples import sample_volume

    uncertainty = result.uncertainty
    assert uncertainty is not None
    half = uncertainty.half_width(level / 100)
    for sign, name in ((-1, "lower"), (1, "upper")):
        yield _map(
            name, f"{name} bound of the interval that holds the truth with {level:g} %", result.image + sign * half
        )
    yield _map("std", "standard deviation of the truth around the image", uncertainty.deviation)
    for number, sample in enumerate(sample_volume(result, samples, seed=seed), 1):
        yield _map(f"sample-{number}", "a sample of the truth as it may be", sample)


def _map(name: str, text: str, image: object) -> Map:
    array = np.asarray(image, np.float32)[0]
    low, high = float(array.min()), float(array.max())
    return Quantity(name, text, (low, high if high > low else low + 1)), array


def uncertainty_entry(result: Reconstruction, level: float, samples: int) -> Entry:
    """Entry `uncertainty` of a certificate.

    `least_coverage_of_exchangeable_heads`: were this head drawn like the validation heads, its coverage would be
    expected to be at least that (conformal risk control, Angelopoulos et al. 2024).
    """
    from brgm_med.pipelines.reconstruct.uncertainty import expected_psnr
    from brgm_med.search import HEADS, VALIDATED

    uncertainty = result.uncertainty
    assert uncertainty is not None
    expected, *interval = expected_psnr(result)
    inferred = uncertainty.deviation > 0
    return {
        "level": level,
        "expected_coverage": level,
        "least_coverage_of_exchangeable_heads": round(level * VALIDATED / (VALIDATED + 1), 1),
        "rests_on": RESTS_ON + (NOT_CALIBRATED if len(result.measurements) > 1 else ""),
        "pixels_compared": uncertainty.model.count,
        "factor_of_heads": HEADS,
        "mean_half_width": float(uncertainty.half_width(level / 100)[inferred].mean()),
        "expected_psnr_db": round(expected, 2),
        "psnr_interval_db": [round(bound, 2) for bound in interval],
        "samples": samples,
    }


@dataclass(frozen=True, eq=False)
class Region:
    """A mask [X, Y, Z] bool as read from `path`, on `grid`."""

    path: Path
    mask: NDArray[np.bool_]
    grid: Grid


def read_region(path: Path) -> Region:
    """The region that a mask marks: what is not 0. Raises InputRefusedError for a mask that cannot be read, is not of
    integers, or marks nothing."""
    from brgm_med.pipelines.reconstruct.hole import check_integers
    from brgm_med.transforms.formats import read_mask
    from brgm_med.transforms.geometry import Grid

    header, stored = read_mask(path)
    try:
        check_integers(stored)
    except InputRefusedError as error:
        raise InputRefusedError(f"{path}: {error}") from error
    if not stored.any():
        raise InputRefusedError(f"{path}: it marks no voxel; give a mask that is not 0 in the region")
    return Region(path, stored != 0, Grid((header.shape[0], header.shape[1], header.shape[2]), header.affine))


def region_entry(region: Region, result: Reconstruction, level: float, choices: Choices) -> Entry:
    """Entry `region` of a certificate: volume of the mask, and the mean intensity in it with its interval, said too.

    Raises InputRefusedError where no voxel of the result has its centre in it.
    """
    import torch

    from brgm_med.pipelines.reconstruct.hole import alike
    from brgm_med.pipelines.reconstruct.region import mean_in
    from brgm_med.pipelines.reconstruct.surroundings import nearest

    there = nearest(torch.from_numpy(region.mask), region.grid, result.grid)[0]
    if not bool(there.any()):
        raise InputRefusedError(f"{region.path}: no voxel of the result has its centre in it; is it of this scan?")
    volume = float(region.mask.sum()) * abs(float(np.linalg.det(region.grid.affine[:3, :3]))) / 1000
    mean, deviation = mean_in(result, there)
    half = float(torch.special.ndtri(torch.tensor(0.5 + level / 200, dtype=torch.float64))) * deviation
    interval = f"with {level:g} % from {mean - half:.5g} to {mean + half:.5g}"
    say(f"{called(region.path, choices)}: {volume:.4g} ml, mean {mean:.5g}, {interval}")
    resampled = not alike(region.grid, result.grid)
    entry = {**file_record(region.path), "resampled": resampled, "level": level, "volume_ml": volume}
    return entry | {"mean": mean, "mean_interval": [mean - half, mean + half]}
