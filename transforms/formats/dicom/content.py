"""The pixel data of a DICOM series, by a hash: a copy has the same, whatever its names, order and headers are."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.staging import clear_scratch
from brgm_med.transforms.formats.dicom.archive import files_in
from brgm_med.transforms.formats.dicom.file import PIXELS, check_not_deflated, strict
from brgm_med.transforms.formats.zipped import is_zip


def pixel_digest(path: Path) -> str:
    """SHA-256 of the pixel data of all DICOM files at `path` (a file, folder or zip), as stored and in any order; files
    without pixels do not count. Raises InputRefusedError."""
    from pydicom import dcmread

    hashes = []
    for file in files_in(path).dicom:
        with strict(file):
            check_not_deflated(file)
            image = dcmread(file, specific_tags=list(PIXELS))
            hashes += [hashlib.sha256(image[tag].value).hexdigest() for tag in PIXELS if tag in image]
    if not hashes:
        refuse(path, "holds no pixels", "copy it again if it is truncated, or remove it")
    return hashlib.sha256(" ".join(sorted(hashes)).encode()).hexdigest()


def same_pixels(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of two or more of the DICOM folders and zips `paths` whose pixel data are the same; what cannot be read,
    and is refused later, is in none. What is unpacked of a zip is removed."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            groups[pixel_digest(path)].append(path)
        except InputRefusedError:
            continue
        finally:
            if is_zip(path):
                clear_scratch()
    return [group for group in groups.values() if len(group) > 1]
