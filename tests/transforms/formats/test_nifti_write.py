"""NIfTI written: the source's conventions stay, what is written reads back, and nothing is left half-done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from brgm_med.errors import CannotWriteError, InputRefusedError
from brgm_med.files import check_output, replacing
from brgm_med.transforms.formats import nifti
from brgm_med.transforms.formats.affine import corner_distance
from brgm_med.transforms.formats.header import Volume
from brgm_med.transforms.formats.nifti_header import read_header
from brgm_med.transforms.formats.nifti_record import DTYPES
from tests import contracts
from tests.bad_scans import AFFINE, oblique_affine, opened, voxels
from tests.bad_scans import nifti as image_of
from tests.house import ROOT


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_written_affine_and_codes_read_back(tmp_path: Path, codes: tuple[int, int], version: int, seed: int) -> None:
    """Codes stay as the source has them; corners of a finer grid stay within 1e-3 mm."""
    affine = oblique_affine(seed, mirrored=seed % 2 == 1)
    image = (nib.Nifti1Image if version == 1 else nib.Nifti2Image)(voxels(), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nib.save(image, tmp_path / "a.nii")
    source = nifti.read(tmp_path / "a.nii")
    finer = affine @ np.diag([0.5, 1, 1, 1])
    array = np.random.default_rng(seed).normal(size=(24, 13, 14)).astype(np.float32)

    def write(path: Path) -> NDArray:
        written = nifti.write(path, array, finer, source.header)
        assert written.dtype == np.float32
        return written

    def conventions(scan: Volume) -> tuple[int, ...]:
        record = scan.header.nifti
        assert record is not None
        return record.version, int(record.fields["sform_code"]), int(record.fields["qform_code"])

    again = contracts.round_trip(
        tmp_path / "b.nii.gz", write, nifti.read, array, finer, conventions, expected=(version, *codes)
    )
    witness = opened(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(witness.get_fdata(dtype=np.float32), array)
    np.testing.assert_allclose(witness.affine, again.affine, atol=1e-4)


def test_a_qform_too_coarse_for_the_affine_is_helped_by_an_sform(tmp_path: Path) -> None:
    """Near half a turn, single-precision quaternions lose the angle."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0, 0, np.pi - 3e-4]).as_matrix() * 2
    image = nib.Nifti1Image(voxels(), affine)
    image.set_sform(None, 0)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "a.nii")
    source = nifti.read(tmp_path / "a.nii")
    assert source.header.form == "qform"
    nifti.write(tmp_path / "b.nii", np.pad(source.array, ((0, 0), (0, 300), (0, 0))), affine, source.header)
    again = nifti.read(tmp_path / "b.nii")
    assert again.header.form == "sform"
    assert corner_distance(again.affine, affine, again.array.shape) < 1e-3


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_source_type_gives_back_what_was_read(tmp_path: Path, dtype: str) -> None:
    image = image_of(voxels().astype(dtype) if dtype[1] != "1" else (voxels() % 100).astype(dtype))
    image.header.set_slope_inter(0.37, -11)
    nib.save(image, tmp_path / "a.nii")
    scan = nifti.read(tmp_path / "a.nii")
    contracts.round_trip(
        tmp_path / "b.nii",
        lambda path: nifti.write(path, scan.array, scan.affine, scan.header, "source"),
        nifti.read,
        scan.array,
        scan.affine,
        header=lambda s: s.header.dtype,
        expected=scan.header.dtype,
    )


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d[0] in "iu"])
@pytest.mark.parametrize(("centre", "width"), [(0, 1), (500, 2000), (-3, 1e-4), (1e6, 0.5), (0, 1e-30), (7.3, 0)])
def test_integers_clip_nothing_and_err_by_half_a_step(tmp_path: Path, dtype: str, centre: float, width: float) -> None:
    rng = np.random.default_rng(0)
    array = centre + width * rng.uniform(-0.5, 0.5, (9, 8, 7))
    nib.save(image_of(voxels().astype(dtype)), tmp_path / "a.nii")
    like = read_header(tmp_path / "a.nii")
    held = nifti.write(tmp_path / "b.nii", array, AFFINE, like, "source")
    header = read_header(tmp_path / "b.nii")
    assert header.dtype == np.dtype(dtype)
    assert held.dtype == np.float64
    rounding = 4 * np.spacing(np.abs(array).max())
    assert np.abs(held - array).max() <= header.slope / 2 + rounding
    levels = min(float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min), 2**32 - 1)
    single_precision = 4 * float(np.spacing(np.float32(abs(centre) + width / 2)))
    assert header.slope <= (np.ptp(array) + single_precision) / levels * 1.001 + float(np.finfo(np.float32).tiny)
    np.testing.assert_array_equal(header.decode(nifti.read_voxels(header)), held)


def test_header_conventions_are_kept_and_claims_that_no_longer_hold_are_cleared(tmp_path: Path) -> None:
    image = image_of(voxels())
    header = image.header
    header["descrip"], header["aux_file"], header["cal_max"] = b"made by a scanner", b"aux", 900
    header.set_dim_info(1, 0, 2)
    header.set_intent("t test", (12,), "contrast")
    header["slice_code"], header["slice_end"], header["slice_duration"] = 1, 13, 0.1
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"private"))
    nib.save(image, tmp_path / "a.nii")
    like = read_header(tmp_path / "a.nii")
    assert like.nifti.description == "made by a scanner"
    nifti.write(tmp_path / "b.nii", np.zeros((2, 3, 4)), AFFINE, like)
    kept = opened(tmp_path / "b.nii").header
    assert kept["descrip"] == b"made by a scanner"
    assert (kept["aux_file"], kept["cal_max"], kept.get_dim_info()) == (b"aux", 900, (1, 0, 2))
    assert kept.get_intent() == ("none", (), "")
    assert [kept[name] for name in ("slice_code", "slice_end", "slice_duration")] == [0, 0, 0]
    assert not kept.extensions
    nifti.write(tmp_path / "c.nii", np.zeros((2, 3, 4)), AFFINE, like, description="é" * 60)
    assert read_header(tmp_path / "c.nii").nifti.description == "é" * 39


