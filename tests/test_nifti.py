"""NIfTI: what is read is what nibabel reads, what is written reads back, and everything doubtful is refused."""

from __future__ import annotations

import gzip
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
from brgm_med.transforms import formats
from brgm_med.transforms.formats import nifti, nifti_affine
from brgm_med.transforms.formats.atomic import replacing
from brgm_med.transforms.formats.nifti_header import DTYPES, LAYOUTS, Order, read_header
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from brgm_med.errors import CannotWriteError, InputRefusedError
from tests.bad_scans import AFFINE, LYING, make_bad_scans, opened, poked, voxels
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


def oblique_affine(seed: int, mirrored: bool = False) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.4, 6, 3)
    affine[:3, 2] *= -1 if mirrored else 1
    affine[:3, 3] = rng.normal(0, 100, 3)
    return affine


def test_every_bad_scan_is_refused_in_one_line(bad_scans: dict[str, Path]) -> None:
    for name, path in bad_scans.items():
        with pytest.raises(InputRefusedError) as caught:
            formats.for_reading(path).check(path)
        message = str(caught.value)
        assert message.startswith(str(path)), name
        assert "\n" not in message, name
        assert SAYS.get(name, "") in message, (name, message)


def test_lying_headers_cost_neither_time_nor_memory_nor_torch(bad_scans: dict[str, Path]) -> None:
    """In a fresh interpreter each: under 1 s and 300 MB, and no heavy import."""
    code = """
import re, sys, time
from brgm_med.errors import InputRefusedError
start = time.perf_counter()
from brgm_med.transforms import formats
try:
    formats.for_reading(sys.argv[1]).check(sys.argv[1])
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
    assert again.header.record[f"{other}_code"] == 0


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
    assert again.header.record["xyzt_units"] == (code if code in (0, 10) else 2)


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
    held = nifti.write(tmp_path / "b.nii.gz", array, finer, source.header)
    again = nifti.read(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(held, array)
    np.testing.assert_array_equal(again.array, array)
    assert held.dtype == np.float32
    assert again.header.version == version
    assert (again.header.record["sform_code"], again.header.record["qform_code"]) == codes
    assert nifti_affine.corner_distance(again.affine, finer, array.shape) < 1e-3
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
    assert nifti_affine.corner_distance(again.affine, affine, again.array.shape) < 1e-3


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_source_type_gives_back_what_was_read(tmp_path: Path, dtype: str) -> None:
    image = image_of(voxels().astype(dtype) if dtype[1] != "1" else (voxels() % 100).astype(dtype))
    image.header.set_slope_inter(0.37, -11)
    nib.save(image, tmp_path / "a.nii")
    scan = nifti.read(tmp_path / "a.nii")
    nifti.write(tmp_path / "b.nii", scan.array, scan.affine, scan.header, "source")
    again = nifti.read(tmp_path / "b.nii")
    assert again.header.dtype == scan.header.dtype
    np.testing.assert_array_equal(again.array, scan.array)


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
    np.testing.assert_array_equal(nifti.decode(header, nifti.read_voxels(header)), held)


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
    assert like.description == "made by a scanner"
    nifti.write(tmp_path / "b.nii", np.zeros((2, 3, 4)), AFFINE, like)
    kept = opened(tmp_path / "b.nii").header
    assert kept["descrip"] == b"made by a scanner"
    assert (kept["aux_file"], kept["cal_max"], kept.get_dim_info()) == (b"aux", 900, (1, 0, 2))
    assert kept.get_intent() == ("none", (), "")
    assert [kept[name] for name in ("slice_code", "slice_end", "slice_duration")] == [0, 0, 0]
    assert not kept.extensions
    nifti.write(tmp_path / "c.nii", np.zeros((2, 3, 4)), AFFINE, like, description="é" * 60)
    assert read_header(tmp_path / "c.nii").description == "é" * 39


def test_same_input_same_bytes(tmp_path: Path) -> None:
    array = voxels().astype(np.float32)
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write(tmp_path / name, array, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


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
    for attempt in (formats.check_output, lambda p: nifti.write(p, voxels(), AFFINE)):
        with pytest.raises(InputRefusedError, match="--force"):
            attempt(path)
    assert path.read_text() == "precious"
    formats.check_output(path, force=True)
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
    for attempt in (formats.check_output, lambda p: nifti.write(p, voxels(), AFFINE)):
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
    data = Path(os.environ.get("BRGM_MED_DATA", Path(__file__).parents[2] / "shared" / "data"))
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
