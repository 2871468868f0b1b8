"""A DICOM segmentation is read as a mask, whatever its kind, its order and the frames that it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sr.codedict import codes

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.reconstruct.hole import hole_on
from brgm_med.transforms.formats import kind_of, read_mask
from brgm_med.transforms.formats.dicom.reader import Reader
from brgm_med.transforms.geometry import Grid
from tests.mr_series import mr_series


def hole(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """[columns, rows, slices], nothing in the first and the third slice."""
    mask = np.zeros(shape, bool)
    mask[2:5, 3:6, 1], mask[4:9, 1:3, 3] = True, True
    return mask


def segmented(folder: Path, path: Path, kind: str, labels: NDArray[Any], **options: Any) -> Path:
    """`labels` [columns, rows, slices, segments] of the series in `folder`, as highdicom writes them."""
    sources = [dcmread(file) for file in sorted(folder.iterdir())]
    described = [
        SegmentDescription(n + 1, f"s{n}", codes.SCT.Tissue, codes.SCT.Tissue, SegmentAlgorithmTypeValues.MANUAL)
        for n in range(labels.shape[-1])
    ]
    written = Segmentation(
        sources,
        labels.transpose(2, 1, 0, 3),
        kind,
        described,
        series_number=9,
        instance_number=1,
        manufacturer="M",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
        series_instance_uid=hd.UID(),
        sop_instance_uid=hd.UID(),
        **options,
    )
    written.save_as(path)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return mr_series(tmp_path / "scan")


@pytest.mark.parametrize("omit", [True, False])
def test_binary_segments_together_are_the_mask(scan: Path, tmp_path: Path, omit: bool) -> None:
    volume = Reader().read(scan)
    mask = hole(volume.header.shape)
    parts = np.stack([mask & (np.arange(mask.shape[0])[:, None, None] < 4), mask], -1).astype(np.uint8)
    path = segmented(scan, tmp_path / "seg.dcm", "BINARY", parts, omit_empty_frames=omit)
    header, stored = read_mask(path)
    ours = np.argwhere(stored) @ header.affine[:3, :3].T + header.affine[:3, 3]
    theirs = np.argwhere(mask) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    np.testing.assert_allclose(np.sort(ours, 0), np.sort(theirs, 0), atol=1e-3)
    assert stored.dtype == np.uint8
    assert (header.shape == volume.header.shape) == (not omit)


def test_half_and_more_of_a_fraction_counts(scan: Path, tmp_path: Path) -> None:
    mask = hole(Reader().read(scan).header.shape)
    fractions = np.where(mask, 0.7, 0.2)[..., None]
    path = segmented(scan, tmp_path / "seg.dcm", "FRACTIONAL", fractions, max_fractional_value=100)
    _, stored = read_mask(path)
    assert stored.sum() == mask.sum()


def test_a_segmentation_is_no_scan_and_a_damaged_one_no_mask(scan: Path, tmp_path: Path) -> None:
    mask = hole(Reader().read(scan).header.shape)
    path = segmented(scan, tmp_path / "seg.dcm", "BINARY", mask[..., None].astype(np.uint8))
    with pytest.raises(InputRefusedError, match="is a segmentation, no image"):
        kind_of(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputRefusedError, match=r"seg\.dcm: is truncated or damaged"):
        read_mask(path)


def test_it_makes_the_same_hole_as_voxels_do(scan: Path, tmp_path: Path) -> None:
    volume = Reader().read(scan)
    mask = hole(volume.header.shape)
    path = segmented(scan, tmp_path / "seg.dcm", "BINARY", mask[..., None].astype(np.uint8))
    header, stored = read_mask(path)
    on, grid = Grid(header.shape, header.affine), Grid(volume.header.shape, volume.affine)
    made, _ = hole_on(header.decode(stored), on, grid, False)
    np.testing.assert_array_equal(made.numpy(), mask)
