"""A tiny MR series on the disk, valid to dciodvfy, for what sends or de-identifies DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid

ROOT = "1.2.826.0.1.3680043.8.498."
FRAME = generate_uid(ROOT, ["frame"])


def image(number: int, syntax: UID = ExplicitVRLittleEndian, sop_class: UID = MRImageStorage) -> FileDataset:
    """Slice `number` of an axial series, 16 rows and 12 columns; RLE where `syntax` says so."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(ROOT, ["image", str(number), syntax, sop_class])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, bytes(128), meta, syntax.is_implicit_VR, syntax.is_little_endian)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.StudyDate = made.SeriesDate = made.ContentDate = "20240229"
    made.StudyTime = made.SeriesTime = made.ContentTime = "123456"
    made.AccessionNumber = made.StudyID = "7"
    made.Modality, made.Manufacturer = "MR", "ACME"
    made.ReferringPhysicianName = made.PatientName = "NOBODY"
    made.PatientID, made.PatientBirthDate, made.PatientSex = "0", "19700101", "O"
    made.ScanningSequence, made.SequenceVariant, made.ScanOptions, made.MRAcquisitionType = "GR", "SP", "", "3D"
    made.SliceThickness, made.RepetitionTime, made.EchoTime = 5, 2000, 3
    made.EchoTrainLength, made.FlipAngle, made.MagneticFieldStrength = 1, 8, 1.5
    made.PatientPosition = "HFS"
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(ROOT, ["study"]), generate_uid(ROOT, ["series"])
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = FRAME, ""
    made.SeriesNumber, made.InstanceNumber = 1, number
    made.Laterality = ""
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns, made.PixelSpacing = 16, 12, [2, 2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(number).integers(0, 4096, (16, 12), np.uint16)
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    if syntax == RLELossless:
        made.compress(RLELossless, pixels, generate_instance_uid=False)
        return made
    meta.TransferSyntaxUID = syntax
    if not syntax.is_little_endian:
        made["PixelData"].value = pixels.astype(">u2").tobytes()
    return made


def save(made: FileDataset, path: Path) -> None:
    """Write an image in the transfer syntax that its file meta information states."""
    made.save_as(path, enforce_file_format=True)


def write_series(folder: Path, count: int = 3, **options: UID) -> list[FileDataset]:
    """`count` slices, below `folder`, of names that say nothing."""
    images = [image(number, **options) for number in range(1, count + 1)]
    (folder / "below").mkdir(parents=True, exist_ok=True)
    for at, made in enumerate(images):
        save(made, folder / ("below" if at else ".") / f"IM{at:04}")
    return images


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3, section 8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
