"""The header of an enhanced MR image, said in the attributes of a classic one (PS3.3 A.36 -> A.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brgm_med.transforms.formats.dicom.elements import remove
from brgm_med.transforms.formats.dicom.file import numbers

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED = "SharedFunctionalGroupsSequence"
ENHANCED_ONLY = 0x9000
"""In groups 0008, 0018, 0020, 0028 and 0040, elements from here on belong to enhanced objects."""

MOVED = {
    "MRTimingAndRelatedParametersSequence": ("RepetitionTime", "FlipAngle", "EchoTrainLength"),
    "MRAveragesSequence": ("NumberOfAverages",),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"),
    "FrameAnatomySequence": ("AnatomicRegionSequence",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
}
"""Functional group macro -> the attributes in it that the classic image has under the same name (C.8.13.5)."""


def as_classic(header: Dataset, frame: int = 0) -> Dataset:
    """`header` itself if it is classic, else what it says of `frame` (counted from 0) in a classic one's attributes."""
    from pydicom import Dataset

    if SHARED not in header:
        return header
    result = Dataset()
    for tag in list(header.keys()):
        enhanced = tag.group in (0x0008, 0x0018, 0x0020, 0x0028, 0x0040) and tag.element >= ENHANCED_ONLY
        if not enhanced and tag.group != 0x5200:
            result.add(header[tag])
    for macro, names in MOVED.items():
        group = functional_group(header, macro, frame)
        for name in names:
            if name in group:
                result[name] = group[name]
    modifier = functional_group(header, "MRModifierSequence", frame)
    echo = functional_group(header, "MREchoSequence", frame)
    result.EchoTime = echo.get("EffectiveEchoTime")
    result.SequenceName = str(header.get("PulseSequenceName", ""))[:16] or None
    result.ImagedNucleus = header.get("ResonantNucleus")
    result.ScanningSequence = _scanning(header, modifier)
    result.SequenceVariant = _variant(header, modifier)
    result.ScanOptions = None
    if modifier.get("InversionTimes") is not None:
        times = modifier["InversionTimes"].value
        result.InversionTime = times if isinstance(times, float) else times[0]
    remove(result, [name for name in ("SequenceName", "ImagedNucleus") if result.get(name) is None])
    return result


def functional_group(header: Dataset, macro: str, frame: int) -> Dataset:
    """The one item of `macro`, of `frame` or shared by all; empty where there is none (C.7.6.16)."""
    from pydicom import Dataset

    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*frames[frame : frame + 1], *header[SHARED].value[:1]):
        if groups.get(macro):
            return groups[macro][0]
    return Dataset()


def rescale(header: Dataset, frame: int = 0) -> tuple[float, float]:
    """Slope and intercept of one frame; (1, 0) where nothing is stated, NaN where there are several."""
    stated = functional_group(header, "PixelValueTransformationSequence", frame) if SHARED in header else header
    stated = stated or header
    return _one(stated.get("RescaleSlope"), 1.0), _one(stated.get("RescaleIntercept"), 0.0)


def _one(value: Any, default: float) -> float:
    """The number in an element; `default` in an empty one, or in none; NaN of several."""
    values = numbers(value)
    return default if not len(values) else float(values[0]) if len(values) == 1 else float("nan")


def _scanning(header: Dataset, modifier: Dataset) -> list[str]:
    """Scanning Sequence (C.8.3.1.1.2) of Echo Pulse Sequence and its like (C.8.13.4); "RM", research, if unknown."""
    parts = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(str(header.get("EchoPulseSequence")), [])
    parts = parts + ["EP"] * (header.get("EchoPlanarPulseSequence") == "YES")
    return parts + ["IR"] * (modifier.get("InversionRecovery") == "YES") or ["RM"]


def _variant(header: Dataset, modifier: Dataset) -> list[str]:
    """Sequence Variant (C.8.3.1.1.3)."""
    variants = ["SK"] * (header.get("SegmentedKSpaceTraversal") in ("PARTIAL", "FULL"))
    variants += ["SS"] * (header.get("SteadyStatePulseSequence") not in (None, "", "NONE"))
    return variants + ["SP"] * (str(modifier.get("Spoiling") or "NONE") != "NONE") or ["NONE"]
