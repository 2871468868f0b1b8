"""Radiographs of noise in DICOM, right and wrong ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from brgm_med.transforms.formats.dicom.derived import MASKING, Derivation

UID = "1.2.826.0.1.3680043.8.498.1"


def pixels(dtype: str = "uint16", bits: int = 12) -> NDArray:
    """Noise over all integers of so many bits, both ends included, [20, 31]."""
    low = -(1 << bits - 1) if np.dtype(dtype).kind == "i" else 0
    array = np.random.default_rng(0).integers(low, low + (1 << bits), (20, 31)).astype(dtype)
    array[0, :2] = low, low + (1 << bits) - 1
    return array


def dicom(array: NDArray, bits: int = 12, photometric: str = "MONOCHROME2", **header: object) -> Dataset:
    """A CR image of integers of `bits` bits."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = ComputedRadiographyImageStorage, UID
    made.Rows, made.Columns = array.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, photometric
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * array.itemsize, bits, bits - 1
    made.PixelRepresentation = int(array.dtype.kind == "i")
    made.PixelData = array.tobytes()
    for name, value in header.items():
        setattr(made, name, value)
    return made


def written(made: Dataset, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is wrong in those that are meant to be
        made.save_as(path, enforce_file_format=True)
    return path


HOW = Derivation("tried", "Filled by a test.", MASKING, "Not for diagnosis.", "Prior none.")
