"""A map beside a derived series: a number for each of its voxels, as one Parametric Map (PS3.3 A.75).

Its voxels are floats, as they are: the Real World Value Mapping is the identity and says what they mean. Whose it is,
the study and the frame of reference are read from the series' own files, so a map of a de-identified series is
de-identified, and each frame names the image that it is of. highdicom is imported when it is needed.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med._version import __version__
from brgm_med.extras import require
from brgm_med.files import new_folder, reading_back
from brgm_med.transforms.formats.affine import TOLERANCE_MM, Affine
from brgm_med.transforms.formats.dicom.derived import MAKER, Choices, Derivation, new_uids, quiet, save
from brgm_med.transforms.formats.dicom.elements import appended, derivable, item, names, remove, whole
from brgm_med.transforms.formats.dicom.geometry import along_normal
from brgm_med.transforms.formats.dicom.series import Series, the_series

if TYPE_CHECKING:
    from pydicom import Dataset

ENDING = ".dcm"
SCHEME = "99BRGM"
"""The coding scheme of quantities that DICOM has no code for (99: a private one, PS3.16 section 8.2)."""

EMPTY = names("PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime")
PATIENT_GROUPS = (0x0010, 0x0012)
STUDY = names(
    "StudyDate StudyTime StudyID StudyDescription AccessionNumber ReferringPhysicianName SpecificCharacterSet "
    "TimezoneOffsetFromUTC LongitudinalTemporalInformationModified BodyPartExamined Laterality "
    "PositionReferenceIndicator ContributingEquipmentSequence BurnedInAnnotation LossyImageCompression "
    "LossyImageCompressionRatio LossyImageCompressionMethod"
)
TIMES = ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime")
NEEDED = names(
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Rows Columns "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices Modality"
)
"""For highdicom, of the images: the rest is copied unjudged, for it refuses values that hospitals do write."""


@dataclass(frozen=True)
class Quantity:
    """The meaning of a map's numbers. `name`, a word of at most 16 letters, ends the map's name; `text`, of at most 64
    characters, explains the values, which lie within `limits`; `unit` is a code of UCUM and its meaning."""

    name: str
    text: str
    limits: tuple[float, float]
    unit: tuple[str, str] = ("1", "no units")


MEASURED = Quantity("measured", "1: measured, 0: inferred by a statistical model", (0.0, 1.0))


def write(
    path: Path,
    array: NDArray[np.floating],
    affine: Affine,
    of: Path,
    quantity: Quantity,
    derivation: Derivation,
    choices: Choices,
    force: bool = False,
) -> None:
    """Write `array` [columns, rows, slices], float32, with `affine` (index -> RAS mm) into the new folder `path`.

    `of` is the folder of the derived series (by `derivation`) on the same grid. The folder is written beside `path`,
    read back, compared, and renamed; `force` replaces a folder of DICOM files. Raises InputRefusedError where `path`
    exists and not `force`; CannotWriteError where it cannot be written; ValueError for an array that is not on the
    grid of the series, not finite, or beyond the quantity's limits.
    """
    array = check_values(array, quantity)
    series = the_series(of)
    array, affine = along_normal(array, affine)  # as the series' files
    if not series.is_on(array.shape, affine):
        raise ValueError(f"{path}: the map is on another grid than {of}")
    frames = np.ascontiguousarray(array.transpose(2, 1, 0))
    with quiet(), new_folder(path, ENDING if force else None) as folder:
        file = folder / f"0001{ENDING}"
        with derivable(series.files[0]):
            save(_map(series, frames, quantity, derivation, choices), file)
        with reading_back(path) as check:
            check(_holds(file, series, frames))


def check_values(array: NDArray[np.floating], quantity: Quantity) -> NDArray[np.float32]:
    """The values as float32. Raises ValueError unless they are a finite volume within the quantity's limits."""
    array = np.asarray(array, np.float32)
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ValueError(f"a finite array [X, Y, Z] is needed, not one of shape {array.shape}")
    if array.size and not (quantity.limits[0] <= array.min() and array.max() <= quantity.limits[1]):
        raise ValueError(
            f"the {quantity.name} map has values from {array.min():g} to {array.max():g}, not {quantity.limits}"
        )
    return array


