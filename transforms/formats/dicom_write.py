"""A derived MR series: one classic MR Image (PS3.3 A.4) per slice, in a folder that is there whole or not at all.

The classic MR Image has no Modality LUT, so no Rescale Slope; dciodvfy lets one pass as an extension (a warning), and
many viewers of MR ignore it. So none is written where it can be helped: a derived series keeps the scaling of its
source, with none where that has none. A value is then off by at most half a step of the source's, and a viewer that
ignores the rescale shows both series alike. Only values that do not fit 16 bits at that step, and a source of floating
point, get a rescale of their own, one for the whole series. pydicom is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import CannotWriteError, refuse
from brgm_med.transforms.formats.atomic import new_folder
from brgm_med.transforms.formats.dicom_classic import as_classic, rescales
from brgm_med.transforms.formats.dicom_derived import (
    NO_CHOICES,
    Choices,
    Derivation,
    ds,
    mark_derived,
    names,
    new_uids,
    save,
    shared,
    source_image,
)
from brgm_med.transforms.formats.dicom_geometry import RAS_LPS
from brgm_med.transforms.formats.nifti_affine import Affine, without_shear

if TYPE_CHECKING:
    from pydicom import Dataset

    from brgm_med.transforms.formats.dicom_series import Series

ENDING = ".dcm"

NOT_TRUE_OF_FINER_VOXELS = names(
    "AcquisitionMatrix NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth "
    "ReconstructionDiameter ImagesInAcquisition SliceLocation SliceProgressionDirection PatientOrientation "
    "PixelSpacing PixelAspectRatio PixelSpacingCalibrationType PixelSpacingCalibrationDescription SliceThickness "
    "SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient IsocenterPosition VOILUTSequence"
)
"""What the MR Image and Image Plane modules (C.8.3.1, C.7.6.2) say of the grid and of how it was sampled. Type 3 or
conditional, or written anew."""

MAY_BE_EMPTY = names(
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID "
    "AccessionNumber Manufacturer PositionReferenceIndicator PatientPosition ScanOptions MRAcquisitionType "
    "RepetitionTime EchoTime EchoTrainLength SeriesNumber"
)
"""Type 2 of the MR Image IOD: there, even if nothing is known."""


class Scale(NamedTuple):
    """value = slope * stored + intercept."""

    slope: float
    intercept: float


class Held(NamedTuple):
    """`array` [X, Y, Z]: the values that the files hold; `step`: the difference of two neighbouring integers."""

    array: NDArray[np.float64]
    step: float


def write(
    path: Path,
    array: NDArray[np.floating],
    affine: Affine,
    like: Series,
    how: Derivation,
    choices: Choices = NO_CHOICES,
    *,
    thickness: float | None = None,
    measured_here: bool = True,
    scale: Scale | None = None,
    force: bool = False,
) -> Held:
    """Write `array` [columns, rows, slices] with `affine` (index -> RAS mm) into the new folder `path`.

    Patient, study, frame of reference and what stays true of the acquisition are those of `like`. `thickness` of the
    slices is their spacing if it is not given. `measured_here`: the voxels were made from `like`, so its images are
    named as sources and its scale is kept; else `scale` is, that of what they were made from, if it was of integers.

    The folder is written beside `path`, read back, compared, and renamed; `force` replaces a folder of DICOM files.
    Raises InputRefusedError where `path` exists and not `force`, and where `like` is no MR; CannotWriteError where it
    cannot be written; ValueError for an array that is not three-dimensional or not finite.
    """
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ValueError(f"a finite array [X, Y, Z] is needed, not one of shape {array.shape}")
    scale, stored = quantise(array, finest(like) if measured_here else scale)
    write_stored(
        path, stored, scale, affine, like, how, choices, thickness=thickness, measured_here=measured_here, force=force
    )
    return Held(stored * scale.slope + scale.intercept, scale.slope)


def write_stored(
    path: Path,
    stored: NDArray[np.integer],
    scale: Scale,
    affine: Affine,
    like: Series,
    how: Derivation,
    choices: Choices = NO_CHOICES,
    *,
    thickness: float | None = None,
    measured_here: bool = True,
    force: bool = False,
) -> None:
    """Write the integers `stored` [columns, rows, slices] (int16 or uint16), whose values are as `scale` says.

    As `write` in everything else.
    """
    if stored.dtype not in (np.int16, np.uint16):
        raise ValueError(f"integers of 16 bits are needed, not {stored.dtype}")
    if np.linalg.det(RAS_LPS @ affine) < 0:  # files are in order along the slices' normal
        last = np.diag([1.0, 1.0, -1.0, 1.0])
        last[2, 3] = stored.shape[2] - 1
        stored, affine = stored[:, :, ::-1], affine @ last
    common = _common(like, choices.keep_private, affine, scale, stored, thickness)
    known = repr([affine.tolist(), scale, thickness, how.title, how.text, how.tool, how.statement])
    sources = [str(h.SOPInstanceUID) for h in like.headers]
    content = (known.encode(), repr(sources).encode(), stored.shape.__repr__().encode(), stored.tobytes(order="F"))
    series_uid, uids = new_uids(choices.uid_seed, content, stored.shape[2])
    mark_derived(common, like.headers[0], how, choices, series_uid, kind="OTHER")
    with new_folder(path, ENDING if force else None) as folder:
        for k, dataset in enumerate(_slices(common, stored, affine, uids)):
            if measured_here:
                dataset.SourceImageSequence = _sources(like, _beside(like, affine, stored.shape, k))
            if choices.transform is not None:
                dataset = choices.transform(dataset)
            save(dataset, folder / f"{k + 1:04d}{ENDING}")
        _check(path, folder, stored)


def quantise(array: NDArray[np.floating], source: Scale | None) -> tuple[Scale, NDArray[np.integer]]:
    """The source's own scale if all of `array` fits 16 bits with it, else one that uses the whole range; the integers.

    Nothing is clipped; the error is at most half of the slope.
    """
    if source is not None:
        source = Scale(_written(source.slope), _written(source.intercept))
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
    """What is left of a number when it is written as a decimal string."""
    return float(str(ds(value)))


def finest(like: Series) -> Scale | None:
    """The scale of the source's slice of the smallest step; none where there is nothing to go by."""
    scales = {Scale(*pair) for header in like.headers for pair in rescales(header)}
    usable = [s for s in scales if s.slope > 0 and np.isfinite(s).all()]
    return min(usable, default=None)


