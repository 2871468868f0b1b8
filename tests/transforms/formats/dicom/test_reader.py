"""DICOM volumes: every voxel at its place and with its value, whatever order, layout and packing the files have."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.cli import main
from brgm_med.transforms import LoadScan, SaveScan, formats
from brgm_med.transforms.formats import dicom, nifti
from brgm_med.transforms.formats.dicom.file import codestream_size
from brgm_med.transforms.formats.dicom.series import find_series, the_series
from tests.dicom_files import (
    PLANES,
    VENDORS,
    dicomdir,
    enhanced,
    expected_affine,
    image,
    save,
    save_all,
    series,
    slices,
    voxels,
    zipped,
)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_is_where_the_standard_says(tmp_path: Path, plane: str, vendor: str) -> None:
    """Files in random order, all with one Instance Number: only positions count. Right-handed, to 1e-6 mm."""
    header = {"Manufacturer": vendor, "InstanceNumber": 1} | VENDORS[vendor]
    folder = save_all(slices(plane=plane, **header), tmp_path / "in", seed=1)
    scan = formats.for_reading(folder).read(folder)
    slope = float(header.get("RescaleSlope", 1))
    np.testing.assert_allclose(scan.affine, expected_affine(plane), atol=1e-6)
    np.testing.assert_allclose(scan.array, voxels() * slope, rtol=1e-6)
    assert scan.array.dtype == np.float32
    assert scan.array.flags.c_contiguous
    assert np.linalg.det(scan.affine) > 0
    assert scan.header.series.thickness == 2.5
    corner = [dcmread(f, specific_tags=["ImagePositionPatient"]).ImagePositionPatient for f in scan.header.series.files]
    found = [scan.affine[:3, :3] @ [0, 0, k] + scan.affine[:3, 3] for k in range(len(corner))]
    np.testing.assert_allclose(found, np.array(corner, float) * [-1, -1, 1], atol=1e-6)


@pytest.mark.parametrize("plane", PLANES)
def test_an_enhanced_file_is_the_same_volume(tmp_path: Path, plane: str) -> None:
    path = save(enhanced(plane=plane, order=np.array([3, 1, 4, 0, 2])), tmp_path / "a.dcm")
    scan = formats.for_reading(path).read(path)
    np.testing.assert_allclose(scan.affine, expected_affine(plane), atol=1e-6)
    np.testing.assert_array_equal(scan.array, voxels() * 2.0 - 10)
    assert (scan.header.slope, scan.header.inter, scan.header.dtype) == (2, -10, np.uint16)
    assert scan.header.series.files == (path,)
    assert scan.header.series.enhanced


def test_each_format_has_its_own_part_of_a_header(tmp_path: Path) -> None:
    """DICOM's is its series and no raw NIfTI header; a NIfTI file written like it has version 1 and no series."""
    folder = series(tmp_path / "in", RescaleSlope=2, RescaleIntercept=-10)
    scan = formats.for_reading(folder).read(folder)
    assert (scan.header.form, scan.header.nifti, scan.header.series.shape) == ("DICOM", None, scan.array.shape)
    nifti.write(tmp_path / "a.nii", scan.array, scan.affine, scan.header, "source", display=(0, 1))
    again = nifti.read(tmp_path / "a.nii")
    assert (again.header.series, again.header.nifti.version, again.header.form) == (None, 1, "sform")
    assert (again.header.slope, again.header.inter, again.header.dtype) == (2, -10, scan.header.dtype)
    assert [float(again.header.nifti.fields[name]) for name in ("cal_min", "cal_max")] == [0, 1]
    np.testing.assert_array_equal(again.array, scan.array)


def test_slices_rescaled_differently_become_floats(tmp_path: Path) -> None:
    def rescale(k: int, one: Dataset) -> None:
        one.RescaleSlope, one.RescaleIntercept = 1 + k, -k

    classic = series(tmp_path / "in", change=rescale)
    path = save(enhanced(per_frame_rescale=True), tmp_path / "a.dcm")
    k = np.arange(5)
    for place in (classic, path):
        header, stored = formats.for_reading(place).read_stored(place)
        np.testing.assert_array_equal(stored, (voxels() * (1.0 + k) - k).astype(np.float32))
        assert (header.slope, header.inter, header.dtype) == (1, 0, np.float32)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("i2", 12), ("i2", 16), ("u2", 16), ("i4", 24)])
