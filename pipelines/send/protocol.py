"""DICOM instances, and an archive's answers about them, whichever way they are sent."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.transforms.formats.dicom.archive import walk
from brgm_med.transforms.formats.dicom.file import MEDIA_DIRECTORY, UNDEFINED_LENGTH, is_dicom
from brgm_med.transforms.formats.dicom.passed import Passed, refuse_missing

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Instance:
    """A DICOM file, and what its file meta information (PS3.10, section 7.1) says of it."""

    path: Path
    sop_class: str
    uid: str
    syntax: str


@dataclass(frozen=True)
class Answer:
    """Answer of an archive about one instance; `later`: it may be stored if it is sent again."""

    stored: bool
    text: str
    later: bool = False


class UnreachableError(Exception):
    """The archive took no instance at all, or no more of them; `later`: it may if it is asked again."""

    def __init__(self, text: str, later: bool) -> None:
        super().__init__(text)
        self.later = later


Answers = Generator[tuple[Instance, Answer], None, None]
Sender = Callable[[Sequence[Instance]], Answers]
"""Sends instances in any order, giving each one's answer; raises UnreachableError."""


def answer(code: int) -> Answer:
    """The meaning of a status of C-STORE (PS3.4 B.2.3, PS3.7 C), which STOW-RS reports too (PS3.3 C.14.1.1).

    Never the archive's own comment: that may speak of the patient.
    """
    from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS, code_to_category

    meaning = f"0x{code:04X} {STORAGE_SERVICE_CLASS_STATUS.get(code, ('', 'unknown status'))[1]}".strip()
    if code == 0:
        return Answer(True, "stored")
    if code_to_category(code) == "Warning":
        return Answer(True, f"stored, with a warning ({meaning})")
    # Processing failure, resource limitation, out of resources.
    return Answer(False, f"refused ({meaning})", code in (0x0110, 0x0213) or code >> 8 == 0xA7)


SLOWEST = 50_000
"""Bytes a second, of a connection that is waited for."""


def seconds_for(instance: Instance, answering: float) -> float:
    """How long an exchange about an instance may take: to send it over the slowest connection, and to be answered."""
    return answering + instance.path.stat().st_size / SLOWEST


def instances_in(path: Path, allow_missing_files: bool = False) -> tuple[list[Instance], tuple[Passed, ...]]:
    """The DICOM instances at `path` (a file, or a folder and all below) by name, and the files that are none.

    Raises InputRefusedError where there is none, for one that is truncated or damaged, and, unless
    `allow_missing_files`, for a file that is none and may have been one.
    """
    if not path.exists():
        refuse(path, "no such file or folder", "check the name")
    files, others = walk(path) if path.is_dir() else ((path,) if is_dicom(path) else (), ())
    if not allow_missing_files:
        refuse_missing(path, others)
    instances = []
    for file in files:
        try:
            meta = _meta_of_whole(file)
            names = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
            sop_class, uid, syntax = (str(meta[name].value) for name in names)
        except Exception as error:  # pydicom has many for damaged files
            raise InputRefusedError(f"{file}: is truncated or damaged; copy or export it again") from error
        if sop_class != MEDIA_DIRECTORY:  # a DICOMDIR is of the medium that it lies on (PS3.10, section 8)
            instances.append(Instance(file, sop_class, uid, syntax))
    if not instances:
        refuse(path, "holds no DICOM file that can be sent", "give DICOM files (PS3.10)")
    return instances, others


def _meta_of_whole(file: Path) -> Dataset:
    """The file meta information of a file that holds all it declares. Raises any exception for one that does not."""
    from pydicom import dcmread
    from pydicom.dataelem import RawDataElement

    dataset = dcmread(file, defer_size=1024)
    end = 0  # of elements of stated length: pydicom itself misses the delimiter at the end of the others
    if not dataset.file_meta.TransferSyntaxUID.is_deflated:
        raw = [e for e in dataset.values() if isinstance(e, RawDataElement) and e.length != UNDEFINED_LENGTH]
        end = max((e.value_tell + e.length for e in raw), default=0)
    if end > file.stat().st_size:
        raise EOFError
    return dataset.file_meta
