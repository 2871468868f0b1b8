"""BIDS names: `key-value` entities in order, then a suffix, and the names of derivatives made of them.

Names are those of BIDS 1.10. Masks of lesions are `label-lesion_mask`, as its derivatives call them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

T1W = "T1w"
SUFFIXES = (T1W, "T2w", "FLAIR", "PDw")
"""Images that a scan's own prior reconstructs: it knows every contrast. A population prior knows T1w."""
NO_MAGNITUDE = ("phase", "real", "imag")
"""Values of `part-` whose intensities are not a contrast."""
MASK = "mask"
NATIVE = "native"
NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)+)([A-Za-z0-9]+)\.nii(\.gz)?")
LONGEST_NAME = 255 - len("_certificate.json")
"""Bytes of a derivative's name without an ending."""


def entities(name: str) -> dict[str, str] | None:
    """The entities of a file's name, in order, `suffix` last; None where it is no BIDS name of NIfTI."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    pairs = [part.split("-", 1) for part in match[1].rstrip("_").split("_")]
    return {pair[0]: pair[1] for pair in pairs} | {"suffix": match[2]}


def derived_name(source: str, resolution: str | None, description: str) -> str:
    """The source's name with `res-` (None: without) and `desc-`, without its ending; all its entities are kept, so none
    collide."""
    pairs = entities(source)
    assert pairs is not None
    suffix = pairs.pop("suffix")
    pairs |= ({} if resolution is None else {"res": resolution}) | {"desc": description}
    return "_".join([*(f"{key}-{value}" for key, value in pairs.items()), suffix])


def is_magnitude(name: str, suffixes: Sequence[str]) -> bool:
    """True if a file's name is that of an image with one of `suffixes`, and neither phase nor a complex part."""
    pairs = entities(name) or {}
    return pairs.get("suffix") in suffixes and pairs.get("part") not in NO_MAGNITUDE


def resolution_label(task: str, spacing: float | None) -> str | None:
    """`res-`: native where voxels stay what they are, else the result's spacing, such as 2mm or 0p94mm; None: none."""
    if task == "inpaint":
        return NATIVE
    return None if spacing is None else f"{spacing:.3g}mm".replace(".", "p")
