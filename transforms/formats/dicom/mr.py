"""A derived MR image (PS3.3 A.4, the classic one): its plane, its pixels, and the part of its source that stays true.

pydicom is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import refuse
from brgm_med.transforms.formats.affine import RAS_LPS, Affine, without_shear
from brgm_med.transforms.formats.dicom.classic import as_classic
from brgm_med.transforms.formats.dicom.derived import source_image
from brgm_med.transforms.formats.dicom.elements import ds, names, remove
from brgm_med.transforms.formats.dicom.repeated import shared

if TYPE_CHECKING:
    from pydicom import Dataset

    from brgm_med.transforms.formats.dicom.series import Series

NOT_TRUE_OF_FINER_VOXELS = names(
    "AcquisitionMatrix NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth "
    "ReconstructionDiameter ImagesInAcquisition SliceLocation SliceProgressionDirection PatientOrientation "
    "PixelSpacing PixelAspectRatio PixelSpacingCalibrationType PixelSpacingCalibrationDescription SliceThickness "
    "SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient IsocenterPosition VOILUTSequence "
    "PresentationLUTShape"
)
"""Of the MR Image and Image Plane modules (C.8.3.1, C.7.6.2): attributes of the grid and its sampling. Type 3 or
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


class Voxels(NamedTuple):
    """Integers of 16 bits [columns, rows, slices], what they mean, index -> RAS mm, and how thick the slices are, mm.

    The thickness is the slices' spacing if it is not given.
    """

    stored: NDArray[np.integer]
    scale: Scale
    affine: Affine
    thickness: float | None = None


def is_mr(like: Series) -> bool:
    """True where a derived MR image can be of this series."""
    return like.headers[0].get("Modality") == "MR"


def check_source(like: Series) -> None:
    """Raise InputRefusedError for a series that no MR images can be derived from."""
    if not is_mr(like):
        problem = f"is {like.headers[0].get('Modality') or 'of no modality'}, not MR"
        refuse(like.files[0], problem, "let the output's name end in .nii.gz")
    for file, header in zip(like.files, like.headers, strict=True):
        uids = [header.get(name) for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID")]
        if not all(isinstance(uid, str) and uid for uid in uids):
            problem = "has no UID, or several, of its own, of its class or of its study"
            refuse(file, problem, "let the output's name end in .nii.gz")


def common_of(like: Series, voxels: Voxels, keep_private: bool, made_here: bool) -> Dataset:
    """Elements that the slices have in common, but for what `mark_derived` says."""
    from pydicom.uid import MRImageStorage, generate_uid

    stored, scale, affine, thickness = voxels

    check_source(like)
    headers = [as_classic(header, like.frames[0]) for header in like.headers]
    dataset = shared(headers, keep_private)
    remove(dataset, NOT_TRUE_OF_FINER_VOXELS)
    direction, spacing = axes(affine)
    old_direction, _ = axes(like.affine)
    if not np.allclose(direction, old_direction, atol=1e-3):
        remove(dataset, ["InPlanePhaseEncodingDirection"])
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
    _set_window(dataset, headers if made_here and headers[0].PhotometricInterpretation == "MONOCHROME2" else [])
    return dataset


def _set_window(dataset: Dataset, headers: Sequence[Dataset]) -> None:
    """One window for all slices (C.11.2): that of `headers`, or the middle one of their first where they differ."""
    ends = ("WindowCenter", "WindowWidth")
    values = [[_first_number(header, name) for header in headers] for name in ends]
    sane = bool(headers) and bool(np.isfinite(values).all())
    if sane and all(name in dataset for name in ends):
        return
    remove(dataset, (*ends, "WindowCenterWidthExplanation"))
    if sane:
        for name, each in zip(ends, values, strict=True):
            setattr(dataset, name, ds(float(np.median(each))))


def _first_number(header: Dataset, name: str) -> float:
    """The first number in an element; NaN where there is none."""
    try:
        return float(np.atleast_1d(header.get(name))[0])
    except (TypeError, ValueError, IndexError):
        return float("nan")


def axes(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The index axes as orthogonal unit vectors, one a row, in patient coordinates (LPS), and their steps in mm."""
    lps = RAS_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return (without_shear(lps)[:3, :3] / spacing).T, spacing


def slices_of(common: Dataset, voxels: Voxels, uids: Sequence[str]) -> Iterator[Dataset]:
    """The images, in order: `common` and what is each one's own (C.7.6.2: Image Plane)."""
    from pydicom import Dataset

    stored, affine = voxels.stored, voxels.affine
    lps, normal = RAS_LPS @ affine, np.cross(*axes(affine)[0][:2])
    for k, uid in enumerate(uids):
        dataset = Dataset(common)  # elements are shared, none of them is changed
        position = lps[:3, 2] * k + lps[:3, 3]
        dataset.SOPInstanceUID, dataset.InstanceNumber = uid, k + 1
        dataset.ImagePositionPatient = [ds(v) for v in position]
        dataset.SliceLocation = ds(float(normal @ position))
        dataset.add_new("PixelData", "OW", stored[:, :, k].T.astype(stored.dtype.newbyteorder("<")).tobytes())
        yield dataset


def sources_of(like: Series, affine: Affine, shape: tuple[int, ...], k: int) -> list[Dataset]:
    """Items of Source Image Sequence for slice `k`: of `like`, the slices that it lies on or between.

    An enhanced `like` is one item with the numbers of its frames.
    """
    corners = np.stack(np.meshgrid([0, shape[0] - 1], [0, shape[1] - 1], [k - 0.5, k + 0.5]), -1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    from_world = np.linalg.inv(like.affine)
    index = world @ from_world[2, :3] + from_world[2, 3]
    last = like.shape[2] - 1
    first = int(np.clip(np.floor(index.min() + 1e-6), 0, last))
    slices = range(first, int(np.clip(np.ceil(index.max() - 1e-6), first, last)) + 1)
    if not like.enhanced:
        return [source_image(like.headers[i]) for i in slices]
    item = source_image(like.headers[0])
    item.ReferencedFrameNumber = [like.frames[i] + 1 for i in slices]
    return [item]
