"""The part of their headers that an image derived from others repeats: equal in all of them, and true of it.

pydicom is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from brgm_med.transforms.formats.dicom.elements import names

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.tag import BaseTag

NOT_REPEATED = names(
    # The instance and its making: written anew, or true of the source's instance only (PS3.3 C.12.1, C.7.6.1).
    "SOPClassUID SOPInstanceUID SeriesInstanceUID InstanceNumber InstanceCreationDate InstanceCreationTime "
    "InstanceCreatorUID InstanceCoercionDateTime RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID "
    "SeriesDate SeriesTime ContentDate ContentTime SourceImageSequence SourceImageEvidenceSequence "
    "ReferencedImageEvidenceSequence ConversionSourceAttributesSequence DigitalSignaturesSequence "
    "MACParametersSequence EncryptedAttributesSequence OriginalAttributesSequence SOPInstanceStatus "
    "SOPAuthorizationDateTime SOPAuthorizationComment AuthorizationEquipmentCertificationNumber BarcodeValue "
    "SeriesDescriptionCodeSequence RelatedSeriesSequence StorageMediaFileSetUID QueryRetrieveView "
    "ReferencedSeriesSequence StudiesContainingOtherReferencedInstancesSequence ImageComments LengthToEnd "
    # Pixels, and what was counted in them (C.7.6.3, C.7.5.1, C.11).
    "Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation PlanarConfiguration "
    "NumberOfFrames SmallestImagePixelValue LargestImagePixelValue SmallestPixelValueInSeries "
    "LargestPixelValueInSeries PixelPaddingValue PixelPaddingRangeLimit IconImageSequence ModalityLUTSequence "
    "RescaleSlope RescaleIntercept RealWorldValueMappingSequence PixelData FloatPixelData DoubleFloatPixelData "
    "ExtendedOffsetTable ExtendedOffsetTableLengths DataSetTrailingPadding"
)
"""Attributes of a source that a derived image gets anew or not at all."""

NOT_REPEATED_GROUPS = (0x0004, 0x5400, 0x7FE0, 0xFFFA, 0xFFFC)
"""Directories, waveforms, pixels, signatures, padding. Overlays and curves (50xx, 60xx) are left out too."""


def shared(headers: Sequence[Dataset], keep_private: bool = False) -> Dataset:
    """Elements that are equal in all of `headers` and that an image derived from them may repeat, type 1 included."""
    from pydicom import Dataset
    from pydicom.datadict import keyword_for_tag

    first, *others = headers
    result = Dataset()
    for tag in list(first.keys()):
        left_out = tag.group in NOT_REPEATED_GROUPS or tag.group >> 8 in (0x50, 0x60) or tag.element == 0
        if left_out or (tag.is_private and not keep_private) or keyword_for_tag(tag) in NOT_REPEATED:
            continue
        element = _readable(first, tag)
        if element is not None and all(_readable(other, tag) == element for other in others):
            result.add(deepcopy(element))
    if not keep_private:
        result.remove_private_tags()  # those inside sequences
    if "SpecificCharacterSet" not in result and any("SpecificCharacterSet" in h for h in headers):
        result.SpecificCharacterSet = "ISO_IR 192"
    _carry_marks(result, headers)
    return result


def _readable(header: Dataset, tag: BaseTag) -> DataElement | None:
    """The element, unless it is not there or cannot be read, such as an integer of 3 bytes."""
    try:
        return header.get(tag)
    except Exception:  # pydicom has many
        return None


def _carry_marks(result: Dataset, headers: Sequence[Dataset]) -> None:
    """Burned-in text and lossy compression of any source are the derived image's too (C.7.6.1.1.5)."""
    if any(h.get("BurnedInAnnotation") == "YES" for h in headers):
        result.BurnedInAnnotation = "YES"
    lossy = [h for h in headers if h.get("LossyImageCompression") == "01"]
    for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy and name in lossy[0]:
            result[name] = deepcopy(lossy[0][name])