def _map(
    series: Series, frames: NDArray[np.float32], quantity: Quantity, derivation: Derivation, choices: Choices
) -> Dataset:
    """The whole dataset."""
    require("dicom", "highdicom")
    import highdicom
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from highdicom.sr import CodedConcept

    first = series.headers[0]
    uids = [str(header.SOPInstanceUID) for header in series.headers]
    content = (repr([uids, quantity, derivation, frames.shape]).encode(), frames.tobytes())
    series_uid, (uid, dimensions) = new_uids(choices.uid_seed, content, 2)
    low, high = quantity.limits
    mapping = RealWorldValueMapping(
        quantity.name,
        quantity.text,
        CodedConcept(quantity.unit[0], "UCUM", quantity.unit[1]),
        (float(low), float(high)),
        slope=1.0,
        intercept=0.0,
        quantity_definition=CodedConcept(quantity.name, SCHEME, quantity.text),
    )
    number = whole(first.get("SeriesNumber"))
    dataset: Dataset = ParametricMap(
        [_lean(header) for header in series.headers],
        frames,
        series_uid,
        1 if number is None else number + 1,
        uid,
        1,
        MAKER,
        MAKER,
        f"{__version__}, with highdicom {highdicom.__version__}",
        "none",  # of type 1, and software has none
        contains_recognizable_visual_features=True,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)
        ],
        content_label=quantity.name.upper().replace("-", "_"),
        content_description=quantity.text,
    )
    for one in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        one.DimensionOrganizationUID = dimensions
    _set_patient_and_study(dataset, first)
    dataset.SeriesDescription = appended(first.get("SeriesDescription"), quantity.name, 64)  # LO
    dataset.ImageComments = derivation.comments
    return dataset


def _lean(header: Dataset) -> Dataset:
    """The part of an image's header that highdicom needs, and nobody in it."""
    lean = item(**dict.fromkeys(sorted(EMPTY)))
    for name in sorted(NEEDED):
        lean[name] = header[name]
    return lean


def _set_patient_and_study(dataset: Dataset, header: Dataset) -> None:
    """Patient, study, equipment and times, as the series has them."""
    for tag in list(dataset.keys()):
        if tag.group in PATIENT_GROUPS:
            del dataset[tag]
    for tag in list(header.keys()):
        if tag.group in PATIENT_GROUPS:
            dataset.add(deepcopy(header[tag]))
    remove(dataset, TIMES)
    for name in (*sorted(STUDY), *TIMES):
        if name in header:
            dataset[name] = deepcopy(header[name])
    if not {"BodyPartExamined", "Laterality"} & set(dataset.dir()):
        dataset.Laterality = None
    # Content Date and Time are of type 1: where the series notes none, they are the study's, or nothing.
    dataset.ContentDate = header.get("ContentDate") or header.get("StudyDate") or "19000101"
    dataset.ContentTime = header.get("ContentTime") or header.get("StudyTime") or "000000"


def _holds(file: Path, series: Series, frames: NDArray[np.float32]) -> bool:
    """True where the file holds `frames`, each at the position of its slice of the series."""
    from pydicom import dcmread

    written = dcmread(file)
    count, rows, columns = frames.shape
    if (int(written.NumberOfFrames), written.Rows, written.Columns) != (count, rows, columns):
        return False
    values = np.frombuffer(written.FloatPixelData, "<f4").reshape(frames.shape)
    groups = written.PerFrameFunctionalGroupsSequence
    positions = np.array([[float(v) for v in g.PlanePositionSequence[0].ImagePositionPatient] for g in groups])
    expected = np.array([[float(v) for v in header.ImagePositionPatient] for header in series.headers])
    nearest = np.linalg.norm(positions[:, None] - expected[None], axis=2)
    order = nearest.argmin(1)
    return bool(
        np.array_equal(np.sort(order), np.arange(count))
        and nearest.min(1).max() < TOLERANCE_MM
        and np.array_equal(values, frames[order])
    )
