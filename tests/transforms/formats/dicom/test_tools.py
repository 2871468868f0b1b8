"""What others make of derived DICOM: dciodvfy, dcentvfy, dcm2niix, dcmdump, highdicom, SimpleITK."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.reconstruct.registration import output_grid
from brgm_med.pipelines.results.choose import target_of
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.dicom import write as dicom_write
from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices
from brgm_med.transforms.formats.dicom.series import the_series
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.load import LoadScan
from tests import dicom_files
from tests.commands import COMMAND
from tests.mr_series import HOW, blob, enhanced_source, mr_series
from tests.orthanc import inside as inside
from tests.orthanc import orthanc, retrieved
from tests.orthanc import run as in_network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RAS_LPS = np.diag([-1.0, -1, 1, 1])
Volume = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Voxels [X, Y, Z] and index -> RAS mm."""


def tool(name: str, *arguments: object, ok: bool = True) -> str:
    """What a program of Debian's says; skips, by name, where it is not installed (`make check` installs it in CI)."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install dicom3tools dcmtk dcm2niix")
    done = subprocess.run([name, *(str(a) for a in arguments)], capture_output=True, text=True, errors="replace")
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def errors(path: Path) -> set[str]:
    """The errors that dciodvfy finds, without the values that it quotes."""
    lines = tool("dciodvfy", path, ok=False).splitlines()
    return {line.split(" = <")[0] for line in lines if line.startswith("Error")}


def run(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


def by_nibabel(path: Path) -> Volume:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image.get_fdata(), np.asarray(image.affine)


def by_dcm2niix(folder: Path, out: Path) -> Volume:
    out.mkdir()
    tool("dcm2niix", "-b", "n", "-z", "n", "-m", "n", "-o", out, "-f", "made", folder)
    (made,) = out.glob("*.nii")
    return by_nibabel(made)


def by_simpleitk(folder: Path) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64), RAS_LPS @ affine


def by_highdicom(folder: Path) -> Volume:
    volume = highdicom.get_volume_from_series([dcmread(p) for p in sorted(folder.iterdir())])
    return volume.array.transpose(2, 1, 0).astype(np.float64), RAS_LPS @ volume.affine @ np.eye(4)[[2, 1, 0, 3]]


def corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The indices of the 8 outermost voxels, [8, 3]."""
    return np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), -1).reshape(-1, 3).astype(float)


def agree(a: Volume, b: Volume, error: float, far: float = 0.01) -> None:
    """The same voxels at the same places, whichever way each counts them: corners to `far` mm, values to `error`."""
    to_b = np.linalg.inv(b[1]) @ a[1]
    signs = np.rint(to_b[:3, :3]).astype(int)
    assert np.array_equal(np.abs(signs).sum(0), [1, 1, 1]), "the axes of one are not those of the other"
    there = corners(a[0].shape) @ a[1][:3, :3].T + a[1][:3, 3]
    index = np.rint(corners(a[0].shape) @ to_b[:3, :3].T + to_b[:3, 3])
    assert np.array_equal(index.min(0), [0, 0, 0])
    assert np.array_equal(index.max(0), np.array(b[0].shape) - 1)
    assert np.linalg.norm(index @ b[1][:3, :3].T + b[1][:3, 3] - there, axis=1).max() < far
    order = [int(np.argmax(np.abs(signs[:, axis]))) for axis in range(3)]  # of b, for each axis of a
    turned = b[0].transpose(order)
    for axis in range(3):
        if signs[order[axis], axis] < 0:
            turned = np.flip(turned, axis)
    assert np.abs(turned - a[0]).max() <= error


def check_series(folder: Path, allowed: set[str], work: Path) -> None:
    """Valid, one entity, and the same volume to everyone, but for the single precision of their rescale."""
    for path in sorted(folder.iterdir()):
        assert errors(path) <= allowed, path
    assert tool("dcentvfy", *sorted(folder.iterdir())) == ""
    mine = by_highdicom(folder)
    agree(_ours(folder), mine, rounding := 1e-6 * np.abs(mine[0]).max())
    agree(mine, by_dcm2niix(folder, work), rounding)
    agree(mine, by_simpleitk(folder), rounding)


def _ours(folder: Path) -> Volume:
    image = LoadScan()(folder)
    return image[0].double().numpy(), image.affine.numpy()