@pytest.mark.parametrize("inverted", [False, True])
def test_signs_bits_and_inversion(tmp_path: Path, dtype: str, bits: int, inverted: bool) -> None:
    """MONOCHROME1 is turned within what Bits Stored allow, as in radiographs."""
    low = -(1 << bits - 1) if dtype[0] == "i" else 0
    array = np.random.default_rng(0).integers(low, low + (1 << bits), (7, 6, 5)).astype(dtype)
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    folder = series(
        tmp_path / "in",
        array,
        BitsStored=bits,
        PhotometricInterpretation=photometric,
        RescaleSlope=0.5,
        RescaleIntercept=3,
    )
    header, stored = formats.for_reading(folder).read_stored(folder)
    expected = 2 * low + (1 << bits) - 1 - array.astype(np.int64) if inverted else array
    np.testing.assert_array_equal(stored, expected)
    assert stored.dtype == header.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(dicom.Reader().read(folder).array, (stored * 0.5 + 3).astype(np.float32))


def _packed(made: Dataset, syntax: str) -> Dataset:
    import imagecodecs

    pixels = np.frombuffer(made.PixelData, np.uint16).reshape(made.Rows, made.Columns)
    if syntax == JPEG2000Lossless:
        packed = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=12, reversible=True)
    else:
        packed = imagecodecs.jpegls_encode(pixels)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([packed])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
)
def test_transfer_syntaxes_hold_the_same_voxels(tmp_path: Path, syntax: str) -> None:
    made = slices(BitsStored=16 if syntax == JPEGLSLossless else 12)
    for one in made:
        if syntax == RLELossless:
            one.compress(RLELossless, encoding_plugin="pydicom")
        elif syntax in (JPEG2000Lossless, JPEGLSLossless):
            _packed(one, syntax)
        else:
            one.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                one.PixelData = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
    folder = save_all(made, tmp_path / "in")
    np.testing.assert_array_equal(dicom.Reader().read(folder).array, voxels())


@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_codestreams_say_their_size(form: str) -> None:
    import imagecodecs

    pixels = voxels((31, 20, 1))[..., 0]
    assert codestream_size(imagecodecs.jpeg2k_encode(pixels, codecformat=form, reversible=True)) == (31, 20)
    assert codestream_size(imagecodecs.jpegls_encode(pixels)) == (31, 20)
    assert codestream_size(imagecodecs.ljpeg_encode(pixels)) == (31, 20)
    assert codestream_size(imagecodecs.jpeg_encode(pixels.astype(np.uint8))) == (31, 20)
    assert codestream_size(b"nothing of the kind") is None
    assert codestream_size(b"") is None


def test_folders_dicomdirs_and_zips_hold_the_same_volume(tmp_path: Path) -> None:
    """Mixed and nested; what is no DICOM, or no slice, is counted and passed over."""
    folder = tmp_path / "in"
    made = slices()
    for k, one in enumerate(made):
        save(one, folder / f"DIR{k % 2}" / f"IM{k}")
    (folder / "README.txt").write_text("hello")
    capture = image(voxels()[..., 0].T, [0, 0, 0], SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImagePositionPatient=None)
    capture.SeriesInstanceUID = "1.9"
    save(capture, folder / "capture")
    names = [[f"DIR{k % 2}", f"IM{k}"] for k in range(5)]
    found = find_series(folder)
    assert (len(found.stacks), found.others, found.skipped) == (1, 1, 1)
    directory = dicomdir(folder, names)
    assert find_series(folder).others == 2
    packed = zipped(folder, tmp_path / "a.zip")
    for place in (folder, directory, packed):
        assert formats.kind_of(place) == "volume"
        scan = formats.for_reading(place).read(place)
        np.testing.assert_array_equal(scan.array, voxels())
        np.testing.assert_allclose(scan.affine, expected_affine(), atol=1e-6)
    assert all(str(tmp_path) not in str(f) for f in scan.header.series.files)


def test_echoes_and_planes_are_volumes_of_their_own(tmp_path: Path) -> None:
    """Two echoes in one series; a localiser of three planes in another; each is found by what it is called."""
    folder, other = tmp_path / "in", voxels(seed=1)
    second = slices(other, EchoTime=9.2, EchoNumbers=2)
    save_all(slices() + second, folder / "echoes", seed=2)
    localiser = [
        s for p in ("axial", "sagittal", "coronal") for s in slices(plane=p, SeriesInstanceUID="1.5", SeriesNumber=1)
    ]
    save_all(localiser, folder / "localiser")
    stacks = find_series(folder).stacks
    assert [s.name for s in stacks] == ["1/1", "1/2", "1/3", "3/1", "3/2"]
    assert [s.part for s in stacks] == ["", "", "", "echo time 4.6", "echo time 9.2"]
    for choice, expected in (("3/1", voxels()), ("3/2", other), ("1.2.3.4/2", other)):
        np.testing.assert_array_equal(formats.for_reading(folder, series=choice).read(folder).array, expected)
    np.testing.assert_allclose(the_series(folder, "1/3").affine, expected_affine("coronal"), atol=1e-6)
    with pytest.raises(InputRefusedError, match=r"holds 2 volumes called 3; choose one with --series: 3/1, 3/2"):
        the_series(folder, "3")
    with pytest.raises(InputRefusedError, match=r"has no series 7; choose with --series: 1/1, 1/2"):
        the_series(folder, "7")


