"""The step `convert`: NIfTI or DICOM in, NIfTI and a JSON file that states the acquisition out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.files import check_output, moved, write_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.reading import placed, say_tolerated, stated_acquisition
from brgm_med.transforms.formats import for_reading, nifti, stem
from brgm_med.transforms.formats.beside import sidecar_of

if TYPE_CHECKING:
    from brgm_med.transforms.formats.header import Header


def convert(
    scan: Path,
    folder: Path,
    *,
    series: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    allow_missing_files: bool = False,
    force: bool = False,
) -> tuple[Path, Path]:
    """Bring the scan at `scan` into `folder` as NIfTI, with a JSON file beside it; returns both paths.

    NIfTI passes through as a symbolic link, once its voxels have been read; DICOM, of which `series` chooses one of
    several volumes, keeps its stored integers. The JSON file holds `metadata` (such as a BIDS sidecar's) and, where
    these or the DICOM header state one, the acquisition, by the rule of `reading.stated_acquisition`.
    `allow_missing_files`: of DICOM, see `the_series`.
    Raises InputRefusedError for whatever cannot be read, and CannotWriteError.
    """
    header, stored = for_reading(scan, series=series or None, allow_missing_files=allow_missing_files).read_stored(
        scan, "auto"
    )
    say_tolerated(header, scan.name)
    out = folder / (scan.name if header.series is None else f"{stem(scan)}.nii.gz")
    sidecar = sidecar_of(out, stem(out))
    for path in (out, sidecar):
        check_output(path, force)
    content = dict(metadata or {})
    if "BrgmMedAcquisition" not in content:
        content |= stated_entry(scan, header, content)
    try:
        with moved([out, sidecar], force, [scan]) as (image, about):
            if header.series is None:
                os.symlink(os.path.abspath(scan), image)
            else:
                label = f"brgm-med {__version__}: converted from DICOM, research only"
                nifti.write_stored(image, stored, header, label)
            write_json(about, content, force=False)
    except ValueError as error:  # JSON has no NaN, but Python reads it
        raise InputRefusedError(f"{scan}: its sidecar holds a number that JSON has not ({error}); mend it") from error
    return out, sidecar


def stated_entry(scan: Path, header: Header, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar's entry for the acquisition that DICOM's header or BIDS metadata state; empty for none.

    Says where the metadata contradict the header. Raises InputRefusedError as `reading.stated_acquisition` does.
    """
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.sidecar import contradictions

    grid = Grid(header.shape, header.affine)
    stated = stated_acquisition(scan, grid, header.series, metadata)
    model = placed(AcquisitionModel.from_header(grid), header.series) if stated is None else stated[0]
    for clause in contradictions(metadata, grid, model):
        say(f"warning: {scan.name}: {clause}")
    return model.to_sidecar(grid) if stated is not None or model.offsets else {}
