"""The part that all derived DICOM images share: patient, study, sources, software and the derivation.

The patient, the study, the frame of reference and all else that stays true come from the source's own headers (see
`dicom.repeated`). What is said of the derivation: PS3.3 C.7.6.1.1.3 (derivation), C.7.6.1.1.4 (source images), C.12.1
(SOP Common). pydicom is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from brgm_med._version import __version__
from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from brgm_med.transforms.formats.dicom.elements import appended, item, whole

if TYPE_CHECKING:
    from pydicom import Dataset

Transform = Callable[["Dataset"], "Dataset"]
Code = tuple[str, str]
"""A code of DICOM's own scheme (DCM, PS3.16 annex D) and its meaning."""

RESAMPLING: Code = ("113085", "Spatial resampling")  # CID 7203, image derivation
MASKING: Code = ("113047", "Pixel by pixel mask")
SOURCE: Code = ("121322", "Source image for image processing operation")  # CID 7202, purposes of source images
PROCESSING: Code = ("109102", "Processing Equipment")  # CID 7005, purposes of contributing equipment

IMPLEMENTATION_UID = "2.25.253079578856551241572512008906299980876"
MAKER = "brgm-med"
SERIES_STEP = 1000
"""Added to the source's Series Number."""


@dataclass(frozen=True)
class Derivation:
    """The derivation of an image. `title` ends its Series Description, `text` tells a reader, `statement` warns him.

    `tool` says by which prior, by name and hash; `account`, ASCII lines, what the certificate tells of the making.
    """

    title: str
    text: str
    code: Code
    statement: str
    tool: str = ""
    account: str = ""

    @property
    def comments(self) -> str:
        """Text for Image Comments, in any character set: an LT, of at most 10240 characters (PS3.5, table 6.2-1)."""
        return "\r\n".join(filter(None, [self.statement, *self.account.splitlines()]))[:10240]


@dataclass(frozen=True)
class Choices:
    """The user's choices for DICOM output.

    With `uid_seed` the UIDs follow from the seed and the image, and no time of day is noted, so that the same work
    gives the same files. `keep_private`: the source's private elements too. `transform` has the last word on every
    dataset.
    """

    uid_seed: str | None = None
    keep_private: bool = False
    transform: Transform | None = None


NO_CHOICES = Choices()


def last_word(choices: Choices, derivation: Derivation) -> Transform:
    """The last change of every dataset by `choices`; a deidentifier is told which texts are this software's own."""
    if isinstance(choices.transform, Deidentifier):
        return choices.transform.keeping(
            derivation.title, derivation.text, derivation.comments, f"{derivation.text} {derivation.tool}".strip()
        )
    return choices.transform or (lambda dataset: dataset)


quiet = partial(warnings.catch_warnings, action="ignore")
"""pydicom warns of odd values; those of a source are not for a derived image to complain of."""


def mark_derived(
    dataset: Dataset, source: Dataset, derivation: Derivation, choices: Choices, series_uid: str, kind: str = ""
) -> None:
    """Mark `dataset` as derived: the attributes that are the same for a whole series, its making and its maker.

    `kind` is Image Type's third value where the source has none. The source's own derivation stays before this
    one.
    """
    image_type = source.get("ImageType") or []
    third = (image_type[2] if not isinstance(image_type, str) and len(image_type) > 2 else "") or kind
    dataset.ImageType = ["DERIVED", "SECONDARY", third] if third else ["DERIVED", "SECONDARY"]
    dataset.SeriesInstanceUID = series_uid
    number = whole(source.get("SeriesNumber"))
    dataset.SeriesNumber = SERIES_STEP + number if number is not None and 0 <= number < 1 << 30 else None
    dataset.SeriesDescription = appended(source.get("SeriesDescription"), derivation.title, 64)  # LO
    dataset.ImageComments = derivation.comments
    earlier = dataset.get("DerivationDescription")
    dataset.DerivationDescription = appended(earlier, derivation.text, 1024)  # ST
    dataset.DerivationCodeSequence = [*dataset.get("DerivationCodeSequence", []), coded(derivation.code)]
    dataset.ContentQualification = "RESEARCH"
    now = None if choices.uid_seed is not None else datetime.now().astimezone()
    if now is not None:
        with suppress(ValueError):  # of a source that says no time zone, or a wrong one
            now = now.astimezone(datetime.strptime(str(dataset.get("TimezoneOffsetFromUTC")), "%z").tzinfo)
        for name in ("InstanceCreation", "Series", "Content"):
            setattr(dataset, f"{name}Date", now.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", now.strftime("%H%M%S"))
    machines = dataset.get("ContributingEquipmentSequence", [])
    dataset.ContributingEquipmentSequence = [*machines, equipment(derivation, now)]


def equipment(derivation: Derivation, now: datetime | None) -> Dataset:
    """This software, for Contributing Equipment Sequence (C.12.1.1.5)."""
    made_by = item(
        PurposeOfReferenceCodeSequence=[coded(PROCESSING)],
        Manufacturer=MAKER,
        ManufacturerModelName=MAKER,
        SoftwareVersions=__version__,
        ContributionDescription=f"{derivation.text} {derivation.tool}".strip()[:1024],
    )
    if now is not None:
        made_by.ContributionDateTime = now.strftime("%Y%m%d%H%M%S%z")
    return made_by


def source_image(header: Dataset) -> Dataset:
    """An item of Source Image Sequence that refers to the instance of `header`."""
    return item(
        ReferencedSOPClassUID=header.SOPClassUID,
        ReferencedSOPInstanceUID=header.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[coded(SOURCE)],
    )


def coded(code: Code) -> Dataset:
    """An item of a code sequence (PS3.3, table 8.8-1)."""
    return item(CodeValue=code[0], CodeMeaning=code[1], CodingSchemeDesignator="DCM")


def new_uids(seed: str | None, content: Iterable[bytes], count: int) -> tuple[str, list[str]]:
    """UIDs of a series and of its `count` instances, 2.25.<UUID as a number> (PS3.5 B.2).

    Random; with a `seed`, made of it and `content`, which must hold all that the files will hold.
    """
    if seed is None:
        root = uuid.uuid4()
    else:
        digest = hashlib.sha256(seed.encode() + b"\0")
        for piece in content:
            digest.update(piece)
        root = uuid.UUID(bytes=digest.digest()[:16], version=5)
    return f"2.25.{root.int}", [f"2.25.{uuid.uuid5(root, str(n)).int}" for n in range(1, count + 1)]


def save(dataset: Dataset, path: Path) -> None:
    """Write a file of this implementation, Explicit VR Little Endian, with an empty preamble (PS3.10, section 7.1).

    The source's values stay as they are, valid or not: it is not for a derived image to correct a patient's age.
    """
    from pydicom.config import disable_value_validation
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()  # pydicom adds its version and the image's class and UID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"BRGM_{__version__}"[:16]
    dataset.file_meta = meta
    with disable_value_validation(), quiet():
        dataset.save_as(path, enforce_file_format=True)
