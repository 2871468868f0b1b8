"""The step `write_dicom`: a result in NIfTI as a derived series of the DICOM that it came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from brgm_med.errors import InputRefusedError
from brgm_med.files import moved, read_json
from brgm_med.pipelines.results.certificate import Certificate, Task
from brgm_med.pipelines.results.dicom import SeriesTarget
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.transforms.formats import nifti
from brgm_med.transforms.formats.dicom.derived import Choices, Derivation
from brgm_med.transforms.formats.dicom.mr import is_mr
from brgm_med.transforms.formats.dicom.series import the_series


def read_certificate(path: Path, task: Task) -> Derivation:
    """The description of a result by its certificate. Raises InputRefusedError for a damaged one."""
    content = read_json(path)
    try:
        return Certificate.from_json(content).derivation(task)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputRefusedError(f"{path}: is no certificate of this software; give the one of the result") from error


def write_dicom(
    result: Path,
    source: Path,
    out: Path,
    *,
    certificate: Path,
    task: Task = "sr",
    series: str | None = None,
    uid_seed: str | None = None,
    allow_missing_files: bool = False,
    force: bool = False,
) -> Path | None:
    """The `result` (NIfTI) of the MR series at `source` as a derived DICOM series, in the new folder `out`.

    `certificate` is the result's: what it says of the work goes into the images. Values are rounded as `dicom.write`
    says (the certificate speaks of the NIfTI file). Where there is a map of what was measured beside `result`, it
    becomes a folder beside `out`. CT and PET have no derived series: None is returned and nothing written. With
    `uid_seed` the same result gives the same files, to the last bit. `allow_missing_files`: see `the_series`. Raises as
    `results.choose.target_of`.
    """
    own = the_series(source, series or None, allow_missing_files)
    if not is_mr(own):
        return None
    text = read_certificate(certificate, task)
    target = SeriesTarget(out, Choices(uid_seed=uid_seed), force, own)
    target.check()
    with moved(target.paths, force, [result, source]) as (image, _):
        staged = replace(target, path=image, force=False)
        if task == "sr":
            scan = nifti.read(result)
            staged.write(scan.array, scan.affine, text, "")
        else:
            header, stored = nifti.read_stored(result)
            staged.write_stored(stored.astype(target.stored_type(stored, header)), header, text, "")
        if measured_beside(result).is_file():
            measured = nifti.read(measured_beside(result))
            staged.write_map(measured.array, measured.affine, text)
    return out