@pytest.mark.parametrize(
    ("array", "affine", "name"),
    [
        (np.zeros((2, 3)), AFFINE, "a.nii"),
        (np.full((2, 3, 4), np.nan), AFFINE, "a.nii"),
        (np.full((2, 3, 4), 1e300), AFFINE, "a.nii"),
        (np.zeros((2, 3, 4)), np.diag([1.0, 0, 1, 1]), "a.nii"),
        (np.zeros((2, 3, 4)), AFFINE, "a.png"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, array: NDArray, affine: NDArray, name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        nifti.write(tmp_path / name, array, affine)
    assert not list(tmp_path.iterdir())


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_text("precious")
    for attempt in (check_output, lambda p: nifti.write(p, voxels(), AFFINE)):
        with pytest.raises(InputRefusedError, match="--force"):
            attempt(path)
    assert path.read_text() == "precious"
    check_output(path, force=True)
    nifti.write(path, voxels(), AFFINE, force=True)
    np.testing.assert_array_equal(nifti.read(path).array, voxels())
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_text("precious")

    def interrupted() -> None:
        with replacing(path, force=True) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    nifti.write(tmp_path / "a.nii", voxels(), AFFINE)
    assert (tmp_path / "a.nii").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that this process may read but not write, even if it is root's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


def test_an_unwritable_folder(unwritable: Path) -> None:
    for attempt in (check_output, lambda p: nifti.write(p, voxels(), AFFINE)):
        with pytest.raises(CannotWriteError, match="Permission denied"):
            attempt(unwritable / "a.nii")


def test_no_folder_and_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match="there is no folder"):
        nifti.write(tmp_path / "nowhere" / "a.nii", voxels(), AFFINE)
    (tmp_path / "b.nii").mkdir()
    with pytest.raises(CannotWriteError, match="is a folder"):
        nifti.write(tmp_path / "b.nii", voxels(), AFFINE, force=True)


def test_a_file_that_outgrows_its_limit_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys
import numpy as np
from brgm_med.errors import CannotWriteError
from brgm_med.transforms.formats import nifti
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
for path in sys.argv[1:]:
    try:
        nifti.write(path, np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4))
    except CannotWriteError as error:
        print(error)
"""
    paths = [tmp_path / "a.nii", tmp_path / "a.nii.gz"]
    done = subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True)
    for line, path in zip(done.stdout.splitlines(), paths, strict=True):
        assert line.startswith(f"{path}: cannot be written (File too large)")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no permission to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    array = np.random.default_rng(0).normal(size=(40, 40, 40))
    with pytest.raises(CannotWriteError, match="No space left on device"):
        nifti.write(small_disk / "a.nii", array, AFFINE)
    assert not list(small_disk.iterdir())
    nifti.write(small_disk / "a.nii", array[:20, :20, :20], AFFINE)


def test_real_scans_survive_a_round_trip(tmp_path: Path) -> None:
    data = Path(os.environ.get("BRGM_MED_DATA", ROOT.parent / "shared" / "data"))
    scans = sorted((data / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[:3]
    if not scans:
        pytest.skip("no real scans here")
    for path in scans:
        scan = nifti.read(path)
        witness = opened(path)
        np.testing.assert_allclose(scan.array, witness.get_fdata(), rtol=1e-6)
        nifti.write(tmp_path / path.name, scan.array, scan.affine, scan.header, "source")
        again = opened(tmp_path / path.name)
        np.testing.assert_array_equal(again.get_fdata(), witness.get_fdata())
        np.testing.assert_array_equal(again.affine, witness.affine)
        np.testing.assert_allclose(again.get_qform(), witness.get_qform(), atol=1e-4)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (4, 0), (2, 2), (1, 3)])
@pytest.mark.parametrize("units", [0, 2, 10])
def test_a_conventional_header_is_that_of_dcm2niix_freesurfer_and_fsl(
    tmp_path: Path, codes: tuple[int, int], units: int
) -> None:
    """Both forms with one affine, read alike by nibabel from either; mm and seconds."""
    image = image_of(voxels())
    image.header["sform_code"], image.header["qform_code"] = codes
    image.header["xyzt_units"] = units
    nib.save(image, tmp_path / "scan.nii")
    like = read_header(tmp_path / "scan.nii")
    affine = like.affine @ np.diag([0.5, 0.5, 0.5, 1])
    fine = voxels((24, 26, 28)).astype(np.float32)
    nifti.write(tmp_path / "out.nii", fine, affine, like, conventional=True)
    header = opened(tmp_path / "out.nii").header
    (sform, s), (qform, q) = header.get_sform(coded=True), header.get_qform(coded=True)
    np.testing.assert_allclose(sform, affine, atol=1e-4)
    np.testing.assert_allclose(qform, affine, atol=1e-3)
    assert (s, q) == tuple(code or max(codes) for code in codes)
    assert header.get_xyzt_units() == ("mm", "sec")
