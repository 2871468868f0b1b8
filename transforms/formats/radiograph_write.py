"""A derived CR, DX or other single grey DICOM image: the source's own kind, polarity, bits and window.

The inverse of `radiograph.read`: values -> integers that rise with brightness -> stored integers. Pixels that keep
their value keep their integer. Nothing is compressed; loss that the source has is still said to be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brgm_med.files import reading_back, replacing
from brgm_med.transforms.formats import radiograph
from brgm_med.transforms.formats.dicom import derived
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices, Derivation
from brgm_med.transforms.formats.dicom.elements import derivable, ds
from brgm_med.transforms.formats.dicom.file import read_header
from brgm_med.transforms.formats.dicom.repeated import shared
from brgm_med.transforms.formats.picture import Picture, Written

if TYPE_CHECKING:
    from pydicom import Dataset

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
IN_PIXELS = ((0x0018, 0x1600, 0x1624), (0x0018, 0x1700, 0x1720))
"""Group, first and last element of attributes in rows and columns: shutter (C.7.6.11) and collimator (C.8.7.3)."""


def write(
    path: Path | str,
    values: NDArray[np.floating],
    like: Picture,
    derivation: Derivation,
    choices: Choices = NO_CHOICES,
    force: bool = False,
) -> Written:
    """Write `values` [1, H', W'], in the units of `like` (a DICOM image), as DICOM; the size in millimetres is kept.

    Each is rounded to the nearest integer and clipped to those that Bits Stored declare. The file is whole or not
    there: it is written beside `path`, read back, compared, and renamed. Raises InputRefusedError where `path` exists
    and not `force`; CannotWriteError where it cannot be written; ValueError for values that are not finite or not grey.
    """
    path = Path(path)
    source = read_header(like.path)
    layout = radiograph.layout(source)
    highest = (1 << layout.bits) - 1
    rising, clipped = like.stored_of(values, highest)
    integers = (highest - rising[0] if layout.turned else rising[0]).astype(np.int32) + layout.low
    with derived.quiet(), derivable(like.path):
        dataset = _image(source, integers, layout, like, derivation, choices)
        dataset = derived.last_word(choices, derivation)(dataset)
    with replacing(path, force) as temporary:
        with derivable(like.path):
            derived.save(dataset, temporary)
        with reading_back(path) as check:
            written = radiograph.read(temporary)
            check(np.array_equal(written.stored, rising) and np.array_equal(written.array, like.values_of(rising)))
    return Written(written.array, clipped)


def _image(
    source: Dataset,
    integers: NDArray[np.int32],
    layout: radiograph.Layout,
    like: Picture,
    derivation: Derivation,
    choices: Choices,
) -> Dataset:
    """The whole dataset, pixels included."""
    dataset = shared([source], choices.keep_private)
    allocated = 8 if layout.bits <= 8 else 16
    pixels = integers.astype("<u2" if allocated == 16 else "u1", casting="unsafe").tobytes()  # two's complement
    content = (repr([derivation, integers.shape, source.get("SOPInstanceUID")]).encode(), pixels)
    series_uid, (uid,) = derived.new_uids(choices.uid_seed, content, 1)
    derived.mark_derived(dataset, source, derivation, choices, series_uid)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.InstanceNumber = source.SOPClassUID, uid, 1
    if "SOPInstanceUID" in source:
        dataset.SourceImageSequence = [derived.source_image(source)]
    _set_grid(dataset, integers.shape, like.shape)
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, int(layout.low < 0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, layout.bits, layout.bits - 1
    if "RescaleSlope" in source and not source.get("ModalityLUTSequence"):
        dataset.RescaleSlope, dataset.RescaleIntercept = source.RescaleSlope, source.RescaleIntercept
    elif "RescaleType" in dataset:
        del dataset.RescaleType
    dataset.add_new("PixelData", "OB" if allocated == 8 else "OW", pixels + b"\0" * (len(pixels) % 2))
    return dataset


def _set_grid(dataset: Dataset, shape: tuple[int, ...], old: tuple[int, int]) -> None:
    """Rows, columns and their spacing (10.7.1.3: between rows first). A spacing of 0 is left out: it says nothing."""
    dataset.Rows, dataset.Columns = shape
    for name in SPACINGS:
        spacing = np.atleast_1d(np.asarray(dataset.get(name) or [], np.float64))
        if len(spacing) == 2 and spacing.min() > 0:
            setattr(dataset, name, [ds(s * n / m) for s, n, m in zip(spacing, old, shape, strict=True)])
        elif name in dataset:
            del dataset[name]
    if shape != old:
        for group, first, last in IN_PIXELS:
            for tag in [t for t in list(dataset.keys()) if t.group == group and first <= t.element <= last]:
                del dataset[tag]
