"""DICOM that others made, and what others make of it: pydicom's own files, a real head, and dcm2niix as the witness."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from brgm_med.errors import InputRefusedError
from brgm_med.transforms import formats
from brgm_med.transforms.formats import dicom
from brgm_med.transforms.formats.dicom.series import find_series, the_series
from brgm_med.transforms.formats.header import Volume
from tests.dicom_files import PLANES, VENDORS, enhanced, save, save_all, slices, voxels

SINGLE = (
    *("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm"),
    *("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "CT_small.dcm", "examples_overlay.dcm"),
    *("693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"),
)
"""Toshiba, GE, Siemens and others, of the files that pydicom is installed with."""


def shipped(name: str) -> Path:
    """Never from the network."""
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"pydicom has no {name}")
    return Path(str(found))


@pytest.mark.parametrize("name", SINGLE)
def test_vendors_slices_are_where_their_headers_say(name: str) -> None:
    """PS3.3 C.7.6.2.1.1, with numbers taken from the file by hand; values by pydicom's own rescale."""
    from pydicom.pixels import apply_rescale, pixel_array

    path = shipped(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = dcmread(path)
        plugin = "" if not image.file_meta.TransferSyntaxUID.is_encapsulated or "RLE" in name else "gdcm"
        expected = apply_rescale(pixel_array(image, decoding_plugin=plugin), image)
    scan = formats.for_reading(path).read(path)
    np.testing.assert_allclose(scan.array[:, :, 0], expected.T, rtol=1e-6)
    position, cosines = np.array(image.ImagePositionPatient, float), np.array(image.ImageOrientationPatient, float)
    between_rows, between_columns = (float(s) for s in image.PixelSpacing)
    for column, row in ((0, 0), (image.Columns - 1, 0), (0, image.Rows - 1), (image.Columns - 1, image.Rows - 1)):
        lps = position + cosines[:3] * between_columns * column + cosines[3:] * between_rows * row
        found = scan.affine @ [column, row, 0, 1]
        np.testing.assert_allclose(found[:3], lps * [-1, -1, 1], atol=1e-6)


def test_a_medium_with_many_series() -> None:
    """A DICOMDIR of three patients, CT and MR of GE and Philips, as pydicom ships it."""
    directory = shipped("DICOMDIR")
    if directory.parent.name != "dicomdirtests":
        pytest.skip("another DICOMDIR")
    found = find_series(directory)
    assert (len(found.stacks), found.others, found.skipped) == (21, 3, 0)
    with pytest.raises(InputRefusedError, match="holds 21 volumes of 2 patients"):
        the_series(directory)
    gated = the_series(directory, "5")
    assert (gated.shape, gated.thickness) == ((16, 16, 5), 2.5)
    np.testing.assert_allclose(gated.affine[:3, 2], [0, 0, 2.5])
    with pytest.raises(InputRefusedError, match="161 slices are missing"):
        the_series(directory, "1.3.6.1.4.1.5962.1.1.0.0.0.1196530851.28319.0.2")
    assert formats.for_reading(directory, series="5").read(directory).array.shape == (16, 16, 5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("MR_truncated.dcm", "is truncated"),
        ("image_dfl.dcm", "is deflated"),
        ("rtdose.dcm", "holds several frames and nothing that says where"),
        ("liver_1frame.dcm", "and no slices"),
        ("rtplan.dcm", "and no slices"),
        ("no_meta.dcm", "no DICOM file"),
    ],
)
def test_what_is_refused_of_pydicoms_files(name: str, says: str) -> None:
    path = shipped(name)
    with pytest.raises(InputRefusedError, match=says):
        dicom.Reader().read(path)


