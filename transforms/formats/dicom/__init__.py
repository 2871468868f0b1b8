"""DICOM: series and volumes in, derived series out."""

from brgm_med.transforms.formats.dicom.reader import Reader, is_volume

__all__ = ["Reader", "is_volume"]
