"""A small classic MR series that dciodvfy has nothing against, to derive others from. It belongs to nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat
from scipy.spatial.transform import Rotation

from brgm_med.transforms.formats.dicom.derived import RESAMPLING, Derivation
from brgm_med.transforms.formats.dicom.series import Series, the_series
from tests import dicom_files

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() * [0.9, 1.1, 3.0]
OBLIQUE[:3, 3] = [-7.25, 11.5, -100.125]
"""Column, row and slice index -> LPS mm."""

ROOT = "1.2.826.0.1.3680043.8.498."


def blob(shape: tuple[int, int, int] = (12, 10, 6)) -> NDArray[np.uint16]:
    """Voxels [columns, rows, slices] that tell all directions apart, 0 to 4095."""
    i, j, k = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    noise = np.random.default_rng(0).random(shape)
    return np.rint(4095 * (0.3 * i + 0.2 * j + 0.3 * k**2 + 0.2 * noise)).astype(np.uint16)


def header(**changes: object) -> Dataset:
    """What all slices say. A change to None leaves an attribute out."""
    made = Dataset()
    attributes = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "SOPClassUID": MRImageStorage,
        "StudyDate": "20200102",
        "SeriesDate": "20200102",
        "AcquisitionDate": "20200102",
        "StudyTime": "101112",
        "AccessionNumber": "A77",
        "Modality": "MR",
        "Manufacturer": "Maker",
        "ReferringPhysicianName": "Referring^Doctor",
        "SeriesDescription": "t1 grün",
        "StationName": "STATION",
        "PatientName": "Müller^Jürgen",
        "PatientID": "PAT-4711",
        "PatientBirthDate": "19700203",
        "PatientSex": "M",
        "BodyPartExamined": "HEAD",
        "ScanningSequence": "GR",
        "SequenceVariant": "SP",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "SliceThickness": 3,
        "RepetitionTime": 500,
        "EchoTime": 10,
        "NumberOfAverages": 1,
        "SpacingBetweenSlices": 3,
        "EchoTrainLength": 1,
        "FlipAngle": 70,
        "AcquisitionMatrix": [0, 12, 10, 0],
        "PixelBandwidth": 200,
        "InPlanePhaseEncodingDirection": "ROW",
        "PatientPosition": "HFS",
        "StudyInstanceUID": ROOT + "1",
        "SeriesInstanceUID": ROOT + "2",
        "StudyID": "S1",
        "SeriesNumber": 4,
        "AcquisitionNumber": 1,
        "FrameOfReferenceUID": ROOT + "3",
        "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 1000,
        "WindowWidth": 1800,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
    }
    for name, value in (attributes | changes).items():
        if value is not None:
            setattr(made, name, value)
    return made


def mr_series(
    folder: Path, voxels: NDArray[np.integer] | None = None, lps: NDArray[np.float64] = OBLIQUE, **changes: object
) -> Path:
    """Write a series of one file a slice into the new `folder`; each has its own time, position and private text."""
    folder.mkdir()
    voxels = blob() if voxels is None else voxels
    size = np.linalg.norm(lps[:3, :3], axis=0)
    for k in range(voxels.shape[2]):
        made = header(**changes)
        made.SOPInstanceUID, made.InstanceNumber = f"{ROOT}4.{k + 1}", k + 1
        made.AcquisitionTime = f"10{k // 60:02d}{k % 60:02d}"
        made.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in lps[:3, 2] * k + lps[:3, 3]]
        directions = (lps[:3, :2] / size[:2]).T.ravel()
        made.ImageOrientationPatient = [DSfloat(float(v), auto_format=True) for v in directions]
        made.PixelSpacing = [DSfloat(float(v), auto_format=True) for v in size[1::-1]]
        made.Columns, made.Rows = voxels.shape[:2]
        made.SmallestImagePixelValue, made.LargestImagePixelValue = 0, 4095
        block = made.private_block(0x0029, "MAKER", create=True)
        block.add_new(1, "LO", "private, of all")
        block.add_new(2, "LO", f"private, of slice {k}")
        made.add_new("PixelData", "OW", voxels[:, :, k].T.astype(voxels.dtype.newbyteorder("<")).tobytes())
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.save_as(folder / f"IM{k:03d}", enforce_file_format=True)
    return folder


HOW = Derivation("tried", "Made finer by a test.", RESAMPLING, "Not for diagnosis.", "Prior none.")


def enhanced_source(folder: Path) -> Series:
    """Two echoes in one enhanced file, of which the second is meant."""
    made = dicom_files.enhanced(echoes=(4.6, 9.2), order=np.array([3, 0, 1, 4, 2]))
    shared = made.SharedFunctionalGroupsSequence[0]
    item = dicom_files.item
    shared.MRTimingAndRelatedParametersSequence = [item(RepetitionTime=500, FlipAngle=70, EchoTrainLength=1)]
    shared.MRModifierSequence = [item(InversionRecovery="YES", InversionTimes=[900.0], Spoiling="RF")]
    shared.FrameVOILUTSequence = [item(WindowCenter=1000, WindowWidth=1800)]
    for name in ("ScanningSequence", "SequenceVariant", "ScanOptions", "EchoTrainLength"):
        delattr(made, name)
    made.EchoPulseSequence, made.SteadyStatePulseSequence, made.ResonantNucleus = "GRADIENT", "NONE", "1H"
    made.EchoPlanarPulseSequence, made.PositionReferenceIndicator, made.BodyPartExamined = "NO", "", "HEAD"
    made.SpacingBetweenSlices, made.AcquisitionDateTime = None, "20200101"
    folder.mkdir()
    return the_series(dicom_files.save(made, folder / "enhanced.dcm"), "3/2")
