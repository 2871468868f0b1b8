"""Planted strings: what must not come out of a de-identification, anywhere, in any encoding."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, FileDataset
from pydicom.uid import generate_uid

from tests.dicom_files import ROOT, code

CREATOR = "PLANTEDCREATOR"
TOP = {
    "PatientName": "Q01PLANTED^Q02GIVEN",
    "PatientID": "Q03PLANTED",
    "PatientBirthName": "Q04PLANTED^X",
    "OtherPatientIDs": "Q05PLANTED",
    "PatientAddress": "Q06PLANTED street 1",
    "PatientMotherBirthName": "Q07PLANTED^X",
    "PatientTelephoneNumbers": "Q08PLANTED",
    "PatientComments": "Q09PLANTED was here",
    "AdditionalPatientHistory": "Q10PLANTED fell",
    "AccessionNumber": "Q11PLANTED",
    "StudyID": "Q12PLANTED",
    "StudyDescription": "Q13PLANTED brain",
    "SeriesDescription": "Q14PLANTED t1",
    "ProtocolName": "Q15PLANTED mprage",
    "InstitutionName": "Q16PLANTED hospital",
    "InstitutionAddress": "Q17PLANTED road",
    "InstitutionalDepartmentName": "Q18PLANTED ward",
    "StationName": "Q19PLANTED",
    "ReferringPhysicianName": "Q20PLANTED^DR",
    "PerformingPhysicianName": "Q21PLANTED^DR",
    "OperatorsName": ["Q22PLANTED^OP", "Q23PLANTED^OP"],
    "DeviceSerialNumber": "Q24PLANTED",
    "ImageComments": "Q25PLANTED moved",
    "DerivationDescription": "Q26PLANTED derived",
    "RequestedProcedureDescription": "Q27PLANTED mri",
    "CommentsOnTheScheduledProcedureStep": "Q28PLANTED comes late",
    "RetrieveAETitle": "Q29PLANTED",
    "MedicalAlerts": "Q30PLANTED allergy",
    "PatientInsurancePlanCodeSequence": [code("Q31PLANTED", "99X", "Q32PLANTED plan")],
    "IssuerOfPatientID": "Q33PLANTED",
    "SecondaryReviewerName": "Q34PLANTED^R",
    "CertificateOfSigner": b"Q35PLANTED",
    "MAC": b"Q36PLANTED",
    "PatientBirthDateInAlternativeCalendar": "Q56PLANTED",
    "FillerOrderNumberProcedure": "Q57PLANTED",
}
"""Standard attributes of a data set (AccessionNumber and the like with at most 16 characters, as their VRs ask for)."""
DATES = {
    "StudyDate": "19871123",
    "SeriesDate": "19871124",
    "AcquisitionDate": "19871125",
    "ContentDate": "19871126",
    "PatientBirthDate": "19191117",
    "InstanceCreationDate": "19871127",
    "AcquisitionDateTime": "19871128010203",
    "DateOfLastCalibration": "19871129",
}


def plant(image: FileDataset) -> list[str]:
    """Put strings and UIDs wherever there is a place for them; returns what must not be found."""
    for name, value in TOP.items():
        setattr(image, name, value)
    for name, date in DATES.items():
        setattr(image, name, date)
    image.add_new(0x00091010, "LO", "Q37PLANTED")
    image.private_block(0x0029, CREATOR, create=True).add_new(0x01, "PN", "Q38PLANTED^P")
    image.private_block(0x0029, CREATOR).add_new(0x02, "OB", b"Q39PLANTED")
    image.private_block(0x0029, CREATOR).add_new(0x03, "UN", b"Q40PLANTED")
    image.add_new(0x00081234, "UN", b"Q41PLANTED")  # of no standard meaning
    image.add_new(0x60000010, "US", 4)
    image.add_new(0x60000011, "US", 4)
    image.add_new(0x60000040, "CS", "G")
    image.add_new(0x60000050, "SS", [1, 1])
    image.add_new(0x60000100, "US", 1)
    image.add_new(0x60000102, "US", 0)
    image.add_new(0x60003000, "OW", b"Q42PLANTED")
    image.add_new(0x60004000, "LT", "Q43PLANTED in an overlay")
    image.add_new(0x60020022, "LO", "Q44PLANTED")
    image.add_new(0x50003000, "OW", b"Q45PLANTED")

    equipment = Dataset()
    equipment.Manufacturer, equipment.InstitutionName = "ACME", "Q46PLANTED"
    equipment.OperatorsName, equipment.ContributionDescription = "Q47PLANTED^X", "Q48PLANTED"
    equipment.ContributionDateTime = "19871130010203"
    equipment.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    equipment.private_block(0x0029, CREATOR, create=True).add_new(0x01, "LO", "Q49PLANTED")
    image.ContributingEquipmentSequence = [equipment]
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "Q58PLANTED"
    image.IssuerOfAccessionNumberSequence = [issuer]
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "Q50PLANTED", "Q51PLANTED"
    image.RequestAttributesSequence = [request]
    source, deeper = Dataset(), code("121320", "DCM", "Uncompressed predecessor")
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = image.SOPClassUID, generate_uid(ROOT, ["source"])
    deeper.add_new(0x00100010, "PN", "Q52PLANTED^DEEP")
    source.PurposeOfReferenceCodeSequence = [deeper]
    image.SourceImageSequence = [source]
    image.preamble = b"Q53PLANTED".ljust(128, b"\0")
    image.file_meta.PrivateInformationCreatorUID = generate_uid(ROOT, ["creator"])
    image.file_meta.PrivateInformation = b"Q54PLANTED"
    image.file_meta.SourceApplicationEntityTitle = "Q55PLANTED"
    uids = (image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID)
    texts = [f"Q{number:02}{'GIVEN' if number == 2 else 'PLANTED'}" for number in range(1, 59)]  # pixels may spell Q52
    return [*texts, CREATOR, *DATES.values(), "19871130", *map(str, uids), source.ReferencedSOPInstanceUID]


def found(planted: Iterable[str], paths: Iterable[Path] = (), text: str = "") -> list[str]:
    """Which of the strings are in the bytes or names of files (of folders: all in them) or in `text`."""
    contents = [text.encode()]
    for path in paths:
        for file in [path, *path.rglob("*")]:
            contents.append(file.name.encode())
            if file.is_file():
                contents.append(file.read_bytes())
    forms = {word: (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")) for word in planted}
    return [word for word, looks in forms.items() if any(look in content for look in looks for content in contents)]
