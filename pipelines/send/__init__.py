"""Sending of DICOM files to an archive."""