def _classic(like: Series) -> list[Dataset]:
    return [as_classic(header) for header in like.headers]


def _common(
    like: Series, keep_private: bool, affine: Affine, scale: Scale, stored: NDArray[np.integer], thickness: float | None
) -> Dataset:
    """All that the slices have in common, but for what `mark_derived` says."""
    from pydicom.uid import MRImageStorage, generate_uid

    headers = _classic(like)
    if headers[0].get("Modality") != "MR":
        refuse(
            like.files[0], f"is {headers[0].get('Modality') or 'of no modality'}, not MR", "write the result as NIfTI"
        )
    dataset = shared(headers, keep_private)
    for name in NOT_TRUE_OF_FINER_VOXELS:
        if name in dataset:
            del dataset[name]
    direction, spacing = axes(affine)
    old_direction, _ = axes(like.affine)
    if not np.allclose(direction, old_direction, atol=1e-3) and "InPlanePhaseEncodingDirection" in dataset:
        del dataset.InPlanePhaseEncodingDirection
    dataset.SOPClassUID = MRImageStorage
    if "FrameOfReferenceUID" not in dataset:
        dataset.FrameOfReferenceUID = generate_uid(prefix=None)
    for name in MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, None)
    if not {"BodyPartExamined", "AnatomicRegionSequence", "ImageLaterality", "Laterality"} & set(dataset.dir()):
        dataset.Laterality = None
    dataset.ImageOrientationPatient = [ds(v) for v in (*direction[0], *direction[1])]
    dataset.PixelSpacing = [ds(spacing[1]), ds(spacing[0])]  # between rows, then between columns (10.7.1.3)
    dataset.SpacingBetweenSlices = ds(spacing[2])
    dataset.SliceThickness = ds(spacing[2] if thickness is None else thickness)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = stored.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(stored.dtype.kind == "i")
    if scale != (1, 0) or any("RescaleSlope" in h for h in headers):
        dataset.RescaleIntercept, dataset.RescaleSlope = ds(scale.intercept), ds(scale.slope)
        dataset.RescaleType = dataset.get("RescaleType") or "US"
    _set_window(dataset, headers)
    return dataset