def test_two_series_of_one_number_are_called_by_their_uid(tmp_path: Path) -> None:
    save_all(slices() + slices(voxels(seed=1), SeriesInstanceUID="1.7"), tmp_path / "in")
    assert {s.name for s in find_series(tmp_path).stacks} == {"1.2.3.4", "1.7"}
    assert the_series(tmp_path, "1.7").shape == (7, 6, 5)
    with pytest.raises(InputRefusedError, match="holds 2 volumes called 3"):
        the_series(tmp_path, "3")


def test_echoes_in_one_enhanced_file(tmp_path: Path) -> None:
    path = save(enhanced(order=np.array([3, 1, 4, 0, 2]), echoes=(4.6, 9.2)), tmp_path / "a.dcm")
    assert [s.part for s in find_series(path).stacks] == ["echo time 4.6", "echo time 9.2"]
    scan = formats.for_reading(path, series="3/2").read(path)
    np.testing.assert_array_equal(scan.array, (voxels() + 1) * 2.0 - 10)
    assert scan.header.series.frames == (8, 6, 9, 5, 7)


def test_one_slice_is_as_deep_as_it_is_thick(tmp_path: Path) -> None:
    path = save(slices()[2], tmp_path / "a.dcm")
    scan = formats.for_reading(path).read(path)
    expected = expected_affine(gap=2.5)
    expected[:3, 3] += [0, 0, 6]
    assert scan.array.shape == (7, 6, 1)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-6)


def test_a_radiograph_stays_a_picture_and_a_folder_of_them_pictures(tmp_path: Path) -> None:
    cr = image(voxels()[..., 0].T, [0, 0, 0], SOPClassUID=ComputedRadiographyImageStorage, Modality="CR")
    del cr.ImagePositionPatient
    path = save(cr, tmp_path / "in" / "a.dcm")
    assert formats.kind_of(path) == formats.kind_of(path.parent) == "picture"
    assert formats.for_reading(path, "picture").read(path).shape == (6, 7)


def test_loading_and_saving_as_tensors(tmp_path: Path) -> None:
    """MONAI gets an ordered array and an affine; what is saved says the same in NIfTI."""
    folder = save_all(
        slices(plane="oblique") + slices(SeriesInstanceUID="1.7", SeriesNumber=4), tmp_path / "in", seed=3
    )
    loaded = LoadScan(series="3")(folder)
    np.testing.assert_array_equal(loaded.numpy()[0], voxels())
    np.testing.assert_allclose(loaded.affine, expected_affine("oblique"), atol=1e-6)
    assert (loaded.meta["form"], loaded.meta["dtype"], loaded.meta["series"]) == ("DICOM", "uint16", "3")
    SaveScan(tmp_path / "a.nii.gz", dtype="source")(loaded)
    again = nifti.read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(again.array, voxels())
    np.testing.assert_allclose(again.affine, expected_affine("oblique"), atol=1e-4)
    assert again.header.dtype == np.uint16


def test_what_is_for_nifti_and_what_for_dicom(tmp_path: Path) -> None:
    folder = series(tmp_path / "in")
    nifti.write(tmp_path / "a.nii", voxels().astype(np.float32), expected_affine())
    with pytest.raises(UsageError, match="--affine sform: is for NIfTI"):
        formats.for_reading(folder).read(folder, "sform")
    with pytest.raises(UsageError, match="--series: is for DICOM"):
        formats.for_reading(tmp_path / "a.nii", series="3")


def test_the_listing_tells_volumes_and_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    save_all(slices(plane="oblique", SeriesDescription="t1\x1b[2J mprage"), folder / "a")
    gap = slices(SeriesInstanceUID="1.7", SeriesNumber=12)
    save_all(gap[:2] + gap[3:], folder / "b")
    (folder / "notes.txt").write_text("x")
    assert main(["series", str(folder)]) == 0
    table = capsys.readouterr().out
    lines = table.splitlines()
    assert lines[1].split("  ")[0] == "3"
    assert "t1[2J mprage  7 x 6 x 5  1.1 x 0.8 x 3  oblique axial" in lines[1]
    assert lines[2].startswith("12 ")
    assert "cannot be used: b/IM001: 1 slice is missing between it and IM002" in lines[2]
    assert lines[3] == "Beside these: 0 DICOM files that are no slices, 1 files that are no DICOM."
    assert main(["series", str(folder), "--json"]) == 0
    text = capsys.readouterr().out
    content = json.loads(text)
    assert [v["series"] for v in content["volumes"]] == ["3", "12"]
    assert content["volumes"][0]["spacing"] == [1.1, 0.8, 3.0]
    assert content["volumes"][0]["problem"] is None
    assert content["files_not_dicom"] == 1
    assert not any(word in table + text for word in ("SECRET", "Secret", "19700101"))


