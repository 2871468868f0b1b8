"""A derived MR series: one classic MR Image (PS3.3 A.4) per slice, in a folder that is there whole or not at all.

The classic MR Image has no Modality LUT, so no Rescale Slope; dciodvfy lets one pass as an extension (a warning), and
many viewers of MR ignore it. So none is written where it can be helped: a derived series keeps the scaling of its
source, with none where that has none. A value is then off by at most half a step of the source's, and a viewer that
ignores the rescale shows both series alike. Only values that do not fit 16 bits at that step, and a source of floating
point, get a rescale of their own, one for the whole series. pydicom is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brgm_med.files import new_folder, reading_back
from brgm_med.transforms.formats.affine import Affine
from brgm_med.transforms.formats.dicom import derived
from brgm_med.transforms.formats.dicom.classic import rescale
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices, Derivation
from brgm_med.transforms.formats.dicom.elements import derivable, ds
from brgm_med.transforms.formats.dicom.geometry import along_normal
from brgm_med.transforms.formats.dicom.mr import Scale, Voxels, common_of, slices_of, sources_of
from brgm_med.transforms.formats.dicom.series import Series, the_series
from brgm_med.transforms.formats.format import ReadBack

ENDING = ".dcm"


def write(
    path: Path,
    array: NDArray[np.floating],
    affine: Affine,
    like: Series,
    derivation: Derivation,
    choices: Choices = NO_CHOICES,
    *,
    thickness: float | None = None,
    made_here: bool = True,
    further: Sequence[Series] = (),
    scale: Scale | None = None,
    force: bool = False,
) -> ReadBack:
    """Write `array` [columns, rows, slices] with `affine` (index -> RAS mm) into the new folder `path`.

    Patient, study, frame of reference and what stays true of the acquisition are those of `like`. `thickness` of the
    slices is their spacing if it is not given. `made_here`: the voxels were made from `like`; its images are named as
    sources and its scale is kept. Else they were made from something of `scale` (None: of floats). `further` series
    that they were made from are named as sources as well.

    The folder is written beside `path`, read back, compared, and renamed; `force` replaces a folder of DICOM files.
    Raises InputRefusedError where `path` exists and not `force`, and where `like` is no MR; CannotWriteError where it
    cannot be written; ValueError for an array that is not three-dimensional or not finite.
    """
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ValueError(f"a finite array [X, Y, Z] is needed, not one of shape {array.shape}")
    scale, stored = quantise(array, finest(like) if made_here else scale)
    voxels = Voxels(stored, scale, affine, thickness)
    write_stored(path, voxels, like, derivation, choices, made_here=made_here, further=further, force=force)
    return ReadBack(stored.astype(np.float64) * scale.slope + scale.intercept, scale.slope)


def write_stored(
    path: Path,
    voxels: Voxels,
    like: Series,
    derivation: Derivation,
    choices: Choices = NO_CHOICES,
    *,
    made_here: bool = True,
    further: Sequence[Series] = (),
    force: bool = False,
) -> None:
    """Write integers as they are. `made_here`: they were made from `like`. As `write` in everything else."""
    if voxels.stored.dtype not in (np.int16, np.uint16):
        raise ValueError(f"integers of 16 bits are needed, not {voxels.stored.dtype}")
    stored, affine = along_normal(voxels.stored, voxels.affine)
    voxels = voxels._replace(stored=stored, affine=affine)
    with derived.quiet(), derivable(like.files[0]):
        common = common_of(like, voxels, choices.keep_private, made_here)
        origins = [*([like] if made_here else []), *further]
        sources = [str(header.SOPInstanceUID) for series in (like, *further) for header in series.headers]
        known = repr([affine.tolist(), voxels.scale, voxels.thickness, derivation, sources, stored.shape])
        content = known.encode(), stored.tobytes(order="F")
        series_uid, uids = derived.new_uids(choices.uid_seed, content, stored.shape[2])
        derived.mark_derived(common, like.headers[0], derivation, choices, series_uid, kind="OTHER")
    with derived.quiet(), new_folder(path, ENDING if force else None) as folder:
        for k, dataset in enumerate(slices_of(common, voxels, uids)):
            with derivable(like.files[0]):
                if origins:
                    cited = [one for series in origins for one in sources_of(series, affine, stored.shape, k)]
                    dataset.SourceImageSequence = cited
                if choices.transform is not None:
                    dataset = derived.last_word(choices, derivation)(deepcopy(dataset))  # the slices share elements
                derived.save(dataset, folder / f"{k + 1:04d}{ENDING}")
        _check(path, folder, stored, affine)


def quantise(array: NDArray[np.floating], source: Scale | None) -> tuple[Scale, NDArray[np.integer]]:
    """The source's own scale if all of `array` fits 16 bits with it, else one that uses the whole range; the integers.

    Nothing is clipped; the error is at most half of the slope.
    """
    if source is not None:
        source = Scale(_written(source.slope), _written(source.intercept))
        with np.errstate(over="ignore", invalid="ignore"):  # of a slope next to nothing, which then does not fit
            levels = np.rint((array.astype(np.float64) - source.intercept) / source.slope)
        for kind in (np.uint16, np.int16):
            limits = np.iinfo(kind)
            if limits.min <= levels.min() and levels.max() <= limits.max:
                return source, levels.astype(kind)
    low, high = float(array.min()), float(array.max())
    step = _written(max(high - low, 1e-6 * max(1.0, abs(low))) / 65534)  # one to spare for rounding
    scale = Scale(step, _written(low))
    return scale, np.rint((array.astype(np.float64) - scale.intercept) / step).clip(0, 65535).astype(np.uint16)


def _written(value: float) -> float:
    """A number as it is read back from a decimal string."""
    return float(str(ds(value)))


def finest(like: Series) -> Scale | None:
    """The scale of the source's slice of the smallest step; none where there is nothing to go by."""
    headers = like.headers * like.shape[2] if like.enhanced else like.headers
    scales = {Scale(*rescale(h, frame)) for h, frame in zip(headers, like.frames, strict=True)}
    usable = [s for s in scales if s.slope > 0 and np.isfinite(s).all()]
    return min(usable, default=None)


def _check(path: Path, folder: Path, stored: NDArray[np.integer], affine: Affine) -> None:
    """Raise CannotWriteError unless the files in `folder` are one series that holds `stored` at `affine`."""
    from pydicom import dcmread

    with reading_back(path) as check:
        series = the_series(folder)
        check(series.is_on(stored.shape, affine))
        for k, file in enumerate(series.files):
            pixels = stored[:, :, k].T.astype(stored.dtype.newbyteorder("<")).tobytes()
            check(dcmread(file, specific_tags=["PixelData"]).PixelData == pixels + b"\0" * (len(pixels) % 2))
