"""DICOM: series and volumes in, derived series out."""

from brgm_med.transforms.formats.dicom.reader import KIND, DicomHeader, DicomScan, Reader, is_volume

__all__ = ["KIND", "DicomHeader", "DicomScan", "Reader", "is_volume"]
