"""NIfTI read: what is read is what nibabel reads, and everything doubtful is refused."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brgm_med.errors import InputRefusedError
from brgm_med.transforms import formats
from brgm_med.transforms.formats import nifti, nifti_affine
from brgm_med.transforms.formats.nifti_record import DTYPES, LAYOUTS, Order
from tests import contracts
from tests.bad_scans import AFFINE, LYING, make_bad_scans, oblique_affine, opened, poked, voxels
from tests.bad_scans import nifti as image_of

SAYS = {
    "missing": "no such file",
    "folder": "folder",
    "other-name": "not named like a scan",
    "text": "not a NIfTI file",
    "half-of-a-pair": "pair",
    "truncated": "declares 4368 bytes",
    "truncated-gz": "truncated",
    "truncated-inside-gz": "truncated",
    "wrong-crc": "checksum",
    "garbage-after-gz": "damaged",
    "nan": "1 of its voxels",
    "constant": "all its voxels are 42",
    "four-dimensions": "2 volumes",
    "five-dimensions": "3 volumes",
    "rgb": "RGB",
    "complex": "complex",
    "zero-dimension": "dimensions 12 x 0 x 14",
    "negative-dimension": "dimensions 12 x -13 x 14",
    "absurd-dimensions": "absurd dimensions",
    "gigabytes": "more than a file of",
    "gigabytes-gz": "more than a file of",
    "bomb-declared": "more than a file of",
    "bomb-undeclared": "bytes follow the voxels",
    "singular-affine": "singular",
    "nan-affine": "NaN",
    "sheared-affine": "sheared",
    "no-affine": "neither sform nor qform",
    "affines-disagree": "--affine sform",
    "bad-quaternion": "quaternion",
}


@pytest.fixture(scope="module")
def bad_scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_bad_scans(tmp_path_factory.mktemp("bad"))


def test_every_bad_scan_is_refused_in_one_line(bad_scans: dict[str, Path]) -> None:
    for name, path in bad_scans.items():
        contracts.refused(lambda p: formats.for_reading(p).read(p), path, SAYS.get(name, ""))


def test_lying_headers_cost_neither_time_nor_memory_nor_torch(bad_scans: dict[str, Path]) -> None:
    """In a fresh interpreter each: under 1 s and 300 MB, and no heavy import."""
    code = """
import re, sys, time
from brgm_med.errors import InputRefusedError
start = time.perf_counter()
from brgm_med.transforms import formats
try:
    formats.for_reading(sys.argv[1]).read(sys.argv[1])
except InputRefusedError:
    pass
else:
    sys.exit("accepted")