def _set_window(dataset: Dataset, headers: Sequence[Dataset]) -> None:
    """One window for all slices: the source's, or the middle one of its first windows where they differ (C.11.2)."""
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        return
    for name in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        if name in dataset:
            del dataset[name]
    for name in ("WindowCenter", "WindowWidth"):
        found = [np.atleast_1d(h[name].value)[0] for h in headers if h.get(name) is not None]
        if len(found) != len(headers):
            return
        setattr(dataset, name, ds(float(np.median(np.asarray(found, np.float64)))))


def axes(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The index axes as orthogonal unit vectors, one a row, in patient coordinates (LPS), and their steps in mm."""
    lps = RAS_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return (without_shear(lps)[:3, :3] / spacing).T, spacing


def _slices(common: Dataset, stored: NDArray[np.integer], affine: Affine, uids: Sequence[str]) -> Iterator[Dataset]:
    """The images, in order: `common` and what is each one's own (C.7.6.2: Image Plane)."""
    from pydicom import Dataset

    lps, normal = RAS_LPS @ affine, np.cross(*axes(affine)[0][:2])
    for k, uid in enumerate(uids):
        dataset = Dataset(common)  # elements are shared, none of them is changed
        position = lps[:3, 2] * k + lps[:3, 3]
        dataset.SOPInstanceUID, dataset.InstanceNumber = uid, k + 1
        dataset.ImagePositionPatient = [ds(v) for v in position]
        dataset.SliceLocation = ds(normal @ position)
        dataset.add_new("PixelData", "OW", stored[:, :, k].T.astype(stored.dtype.newbyteorder("<")).tobytes())
        yield dataset


def _beside(like: Series, affine: Affine, shape: tuple[int, ...], k: int) -> range:
    """The source's slices that slice `k` lies on or between."""
    corners = np.stack(np.meshgrid([0, shape[0] - 1], [0, shape[1] - 1], [k - 0.5, k + 0.5]), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    from_world = np.linalg.inv(like.affine)
    place = world @ from_world[2, :3] + from_world[2, 3]
    last = like.shape[2] - 1
    first = int(np.clip(np.floor(place.min() + 1e-6), 0, last))
    return range(first, int(np.clip(np.ceil(place.max() - 1e-6), first, last)) + 1)


def _sources(like: Series, slices: range) -> list[Dataset]:
    """Items of Source Image Sequence for these slices of `like`; one item with frame numbers if it is enhanced."""
    if not like.enhanced:
        return [source_image(like.headers[i]) for i in slices]
    item = source_image(like.headers[0])
    item.ReferencedFrameNumber = [like.frames[i] + 1 for i in slices]
    return [item]


def _check(path: Path, folder: Path, stored: NDArray[np.integer]) -> None:
    """Raise CannotWriteError unless the files in `folder` hold `stored`."""
    from pydicom import dcmread

    for k in range(stored.shape[2]):
        pixels = stored[:, :, k].T.astype(stored.dtype.newbyteorder("<")).tobytes()
        held = dcmread(folder / f"{k + 1:04d}{ENDING}", specific_tags=["PixelData"]).PixelData
        if held != pixels + b"\0" * (len(pixels) % 2):
            raise CannotWriteError(f"{path}: reads back differently from what was written; check the disk")
