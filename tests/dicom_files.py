"""Small DICOM series, synthesised: every vendor's layout, upright and oblique, classic and enhanced."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

ROOT = "1.2.826.0.1.3680043.8.498."
SHAPE = (7, 6, 5)
"""Columns, rows, slices: all different, so that no two axes can be mixed up."""

PLANES: dict[str, tuple[list[float], list[float]]] = {
    "axial": ([1, 0, 0], [0, 1, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "oblique": ([0.966603458, 0.24100131, 0.087155743], [-0.256076012, 0.921733795, 0.291259142]),
    "flipped": ([-1, 0, 0], [0, 1, 0]),
}
"""Directions, LPS, of rows (along which columns count) and of columns."""

VENDORS: dict[str, dict[str, Any]] = {
    "SIEMENS": {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "MRAcquisitionType": "3D",
        "SpacingBetweenSlices": None,
    },
    "Philips Medical Systems": {"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "RescaleSlope": "2.4188034"},
    "GE MEDICAL SYSTEMS": {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "SmallestImagePixelValue": 0},
    "TOSHIBA_MEC": {"ImageType": ["ORIGINAL", "PRIMARY"], "BitsStored": 16, "PixelRepresentation": 1},
}
"""What their MR headers differ in, as far as it matters to a reader."""


def voxels(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> NDArray[np.uint16]:
    """Whole numbers of 12 bits, [columns, rows, slices]."""
    return np.random.default_rng(seed).integers(0, 4096, shape).astype(np.uint16)


def image(
    pixels: NDArray[Any],
    position: NDArray[np.float64] | list[float],
    plane: str = "axial",
    spacing: tuple[float, float] = (0.8, 1.1),
    thickness: float = 2.5,
    **header: Any,
) -> Dataset:
    """One classic MR slice, `pixels` [rows, columns]; `spacing` between rows, then between columns.

    Keywords of `header` are set last, and deleted where they are None.
    """
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, generate_uid()
    made.Modality, made.Manufacturer = "MR", "SIEMENS"
    made.PatientID, made.PatientName, made.PatientBirthDate = "SECRET-ID", "Secret^Name", "19700101"
    made.PatientSex, made.PatientPosition = "O", "HFS"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    made.FrameOfReferenceUID, made.StudyID, made.AccessionNumber = "1.2.3.5", "1", ""
    made.StudyDate, made.StudyTime, made.ReferringPhysicianName = "20200101", "120000", ""
    made.SeriesNumber, made.SeriesDescription, made.InstanceNumber = 3, "t1 axial", 1
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.ScanningSequence, made.SequenceVariant, made.MRAcquisitionType = "GR", "NONE", "2D"
    made.EchoTime, made.RepetitionTime, made.EchoTrainLength, made.ScanOptions = 4.6, 11, 1, ""
    made.ImagePositionPatient = [f"{x:.9g}" for x in position]
    made.ImageOrientationPatient = [f"{x:.9f}" for direction in PLANES[plane] for x in direction]
    made.PixelSpacing, made.SliceThickness = list(spacing), thickness
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.PixelRepresentation = 8 * pixels.itemsize, int(pixels.dtype.kind == "i")
    made.BitsStored = 12 if pixels.itemsize == 2 else 8 * pixels.itemsize
    for name, value in header.items():
        if value is not None:
            setattr(made, name, value)
        elif name in made:
            delattr(made, name)
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes()
    return made


def tiny_image(number: int, syntax: UID = ExplicitVRLittleEndian, sop_class: UID = MRImageStorage) -> FileDataset:
    """Slice `number` of an axial series that dciodvfy has nothing against, 16 rows and 12 columns of 12 bits.

    UIDs are always the same. RLE where `syntax` says so.
    """
    pixels = np.random.default_rng(number).integers(0, 4096, (16, 12), np.uint16)
    made = image(
        pixels if syntax.is_little_endian else pixels.astype(">u2"),
        [0, 0, 5 * number],
        spacing=(2, 2),
        thickness=5,
        SpecificCharacterSet="ISO_IR 192",
        ImageType=["ORIGINAL", "PRIMARY", "M", "NONE"],
        SOPClassUID=sop_class,
        SOPInstanceUID=generate_uid(ROOT, ["image", str(number), syntax, sop_class]),
        StudyInstanceUID=generate_uid(ROOT, ["study"]),
        SeriesInstanceUID=generate_uid(ROOT, ["series"]),
        FrameOfReferenceUID=generate_uid(ROOT, ["frame"]),
        PositionReferenceIndicator="",
        Laterality="",
        InstanceNumber=number,
    )
    made["PixelData"].VR = "OW"
    whole = FileDataset("", made, bytes(128), made.file_meta, syntax.is_implicit_VR, syntax.is_little_endian)
    whole.file_meta.MediaStorageSOPClassUID = sop_class
    whole.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    if syntax == RLELossless:
        whole.compress(RLELossless, pixels, generate_instance_uid=False)
    else:
        whole.file_meta.TransferSyntaxUID = syntax
    return whole


def tiny_series(folder: Path, count: int = 3, **options: UID) -> list[FileDataset]:
    """`count` of those images, in files in and below `folder`, of names that say nothing."""
    images = [tiny_image(number, **options) for number in range(1, count + 1)]
    for at, made in enumerate(images):
        save(made, folder / ("below" if at else ".") / f"IM{at:04}")
    return images


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3, section 8)."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def normal_of(plane: str) -> NDArray[np.float64]:
    return np.cross(*PLANES[plane])


def slices(
    array: NDArray[Any] | None = None,
    plane: str = "axial",
    gap: float = 3.0,
    origin: tuple[float, float, float] = (-80.5, -101.25, 33.125),
    change: Callable[[int, Dataset], None] | None = None,
    **header: Any,
) -> list[Dataset]:
    """Classic slices of `array` [columns, rows, slices], `gap` mm from centre to centre; `change` alters them."""
    array = voxels() if array is None else array
    made = []
    for k in range(array.shape[2]):
        position = np.array(origin) + k * gap * normal_of(plane)
        made.append(image(array[:, :, k].T, position, plane, **({"InstanceNumber": k + 1} | header)))
        if change is not None:
            change(k, made[-1])
    return made


def expected_affine(
    plane: str = "axial",
    spacing: tuple[float, float] = (0.8, 1.1),
    gap: float = 3.0,
    origin: tuple[float, float, float] = (-80.5, -101.25, 33.125),
) -> NDArray[np.float64]:
    """PS3.3 C.7.6.2.1.1, written out: index (column, row, slice) -> RAS mm."""
    (xx, xy, xz), (yx, yy, yz) = PLANES[plane]
    nx, ny, nz = xy * yz - xz * yy, xz * yx - xx * yz, xx * yy - xy * yx
    dj, di = spacing
    return np.array(
        [
            [-xx * di, -yx * dj, -nx * gap, -origin[0]],
            [-xy * di, -yy * dj, -ny * gap, -origin[1]],
            [xz * di, yz * dj, nz * gap, origin[2]],
            [0, 0, 0, 1],
        ]
    )


def save(made: Dataset, path: Path) -> Path:
    """Written as a file of PS3.10, without a word on what is meant to be wrong in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(path, enforce_file_format=True)
    return path