seconds = time.perf_counter() - start
heavy = {"torch", "monai", "nibabel", "SimpleITK", "scipy"} & set(sys.modules)
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(seconds, peak, *heavy)
"""
    for name in LYING:
        done = subprocess.run([sys.executable, "-c", code, bad_scans[name]], check=True, capture_output=True, text=True)
        seconds, peak, *heavy = done.stdout.split()
        assert float(seconds) < 1, name
        assert float(peak) < 300, name
        assert not heavy, name


@pytest.mark.parametrize("choice", ["sform", "qform"])
def test_a_choice_settles_affines_that_disagree(bad_scans: dict[str, Path], choice: str, tmp_path: Path) -> None:
    """And what is written from the chosen one no longer claims the other."""
    path = bad_scans["affines-disagree"]
    witness = opened(path)
    scan = nifti.read(path, choice)
    np.testing.assert_allclose(scan.affine, getattr(witness, f"get_{choice}")(), atol=1e-5)
    nifti.write(tmp_path / "out.nii", scan.array, scan.affine, scan.header)
    again = nifti.read(tmp_path / "out.nii")
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-5)
    assert again.header.form == choice
    other = "qform" if choice == "sform" else "sform"
    assert again.header.nifti.fields[f"{other}_code"] == 0


def test_a_form_that_is_not_chosen_may_be_broken(bad_scans: dict[str, Path]) -> None:
    assert nifti.read(bad_scans["bad-quaternion"], "sform").header.form == "sform"
    assert nifti.read(bad_scans["singular-affine"], "qform").header.form == "qform"
    with pytest.raises(InputRefusedError, match="has no qform"):
        nifti.read(bad_scans["sheared-affine"], "qform")


@pytest.mark.parametrize("version", [1, 2])
def test_layouts_are_the_standard_ones(version: int) -> None:
    theirs = {1: nib.nifti1.header_dtype, 2: nib.nifti2.header_dtype}[version]
    ours = LAYOUTS[version]
    assert ours.itemsize == theirs.itemsize
    assert ours.fields is not None
    assert theirs.fields is not None
    common = theirs.fields.keys() & ours.fields.keys()
    assert len(common) >= 24
    assert all(ours.fields[name][1] == theirs.fields[name][1] for name in common)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_reads_what_nibabel_reads(
    tmp_path: Path, order: Order, kind: type[nib.Nifti1Image], suffix: str, dtype: str
) -> None:
    array = voxels().astype(np.dtype(dtype).newbyteorder(order))
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = kind(array, oblique_affine(1), header)
    image.header.set_slope_inter(0.37, -11)
    nib.save(image, tmp_path / f"a{suffix}")
    witness = opened(tmp_path / f"a{suffix}")
    scan = nifti.read(tmp_path / f"a{suffix}")
    assert scan.header.dtype == array.dtype
    assert scan.array.dtype == np.float32
    np.testing.assert_allclose(scan.array, witness.get_fdata(), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(scan.affine, witness.affine, atol=1e-12)


@pytest.mark.parametrize(("slope", "inter", "expected"), [(0, 5, (1, 0)), (np.nan, np.nan, (1, 0)), (2, 3, (2, 3))])
def test_slope_of_zero_or_nan_means_none(
    tmp_path: Path, slope: float, inter: float, expected: tuple[float, float]
) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(poked(image_of(voxels()).to_bytes(), (112, "<f", slope), (116, "<f", inter)))
    scan = nifti.read(path)
    assert (scan.header.slope, scan.header.inter) == expected
    np.testing.assert_array_equal(scan.array, voxels() * expected[0] + expected[1])


@pytest.mark.parametrize(("code", "scale"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (2 | 8, 1.0)])
def test_units_become_millimetres(tmp_path: Path, code: int, scale: float) -> None:
    """Unknown means mm. Written again, the unit is mm, or unknown as before; the unit of time is kept."""
    affine = AFFINE.copy()
    affine[:3] /= scale
    path = tmp_path / "a.nii"
    path.write_bytes(poked(image_of(voxels(), affine).to_bytes(), (123, "B", code)))
    scan = nifti.read(path)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-4)
    nifti.write(tmp_path / "b.nii", scan.array, scan.affine, scan.header)
    again = nifti.read(tmp_path / "b.nii")
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-4)
    assert again.header.nifti.fields["xyzt_units"] == (code if code in (0, 10) else 2)


def test_one_volume_in_four_dimensions_is_squeezed(tmp_path: Path) -> None:
    nib.save(image_of(voxels((5, 6, 7, 1))), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(nifti.read(tmp_path / "a.nii.gz").array, voxels((5, 6, 7, 1))[..., 0])


def test_gzip_in_members_with_padding_and_under_another_name(tmp_path: Path) -> None:
    content = image_of(voxels()).to_bytes()
    members = gzip.compress(content[:500]) + gzip.compress(content[500:]) + gzip.compress(b"") + bytes(64)
    (tmp_path / "a.nii").write_bytes(members)
    np.testing.assert_array_equal(nifti.read(tmp_path / "a.nii").array, voxels())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_qform_is_the_inverse_of_its_encoding_and_nibabels(seed: int, mirrored: bool) -> None:
    affine = oblique_affine(seed, mirrored)
    record = np.zeros((), LAYOUTS[2])
    nifti_affine.encode_qform(record, affine)
    np.testing.assert_allclose(nifti_affine.qform(record, 1.0), affine, atol=1e-6)
    witness = nib.Nifti2Header()
    witness.set_qform(affine)
    raw = np.frombuffer(witness.binaryblock, LAYOUTS[2]).reshape(())
    np.testing.assert_allclose(nifti_affine.qform(raw, 1.0), witness.get_qform(), atol=1e-9)
