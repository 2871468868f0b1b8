"""De-identification: the Basic Application Level Confidentiality Profile of PS3.15, annex E, for images.

What is to be done with each attribute is the table of dicom-anonymizer (PS3.15 2026c, table E.1-1), and its dummy
values are used. Its own walk over a data set is not: it leaves nested sequences as they are, writes dummy dates where
they are to be removed, knows few of the UIDs, and keeps its map of UIDs in the open. Here, beyond the table:

- the table holds at every depth, and in the file meta information and the preamble too;
- every UID that is not defined by DICOM, and does not name a class, a syntax or a coding scheme, goes through one
  secret map, so what referred to each other still does;
- private attributes, curves and overlays as a whole, and attributes that the dictionary does not know are removed;
- of what the table does not list, attributes of patients and orders (`REMOVED_TOO`) and, but for parts of codes,
  names, dates, addresses and free text (`FREE`) are removed;
- patients get a pseudonym instead of an empty Patient ID, or an archive would take all of them for one.

Pixels stay as they are: a face can still be made from a head scan (`FACES`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable
from copy import copy, deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.extras import require
from brgm_med.transforms.formats.dicom.elements import item, names

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

FACES = "warning: de-identified headers only; the pixels of a head scan still show the face, deface them before sharing"
TABLE = "dicomfields_2026c"
PROFILE = "Basic Application Confidentiality Profile"
METHOD = f"PS3.15 2026c Basic Profile, brgm-med {__version__}"
DICOM_ROOT = "1.2.840.10008."
FREE = {"AE", "DA", "DT", "LT", "PN", "ST", "TM", "UC", "UR", "UT"}
"""Value representations that are removed unless the table says otherwise, and UN."""
CODES = names(
    "LongCodeValue URNCodeValue ExtendedCodeMeaning CodingSchemeExternalID CodingSchemeName "
    "CodingSchemeResponsibleOrganization CodingSchemeURL"
)
OPEN_UIDS = {"CodingSchemeUID", "ContextUID", "ContextGroupExtensionCreatorUID", "MappingResourceUID"}
DUMMY_DATES = {"DA": "19000101", "DT": "19000101000000"}
"""dicom-anonymizer's, of the year 1, are not valid to dciodvfy."""

REMOVED_TOO = names(
    "EncryptedAttributesSequence PrivateInformation PrivateInformationCreatorUID StorageMediaFileSetID "
    "PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar "
    "PatientBodyMassIndex PatientSizeCodeSequence BreedRegistrationSequence BreedRegistrationNumber "
    "StrainStockSequence StrainStockNumber SourcePatientGroupIdentificationSequence "
    "GroupOfPatientsIdentificationSequence PatientClinicalTrialParticipationSequence "
    "IssuerOfPatientIDQualifiersSequence IssuerOfAccessionNumberSequence OrderPlacerIdentifierSequence "
    "OrderFillerIdentifierSequence AssigningFacilitySequence AssigningJurisdictionCodeSequence "
    "AssigningAgencyOrDepartmentCodeSequence PlacerOrderNumberProcedure FillerOrderNumberProcedure "
    "PlacerOrderNumberImagingServiceRequestRetired FillerOrderNumberImagingServiceRequestRetired "
    "RequestingPhysicianIdentificationSequence RequestingServiceCodeSequence ResponsibleGroupCodeSequence "
    "ScheduledProcedureStepSequence ScheduledStepAttributesSequence"
)
"""Attributes that the table does not list, though they tell of the patient, or name orders or who gave them."""