def test_degrade_reads_a_folder_and_writes_nifti(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.random.default_rng(0).integers(0, 4096, (20, 18, 16)).astype(np.uint16)
    folder = save_all(slices(array, "coronal", 1.0) + slices(SeriesInstanceUID="1.7", SeriesNumber=4), tmp_path / "in")
    out = tmp_path / "out.nii.gz"
    command = ["degrade", "--in", str(folder), "--slice-thickness", "4", "--axis", "A", "--out", str(out)]
    assert main(command) == 3
    assert main([*command, "--series", "3"]) == 0
    assert nifti.read(out).array.shape == (20, 18, 4)
    said = capsys.readouterr().err
    everything = said + (tmp_path / "out.json").read_text()
    assert not any(word in everything for word in ("SECRET", "Secret", "19700101"))


def test_the_slice_thickness_is_stated_by_dicom(tmp_path: Path) -> None:
    """Where slices agree on it; a person's word and a sidecar's count more."""
    from brgm_med.pipelines.reading import acquisition_of
    from brgm_med.pipelines.results.choose import default_result
    from brgm_med.pipelines.results.records import source_record
    from brgm_med.transforms.geometry import Grid

    folder = series(tmp_path / "in")
    header = formats.for_reading(folder).read(folder).header
    grid = Grid(header.shape, header.affine)
    model, origin = acquisition_of(folder, grid, None, None, None, header.series)
    assert origin == "stated in the DICOM header"
    assert (model.thickness, model.axis, model.profile, model.stated) == (
        pytest.approx((1.1, 0.8, 2.5)),
        2,
        "box",
        True,
    )
    assert acquisition_of(folder, grid, 3.0, None, None, header.series)[1] == "stated on the command line"
    (tmp_path / "in.json").write_text(json.dumps(model.to_sidecar(grid)))
    assert acquisition_of(folder, grid, None, None, None, header.series)[1] == "stated in the JSON file beside the scan"
    (tmp_path / "in.json").unlink()
    folder = series(tmp_path / "mixed", change=lambda k, s: setattr(s, "SliceThickness", 2 + k))
    header = formats.for_reading(folder).read(folder).header
    assert acquisition_of(folder, grid, None, None, None, header.series)[1] == "assumed from the header's spacing"
    assert default_result(folder) == tmp_path / "mixed_brgm.nii.gz"
    assert default_result(folder / "DICOMDIR") == tmp_path / "mixed_brgm.nii.gz"
    assert default_result(tmp_path / "a.zip") == tmp_path / "a_brgm.nii.gz"
    record = source_record(folder, header)
    assert record.keys() == {"file", "sha256", "affine", "dicom_files"}
    assert record["dicom_files"] == 5


def test_reading_does_not_load_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    folder = series(tmp_path / "in")
    code = """
import sys
from brgm_med.transforms import formats
formats.for_reading(sys.argv[1]).read(sys.argv[1])
print(*({"torch", "monai", "nibabel", "SimpleITK", "highdicom"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True)
    assert not done.stdout.strip()
    assert not done.stderr


def test_odd_headers_are_read_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = series(tmp_path / "in", SeriesDescription="x" * 80, PatientID="y" * 80)
    np.testing.assert_array_equal(dicom.Reader().read(folder).array, voxels())


def test_positions_that_were_rounded_are_even(tmp_path: Path) -> None:
    """0.625 mm to two decimals; and echoes in the order of their numbers, not of their digits."""

    def rounded(k: int, one: Dataset) -> None:
        one.ImagePositionPatient = [f"{float(x):.2f}" for x in one.ImagePositionPatient]

    folder = save_all(
        slices(gap=0.625, change=rounded) + slices(voxels(seed=1), gap=0.625, change=rounded, EchoTime=12),
        tmp_path / "in",
    )
    assert [s.part for s in find_series(folder).stacks] == ["echo time 4.6", "echo time 12.0"]
    np.testing.assert_allclose(the_series(folder, "3/1").affine, expected_affine(gap=0.625), atol=0.01)


def test_voxels_outside_a_hole_keep_their_integers(tmp_path: Path) -> None:
    """What `inpaint` writes of DICOM: the stored integers, their type and their rescale, in NIfTI."""
    folder = series(tmp_path / "in", voxels().astype(np.int16), PixelRepresentation=1, BitsStored=16, RescaleSlope=0.5)
    header, stored = formats.for_reading(folder).read_stored(folder)
    nifti.write_stored(tmp_path / "a.nii.gz", stored, header, "filled")
    again, held = nifti.read_stored(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(held, voxels())
    assert (again.dtype, again.slope, again.inter) == (np.dtype("<i2"), 0.5, 0)