@pytest.fixture(scope="module")
def head(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real T1-weighted head, 384 slices of Philips, defaced, oblique."""
    packed = data_dir / "dicom-structural.tar.xz"
    if not packed.is_file():
        pytest.skip(f"no {packed}")
    folder = tmp_path_factory.mktemp("head")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_real_head(head: Path) -> None:
    scan = formats.for_reading(head).read(head)
    assert scan.array.shape == (274, 384, 384)
    assert len(scan.header.series.files) == 384
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [0.7, 2 / 3, 2 / 3], atol=1e-4)
    for k in (0, 100, 383):
        image = dcmread(scan.header.series.files[k])
        place = scan.affine @ [0, 0, k, 1]
        np.testing.assert_allclose(place[:3] * [-1, -1, 1], np.array(image.ImagePositionPatient, float), atol=1e-3)
        expected = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_allclose(scan.array[:, :, k], expected.T, rtol=1e-6)


def witness(folder: Path, out: Path) -> nib.Nifti1Image:
    """What dcm2niix makes of a folder or file."""
    command = shutil.which("dcm2niix")
    if command is None:
        pytest.skip("dcm2niix is not installed: DICOM geometry is NOT compared with it")
    out.mkdir()
    done = subprocess.run(
        [command, "-b", "n", "-z", "n", "-f", "out", "-o", out, folder], capture_output=True, text=True
    )
    found = sorted(p for p in out.glob("*.nii") if "_ROI" not in p.name)  # those are overlays
    assert len(found) == 1, done.stdout + done.stderr
    loaded = nib.load(found[0])
    assert isinstance(loaded, nib.Nifti1Image)
    return loaded


def agrees(scan: Volume, theirs: nib.Nifti1Image) -> None:
    """The same outer corners to 0.01 mm, the same value at every voxel. Of a single slice: those of its plane."""
    affine = theirs.affine
    assert affine is not None
    step = np.linalg.inv(affine[:3, :3]) @ scan.affine[:3, :3]
    flat = scan.array.shape[2] == 1
    if flat:  # its depth is anyone's choice
        step[:, 2] /= np.linalg.norm(step[:, 2])
    turn = np.rint(step).astype(int)  # a permutation with signs: theirs may be stored along other axes
    np.testing.assert_allclose(step, turn, atol=1e-3)
    np.testing.assert_array_equal(np.abs(turn).sum(0), 1)
    order = np.abs(turn).argmax(0)
    values = theirs.get_fdata().transpose(order)[tuple(slice(None, None, int(turn[a, i])) for i, a in enumerate(order))]
    np.testing.assert_allclose(values, scan.array, rtol=1e-5, atol=1e-4)
    ends = [(-0.5, n - 0.5) if i < 2 or not flat else (0.0,) for i, n in enumerate(scan.array.shape)]
    index = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    last = np.array(theirs.shape) - 1
    other = index @ turn.T + np.where(turn.sum(1) < 0, last, 0)
    ours, others = (i @ a[:3, :3].T + a[:3, 3] for i, a in ((index, scan.affine), (other, affine)))
    assert np.linalg.norm(ours - others, axis=1).max() < 0.01


@pytest.mark.parametrize("plane", PLANES)
def test_highdicom_agrees(tmp_path: Path, plane: str) -> None:
    """Where it is installed. Its volume is [slices, rows, columns] in LPS, from the other end of the normal or ours."""
    from brgm_med.transforms.formats.affine import RAS_LPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        highdicom = pytest.importorskip("highdicom")
        folder = save_all(slices(plane=plane), tmp_path / "in", seed=5)
        theirs = highdicom.get_volume_from_series([dcmread(p) for p in sorted(folder.iterdir())])
    scan = dicom.Reader().read(folder)
    values, affine = theirs.array.transpose(2, 1, 0), (RAS_LPS @ theirs.affine)[:, [2, 1, 0, 3]]
    if affine[:3, 2] @ scan.affine[:3, 2] < 0:
        values, affine[:3, 3] = values[..., ::-1], affine[:3, 3] + affine[:3, 2] * (values.shape[2] - 1)
        affine[:3, 2] *= -1
    np.testing.assert_array_equal(values, scan.array)
    np.testing.assert_allclose(affine, scan.affine, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("plane", PLANES)
def test_dcm2niix_agrees_on_every_layout(tmp_path: Path, plane: str, vendor: str) -> None:
    array = voxels((32, 24, 12))
    header = {"Manufacturer": vendor} | VENDORS[vendor]
    folder = save_all(slices(array, plane, **header), tmp_path / "in", seed=4)
    agrees(dicom.Reader().read(folder), witness(folder, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_dcm2niix_agrees_on_enhanced_files(tmp_path: Path, plane: str) -> None:
    path = save(enhanced(voxels((32, 24, 12)), plane), tmp_path / "in" / "a.dcm")
    agrees(dicom.Reader().read(path), witness(path.parent, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "examples_overlay.dcm"])
def test_dcm2niix_agrees_on_vendors_slices(tmp_path: Path, name: str) -> None:
    """Of a single slice the depth is anyone's choice; its centre is not."""
    (tmp_path / "in").mkdir()
    path = Path(shutil.copy(shipped(name), tmp_path / "in"))
    agrees(dicom.Reader().read(path), witness(path.parent, tmp_path / "out"))


@pytest.mark.slow
def test_dcm2niix_agrees_on_a_gated_ct(tmp_path: Path) -> None:
    directory = shipped("DICOMDIR")
    chosen = the_series(directory, "5")
    for i, file in enumerate(chosen.files):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "in" / f"{i}.dcm")
    agrees(dicom.Reader().read(tmp_path / "in"), witness(tmp_path / "in", tmp_path / "out"))


@pytest.mark.slow
def test_dcm2niix_agrees_on_a_real_head(head: Path, tmp_path: Path) -> None:
    agrees(dicom.Reader().read(head), witness(head, tmp_path / "out"))