class Deidentifier:
    """`deidentifier(dataset)` is a de-identified copy; UIDs and pseudonyms agree over all copies of one."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._own: list[str] = []

    def keeping(self, *own: str) -> Deidentifier:
        """One of the same secret, with texts that this software wrote itself and that hold nothing of the patient.

        Where an attribute to be removed ends with one of them, that is kept and what is before it goes.
        """
        other = copy(self)
        other._own = sorted(filter(None, own), key=len, reverse=True)
        return other

    def __call__(self, dataset: Dataset) -> Dataset:
        """Raises InputRefusedError for what is no image, for burned-in annotation and for unreadable attributes."""
        check(dataset)
        result = deepcopy(dataset)
        if hasattr(result, "file_meta"):
            self._clean(result.file_meta)
        if getattr(result, "preamble", None):
            result.preamble = bytes(128)  # type: ignore[attr-defined]
        identity = "|".join(str(dataset.get(name, "")) for name in ("PatientID", "IssuerOfPatientID", "PatientName"))
        self._clean(result)
        result.PatientName = result.PatientID = f"ANON-{self._digest('patient', identity).hex()[:12].upper()}"
        # What was done: PS3.15 E.1.1, step 6, and PS3.16, context group 7050.
        code = item(CodeValue="113100", CodingSchemeDesignator="DCM", CodeMeaning=PROFILE)
        result.PatientIdentityRemoved = "YES"
        result.DeidentificationMethod, result.DeidentificationMethodCodeSequence = METHOD, [code]
        result.LongitudinalTemporalInformationModified = "REMOVED"
        return result

    def uid(self, old: str) -> str:
        """The secret map of UIDs: one of this run's for each, made as PS3.5, annex B.2 has it."""
        if not old or old.startswith(DICOM_ROOT):
            return old
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', old)[:16], version=4).int}"

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.digest(self._secret, f"{kind}|{value}".encode(), hashlib.sha256)

    def _clean(self, dataset: Dataset) -> None:
        """Apply the profile to every attribute of a data set, and of the items in it. Changes `dataset`."""
        from pydicom.datadict import keyword_for_tag

        for tag in list(dataset.keys()):
            name = keyword_for_tag(tag)
            if tag.group % 2 or tag.group >> 8 in (0x50, 0x60) or not name or name in REMOVED_TOO:
                del dataset[tag]
                continue
            try:
                element = dataset[tag]
            except Exception as error:  # whose message may hold the value
                raise InputRefusedError(f"the attribute {name} {tag} cannot be read; correct the header") from error
            if not self._settle(element, name, _actions().get((tag.group, tag.element))):
                del dataset[tag]

    def _settle(self, element: DataElement, name: str, action: str | None) -> bool:
        """Change an element as `action` says; whether it stays."""
        from dicomanonymizer.simpledicomanonymizer import replace_element

        if action == "delete":
            own = [text for text in self._own if str(element.value).endswith(text)]
            if own:
                element.value = own[0]
            return bool(own)
        if element.VR == "SQ":
            if action not in (None, "delete_or_empty_or_replace_UID"):
                element.value = []
                return action in ("empty", "delete_or_empty")
            items = [deepcopy(one) for one in element.value]  # one item may be shared, and is mapped only once
            for one in items:
                self._clean(one)
            element.value = items
            return True
        if element.VR == "UI":
            if name not in OPEN_UIDS and not any(part in name for part in ("ClassUID", "Classes", "TransferSyntax")):
                many = element.VM > 1
                element.value = [self.uid(str(u)) for u in element.value] if many else self.uid(str(element.value))
            return True
        if action is None:
            return element.VR != "UN" and (element.VR not in FREE or name in CODES)
        if action in ("empty", "delete_or_empty"):
            element.clear()
        elif element.VR in DUMMY_DATES:
            element.value = DUMMY_DATES[element.VR]
        else:
            replace_element(element)
        return True


def check(header: Dataset, name: str = "the image") -> None:
    """Find out early whether an image can be de-identified. Raises InputRefusedError; `name` begins the message."""
    if not any(pixels in header for pixels in ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "Rows")):
        raise InputRefusedError(f"{name}: holds no image; only images can be de-identified here")
    if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        problem = "declares annotation burned into its pixels (Burned In Annotation, 0028,0301)"
        raise InputRefusedError(f"{name}: {problem}; black it out and correct the header before it is de-identified")


@cache
def _actions() -> dict[tuple[int, ...], str]:
    """The table: (group, element) -> the name of what is done, which are dicom-anonymizer's."""
    require("dicom", "dicomanonymizer")
    from dicomanonymizer.simpledicomanonymizer import initialize_actions

    table: dict[tuple[int, ...], Callable[..., Any]] = initialize_actions(TABLE)
    return {tag: action.__name__ for tag, action in table.items()}