def save_all(made: list[Dataset], folder: Path, seed: int | None = None) -> Path:
    """Written as IM000, IM001 ..., in random order where `seed` is given."""
    order = np.arange(len(made)) if seed is None else np.random.default_rng(seed).permutation(len(made))
    for i, k in enumerate(order):
        save(made[k], folder / f"IM{i:03}")
    return folder


def series(folder: Path, *args: Any, **kwargs: Any) -> Path:
    """A folder with the files of `slices(...)`."""
    return save_all(slices(*args, **kwargs), folder)


def item(**values: Any) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def enhanced(
    array: NDArray[Any] | None = None,
    plane: str = "axial",
    gap: float = 3.0,
    order: NDArray[np.int64] | None = None,
    echoes: tuple[float, ...] = (4.6,),
    per_frame_rescale: bool = False,
) -> Dataset:
    """The same volume as `slices` makes, as one enhanced MR file; frames in `order` (of slices), echo by echo."""
    array = voxels() if array is None else array
    classic = slices(array, plane, gap)
    order = np.arange(len(classic)) if order is None else order
    made = image(array[:, :, 0].T, [0, 0, 0], plane, SOPClassUID=EnhancedMRImageStorage, PixelSpacing=None)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "EchoTime", "RepetitionTime"):
        delattr(made, name)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, frames, pixels = Dataset(), [], []
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.8, 1.1], SliceThickness=2.5, SpacingBetweenSlices=gap)]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=classic[0].ImageOrientationPatient)]
    if not per_frame_rescale:
        shared.PixelValueTransformationSequence = [item(RescaleSlope=2, RescaleIntercept=-10, RescaleType="US")]
    for e, echo in enumerate(echoes, 1):
        for k in order:
            frame = item(
                PlanePositionSequence=[item(ImagePositionPatient=classic[k].ImagePositionPatient)],
                FrameContentSequence=[
                    item(StackID="1", InStackPositionNumber=int(k) + 1, DimensionIndexValues=[e, int(k)])
                ],
                MREchoSequence=[item(EffectiveEchoTime=echo)],
            )
            if per_frame_rescale:
                rescale = item(RescaleSlope=1 + int(k), RescaleIntercept=-int(k), RescaleType="US")
                frame.PixelValueTransformationSequence = [rescale]
            frames.append(frame)
            pixels.append(array[:, :, k].T + (e - 1))
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], frames
    made.NumberOfFrames, made.PixelData = len(frames), np.stack(pixels).astype(array.dtype).tobytes()
    return made


def dicomdir(folder: Path, names: list[list[str]]) -> Path:
    """A DICOMDIR in `folder` that names these files, as it should or should not."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.FileSetID = "TEST"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.DirectoryRecordSequence = [item(DirectoryRecordType="IMAGE", ReferencedFileID=parts) for parts in names]
    return save(made, folder / "DICOMDIR")


def zipped(folder: Path, path: Path) -> Path:
    """All files of `folder` in a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path