def test_a_valid_series_gives_a_valid_series(tmp_path: Path) -> None:
    """Degraded, of NIfTI, and with the private elements kept: no error of dciodvfy at all."""
    source = mr_series(tmp_path / "in")
    assert not set.union(*(errors(p) for p in source.iterdir()))
    run("degrade", "--in", source, "--out", tmp_path / "thick", "--slice-thickness", 6, "--axis", "S")
    run("degrade", "--in", source, "--out", tmp_path / "kept", "--factor", 2, "--keep-private")
    run("degrade", "--in", source, "--out", tmp_path / "a.nii", "--factor", 2)
    run("degrade", "--in", tmp_path / "a.nii", "--like", source, "--out", tmp_path / "like", "--factor", 2)
    enhanced = enhanced_source(tmp_path / "enhanced")
    dicom_write.write(tmp_path / "classic", dicom_files.voxels() * 2.0, enhanced.affine, enhanced, HOW)
    for name in ("thick", "kept", "like", "classic"):
        check_series(tmp_path / name, set(), tmp_path / f"{name}-nii")
        assert "PatientName" in tool("dcmdump", tmp_path / name / "0001.dcm")
    both = [*source.iterdir(), *(tmp_path / "thick").iterdir()]
    assert tool("dcentvfy", *both) == ""
    agree(by_dcm2niix(tmp_path / "kept", tmp_path / "nii"), by_nibabel(tmp_path / "a.nii"), 0.5)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with a head of 384 slices, `source`, degraded to 5 mm, `thick`; of that `fine`, `fine.nii`, and maps."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(data_dir / "dicom-structural.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (dicoms,) = (p for p in folder.rglob("dicoms") if p.is_dir())
    dicoms.rename(folder / "source")
    run("degrade", "--in", folder / "source", "--out", folder / "thick", "--slice-thickness", 5, "--axis", "S")
    for out in (folder / "fine", folder / "fine.nii"):
        certificate = folder / f"{out.name}.json"
        arguments = ("sr", "--in", folder / "thick", "--out", out, "--certificate", certificate)
        run(*arguments, "--steps", 2, "--threads", 1, "--no-report")  # both pages would have one name
    return folder


def test_a_real_head_through_degrade_and_sr(real: Path, tmp_path: Path) -> None:
    """384 slices to 5 mm and back: no error that the source has not; the voxels of the NIfTI output, in its places."""
    source = real / "source"
    assert len(the_series(source).files) == 384
    agree(by_dcm2niix(source, tmp_path / "source-nii"), _ours(source), 0)
    known = errors(sorted(source.glob("*.dcm"))[9])
    for name in ("thick", "fine"):
        check_series(real / name, known, tmp_path / f"{name}-nii")
    (measured,) = (real / "fine_measured").iterdir()
    assert errors(measured) <= known
    assert tool("dcentvfy", measured, *sorted((real / "fine").iterdir())) == ""
    agree(by_highdicom(real / "fine"), by_nibabel(real / "fine.nii"), 0.5 + 1e-3)
    expected = output_grid([Grid(*_grid(real / "thick"))], 2.0)
    mine = the_series(real / "fine")
    assert mine.shape == expected.shape
    assert np.allclose(mine.affine, expected.affine, atol=1e-6)


def test_an_archive_takes_a_real_head_and_gives_it_back(real: Path, inside: list[str], tmp_path: Path) -> None:
    """N of N by C-STORE, equal pixels over WADO-RS: all series are in one study, the map too."""
    names = ("thick", "fine", "fine_measured")
    kept = {str(d.SOPInstanceUID): d for name in names for d in map(dcmread, (real / name).iterdir())}
    (study,) = {d.StudyInstanceUID for d in kept.values()}
    with orthanc(inside, tmp_path):
        for name in names:
            sent = in_network(*inside, COMMAND, "send", real / name, "--to", "ARCHIVE@127.0.0.1:4242")
            count = len(list((real / name).iterdir()))
            assert sent.returncode == 0, sent.stderr
            assert f"stored {count} of {count}" in sent.stderr
        held = retrieved(inside, study, tmp_path / "back")
    assert set(held) == set(kept)
    for uid, one in kept.items():
        pixels = "PixelData" if "PixelData" in one else "FloatPixelData"
        assert held[uid][pixels].value == one[pixels].value


def _grid(folder: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    found = the_series(folder)
    return found.shape, found.affine


def test_a_map_is_valid_and_of_one_entity_with_its_series(tmp_path: Path) -> None:
    """De-identified or not."""
    source = mr_series(tmp_path / "in", BurnedInAnnotation=None, LossyImageCompression=None)
    header = for_reading(source).read_header(source)
    for name, choices in (("plain", NO_CHOICES), ("hidden", Choices(transform=Deidentifier()))):
        target = target_of(source, tmp_path / name, header, choices=choices)
        target.write(blob() * 1.0, header.affine, HOW, "")
        (file,) = target.write_map(blob() / np.float32(4095), header.affine, HOW).iterdir()
        assert errors(file) == set()
        assert tool("dcentvfy", *sorted((tmp_path / name).iterdir()), file) == ""


def test_a_derived_radiograph_is_as_valid_as_its_source(tmp_path: Path, data_dir: Path) -> None:
    from brgm_med.transforms.formats import radiograph, radiograph_write
    from tests.radiographs import HOW

    scan = data_dir / "xray-chest-RG1.dcm"
    picture = radiograph.read(scan)
    for factor in (1, 2):
        values = picture.array.repeat(factor, 1).repeat(factor, 2)
        radiograph_write.write(tmp_path / f"{factor}.dcm", values, picture, HOW)
        assert errors(tmp_path / f"{factor}.dcm") <= errors(scan)


def test_the_synthesised_series_tells_directions_apart() -> None:
    """Otherwise the tests above could not."""
    values = blob().astype(float)
    for axis in range(3):
        assert np.abs(values - np.flip(values, axis)).max() > 500
