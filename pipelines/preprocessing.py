"""The steps around a reconstruction, each a plain function on paths; the reconstructions are in `steps` and `inpaint`.

convert        NIfTI or DICOM -> NIfTI, and beside it a JSON file that states the acquisition
preprocess     -> the head registered to a prior's template and normalised, and how it lies there
cut_slices     -> its coronal slices, for `slice_training.train_on_slices`
write_dicom    a result in NIfTI -> a derived series of the DICOM it came from
evaluate       a result and the truth -> PSNR, SSIM, RMSE, MAE
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import check_output, replacing, write_json
from brgm_med.pipelines.provenance import STATEMENT, account, inpainted, sidecar_of, super_resolved
from brgm_med.pipelines.sources import series_of, source_record, stated_by
from brgm_med.pipelines.target import taken_back
from brgm_med.transforms.formats import for_reading, nifti, stem

if TYPE_CHECKING:
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.nifti_header import NiftiHeader

Task = Literal["sr", "inpaint"]

OF_FILES = frozenset(
    [
        "statement",
        "source",
        "further_scans",
        "mask",
        "result",
        "measured_map",
        "consistency",
        "coronal_slices_searched",
        "outside_the_hole",
    ]
)
"""What a certificate says of files, and of what they hold when read back. It is not told in the images themselves."""


def convert(
    scan: Path,
    folder: Path,
    *,
    series: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    force: bool = False,
) -> tuple[Path, Path]:
    """Bring the scan at `scan` into `folder` as NIfTI, with a JSON file beside it; returns both paths.

    NIfTI passes through as a symbolic link, once its voxels have been read; DICOM, of which `series` chooses one of
    several volumes, keeps its stored integers. The JSON file holds `metadata` (such as a BIDS sidecar's) and, where
    these or the DICOM header state one, the acquisition that `steps.acquisition_of` reads: a
    `BrgmMedAcquisition` as it is, else BIDS's or DICOM's Slice Thickness (mm) as a box profile across the slices.
    Raises InputRefusedError for whatever cannot be read, and CannotWriteError.
    """
    header, stored = for_reading(scan, series=series or None).read_stored(scan, "auto")
    out = folder / (scan.name if series_of(header) is None else f"{stem(scan)}.nii.gz")
    if series_of(header) is None:
        check_output(out, force)
        with replacing(out, force) as temporary:
            temporary.unlink()
            os.symlink(os.path.abspath(scan), temporary)
    else:
        label = f"brgm-med {__version__}: converted from DICOM, research only"
        nifti.write_stored(out, stored, header, label, force)
    content = dict(metadata or {})
    if "BrgmMedAcquisition" not in content:
        content |= stated_acquisition(header, content)
    sidecar = sidecar_of(out, stem(out))
    try:
        write_json(sidecar, content, force)
    except ValueError as error:  # JSON has no NaN, but Python reads it
        raise InputRefusedError(f"{scan}: its sidecar holds a number that JSON has not ({error}); mend it") from error
    return out, sidecar


def stated_acquisition(header: NiftiHeader, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar's entry for what the DICOM header, else BIDS metadata, state of the slices; empty for nothing.

    Raises InputRefusedError for a Slice Thickness that is no length.
    """
    thickness = metadata.get("SliceThickness")
    if series_of(header) is None and thickness is None:
        return {}
    from brgm_med.transforms.acquire import SAME, AcquisitionModel
    from brgm_med.transforms.geometry import Grid

    grid = Grid(header.shape, header.affine)
    model: AcquisitionModel | None = stated_by(series_of(header), grid)
    if model is None and thickness is not None:
        if not isinstance(thickness, int | float) or not 0 < thickness < float("inf"):
            raise InputRefusedError(f"{header.path}: its sidecar's SliceThickness is {thickness!r}, no length; mend it")
        spacing = sorted(grid.spacing)
        if spacing[2] > spacing[1] * (1 + SAME):  # else nothing tells which axis the slices are along
            model = AcquisitionModel.from_flags(grid, float(thickness))
    return {} if model is None else model.to_sidecar(grid)


def preprocess(
    scan: Path, folder: Path, *, prior: str = "brain-t1-coronal", threads: int | None = None, force: bool = False
) -> tuple[Path, Path]:
    """Register the head at `scan` (NIfTI) to the template of `prior` and normalise it: air -1, mean of the brain 0.

    Writes NAME_registered.nii.gz (RAS+, on the prior's box) and NAME_pose.json into `folder`, and returns both paths.
    Training and reports are made of these. A reconstruction is not: its likelihood lives on the scan's own grid, so
    `steps.super_resolve` reads and registers the scan itself, in the same way. Raises as the exit codes say.
    """
    registered, pose = folder / f"{stem(scan)}_registered.nii.gz", folder / f"{stem(scan)}_pose.json"
    check_output(registered, force)
    check_output(pose, force)
    header = for_reading(scan).read_header(scan, "auto")

    from brgm_med.pipelines.setting import set_up_torch
    from brgm_med.priors.bundle import load
    from brgm_med.transforms import LoadScan, SaveScan
    from brgm_med.transforms.prepare import RegisterNormalised
    from brgm_med.transforms.register import scale_of
    from brgm_med.transforms.template import load_template

    set_up_torch(threads)
    bundle = load(prior)
    image = LoadScan()(scan)
    try:
        image = RegisterNormalised(load_template(bundle))(image)
    except InputRefusedError as error:
        raise InputRefusedError(f"{scan}: {error}") from error
    matrix = image.meta["pose"].numpy()
    text = f"brgm-med {__version__}: registered head, research only"
    SaveScan(registered, description=text, force=force)(image)
    content = {
        "statement": STATEMENT,
        "source": source_record(scan, header),
        "prior": {"name": bundle.name, "sha256": bundle.sha256},
        "correlation": image.meta["registration_correlation"],
        "scale": scale_of(matrix),
        "template_to_scan": matrix.tolist(),
    }
    write_json(pose, content, force)
    return registered, pose


def cut_slices(registered: Path, folder: Path, *, force: bool = False) -> Path:
    """A head that `preprocess` has registered -> NAME_slices.safetensors in `folder`: `stack` [Y, 1, Z, X], float16."""
    out = folder / f"{stem(registered).removesuffix('_registered')}_slices.safetensors"
    check_output(out, force)

    import torch
    from safetensors.torch import save_file

    from brgm_med.transforms import CoronalSlices, LoadScan

    stack = CoronalSlices()(LoadScan()(registered)).as_tensor().to(torch.float16).contiguous()
    with replacing(out, force) as temporary:
        save_file({"stack": stack}, temporary)
    return out


def write_dicom(
    result: Path,
    source: Path,
    out: Path,
    *,
    certificate: Path,
    task: Task = "sr",
    series: str | None = None,
    uid_seed: str | None = None,
    force: bool = False,
) -> Path | None:
    """The `result` (NIfTI) of the MR series at `source` as a derived DICOM series, in the new folder `out`.

    `certificate` is the result's: what it says of the work goes into the images. Values are rounded as `dicom_write`
    says (the certificate speaks of the NIfTI file). Where there is a map of what was measured beside `result`, it
    becomes a folder beside `out`. CT and PET have no derived series: None is returned and nothing written. With
    `uid_seed` the same result gives the same files, to the last bit. Raises as `targets.target_of`.
    """
    from brgm_med.pipelines.target_series import SeriesTarget
    from brgm_med.pipelines.write_back import measured_beside
    from brgm_med.transforms.formats.dicom_derived import Choices
    from brgm_med.transforms.formats.dicom_mr import is_mr
    from brgm_med.transforms.formats.dicom_series import the_series

    own = the_series(source, series or None)
    if not is_mr(own):
        return None
    told = {k: v for k, v in json.loads(certificate.read_text()).items() if k not in OF_FILES}
    derivation = super_resolved if task == "sr" else inpainted
    how = derivation(told["prior"]["name"], told["prior"]["sha256"], account(told))
    target = SeriesTarget(out, own, Choices(uid_seed=uid_seed), None, force)
    target.check()
    if task == "sr":
        scan = nifti.read(result)
        target.write(scan.array, scan.affine, how, "")
    else:
        header, stored = nifti.read_stored(result)
        target.write_stored(stored.astype(target.kept_as(stored, header)), header, how, "")
    if measured_beside(result).is_file():
        with taken_back(target):
            measured = nifti.read(measured_beside(result))
            target.write_map(measured.array, measured.affine, how)
    return out


def evaluate(result: Path, truth: Path, out: Path, *, force: bool = False) -> dict[str, float]:
    """Compare `result` with `truth`, volumes on one grid; writes the numbers to `out` (JSON) and returns them.

    (In JSON the infinite PSNR of equal volumes is null.)

    `psnr` (dB), `rmse` and `mae` (in 255ths of the range, as in `metrics`) over all voxels, `ssim` as the mean over
    coronal slices; the range is the truth's 0.5th to 99.5th percentile. Raises InputRefusedError for volumes on
    different grids.
    """
    check_output(out, force)
    ours, true = for_reading(result).read(result, "auto"), for_reading(truth).read(truth, "auto")
    if ours.array.shape != true.array.shape or not np.allclose(ours.affine, true.affine, rtol=0, atol=1e-2):
        raise InputRefusedError(f"{result}: lies on another grid than {truth}; resample one of the two")
    low, high = np.percentile(true.array, [0.5, 99.5])
    if not high > low:
        raise InputRefusedError(f"{truth}: nearly all its voxels are {low:g}; give the truth")

    import torch

    from brgm_med.metrics import mae, psnr, rmse, ssim
    from brgm_med.transforms.geometry import Grid

    coronal = Grid(true.header.shape, true.affine).index_axis(1)
    x, t = (torch.from_numpy(a.array).movedim(coronal, 0)[:, None] for a in (ours, true))
    if min(x.shape[2:]) < 11:
        raise InputRefusedError(f"{truth}: is smaller than 11 voxels; SSIM needs a window of these")
    width = float(high - low)
    numbers = {
        "psnr": float(psnr(x[None], t[None], width)),
        "ssim": float(ssim(x, t, width).mean()),
        "rmse": float(rmse(x[None], t[None], width)),
        "mae": float(mae(x[None], t[None], width)),
    }
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    write_json(out, {"result": result.name, "truth": truth.name, "range": [float(low), float(high)], **finite}, force)
    return numbers


def reconstruct(
    scan: Path,
    folder: Path,
    *,
    task: Task = "sr",
    mask: Path | None = None,
    name: str | None = None,
    force: bool = False,
    **options: Any,
) -> tuple[Path, Path]:
    """`steps.super_resolve` or `inpaint.inpaint` of `scan` into `folder`, as `name` (default: the scan's, and the task)
    and .nii.gz, with its map and certificate; returns the paths of result and certificate. `options` are theirs."""
    out = folder / f"{name or f'{stem(scan)}_{task}'}.nii.gz"
    if task == "sr":
        from brgm_med.pipelines.steps import super_resolve

        super_resolve(scan, out, force=force, **options)
    else:
        from brgm_med.pipelines.inpaint import inpaint

        if mask is None:
            raise UsageError(f"{scan}: to inpaint it, a mask is needed")
        inpaint(scan, mask, out, force=force, **options)
    return out, folder / f"{stem(out)}_certificate.json"
