"""Derived MR series: their geometry, values, identity and attributes, by pydicom and highdicom, not by our reader."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from brgm_med.errors import CannotWriteError, InputRefusedError
from brgm_med.transforms.formats import dicom
from brgm_med.transforms.formats.dicom import derived
from brgm_med.transforms.formats.dicom import write as dicom_write
from brgm_med.transforms.formats.dicom.derived import Choices
from brgm_med.transforms.formats.dicom.series import Series, the_series
from tests import contracts, dicom_files
from tests.mr_series import HOW, OBLIQUE, blob, enhanced_source, mr_series

RAS_LPS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return the_series(mr_series(tmp_path_factory.mktemp("mr") / "in"))


def finer(affine: NDArray[np.float64], factor: int = 3) -> NDArray[np.float64]:
    """`affine` with `factor` slices for one."""
    made = affine.copy()
    made[:3, 2] /= factor
    made[:3, 3] -= affine[:3, 2] * (0.5 - 0.5 / factor)
    return made


def files(folder: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(folder.iterdir())]


def voxels(folder: Path) -> NDArray[np.float64]:
    """[columns, rows, slices], rescaled, in the order of the files' names."""
    return np.stack(
        [
            d.pixel_array.T * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0))
            for d in files(folder)
        ],
        -1,
    )


def by_highdicom(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The volume [columns, rows, slices] and its affine, index -> RAS mm, as highdicom finds them."""
    volume = highdicom.get_volume_from_series(files(folder))
    order = np.eye(4)[[2, 1, 0, 3]]  # its axes are slices, rows, columns
    return volume.array.transpose(2, 1, 0), RAS_LPS @ volume.affine @ order


def same_place(
    a: tuple[NDArray[np.float64], NDArray[np.float64]], b: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> bool:
    """Whether two volumes hold the same voxels at the same places, whichever way their slices count."""
    last = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, a[0].shape[2] - 1], [0, 0, 0, 1]])
    turned = b[0][:, :, ::-1], b[1] @ last
    return any(np.array_equal(a[0], v) and np.allclose(a[1], m, atol=1e-5) for v, m in (b, turned))


def test_every_voxel_is_where_it_belongs(source: Series, tmp_path: Path) -> None:
    array, affine = np.repeat(blob(), 3, -1).astype(np.float32) - 0.25, finer(source.affine)

    def write(path: Path) -> NDArray[np.floating]:
        written = dicom_write.write(path, array, affine, source, HOW, choices=Choices(uid_seed="1"))
        assert written.step == 1
        return written.array

    rounded = np.rint(array)  # halves to even
    read = dicom.Reader().read
    contracts.round_trip(tmp_path / "out", write, read, rounded, affine, lambda s: s.header.dtype, np.dtype(np.uint16))
    assert np.array_equal(voxels(tmp_path / "out"), rounded)
    assert np.abs(rounded - array).max() <= 0.5
    found = files(tmp_path / "out")
    assert len(found) == 18
    for k, dataset in enumerate(found):
        directions = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = (float(s) for s in dataset.PixelSpacing)
        for i, j in ((0, 0), (11, 0), (0, 9), (11, 9)):
            lps = np.array(dataset.ImagePositionPatient, float)
            lps = lps + directions[0] * between_columns * i + directions[1] * between_rows * j
            assert np.allclose(RAS_LPS[:3, :3] @ lps, (affine @ [i, j, k, 1])[:3], atol=1e-6)
        assert (dataset.SliceThickness, dataset.SpacingBetweenSlices) == pytest.approx((1, 1))
        assert dataset.InstanceNumber == k + 1
    back = the_series(tmp_path / "out")
    assert np.allclose(back.affine, affine, atol=1e-6)
    assert back.shape == array.shape


@pytest.mark.parametrize("flip", range(8))
def test_any_orientation_is_a_volume_to_others(source: Series, tmp_path: Path, flip: int) -> None:
    """Left-handed grids too: their files are in order along the slices' normal, the voxels where they were."""
    signs = [1 - 2 * (flip >> axis & 1) for axis in range(3)]
    affine = RAS_LPS @ OBLIQUE @ np.diag([*signs, 1])
    array = blob().astype(np.float64)
    dicom_write.write(tmp_path / "out", array, affine, source, HOW)
    assert same_place((array, affine), by_highdicom(tmp_path / "out"))
    normal = [d.SliceLocation for d in files(tmp_path / "out")]
    assert normal == sorted(normal)


def test_who_and_when_are_kept_and_what_is_new_is_said(source: Series, tmp_path: Path) -> None:
    dicom_write.write(tmp_path / "out", blob() * 1.0, source.affine, source, HOW, thickness=2.5)
    made, old = files(tmp_path / "out"), source.headers
    for dataset in made:
        for name in (
            *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"),
            *("AccessionNumber", "FrameOfReferenceUID", "SpecificCharacterSet", "ReferringPhysicianName", "EchoTime"),
            *("WindowCenter", "WindowWidth", "BurnedInAnnotation", "LossyImageCompression", "BodyPartExamined"),
            *("RepetitionTime", "ScanningSequence", "Manufacturer", "InPlanePhaseEncodingDirection", "FlipAngle"),
        ):
            assert dataset[name].value == old[0][name].value, name
        for name in (
            "AcquisitionMatrix",
            "PixelBandwidth",
            "SmallestImagePixelValue",
            "AcquisitionTime",
            "RescaleSlope",
        ):
            assert name not in dataset
        assert not any(element.tag.is_private for element in dataset)
        assert dataset.SOPClassUID == MRImageStorage
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.ImageType == ["DERIVED", "SECONDARY", "M"]
        assert dataset.DerivationDescription == HOW.text
        assert dataset.DerivationCodeSequence[0].CodeValue == "113085"
        assert dataset.ImageComments == HOW.statement
        assert dataset.ContentQualification == "RESEARCH"
        assert dataset.SeriesDescription == "t1 grün tried"
        assert dataset.SeriesNumber == 1004
        assert dataset.SliceThickness == 2.5
        tool = dataset.ContributingEquipmentSequence[-1]
        assert tool.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert "Prior none." in tool.ContributionDescription
    # Each slice names the source's image that it lies on.
    for dataset, header in zip(made, old, strict=True):
        referred = [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence]
        assert header.SOPInstanceUID in referred
        assert len(referred) <= 3
        assert dataset.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    uids = {d.SOPInstanceUID for d in made}
    assert len(uids) == len(made)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert len({d.SeriesInstanceUID for d in made} | {old[0].SeriesInstanceUID}) == 2


def test_numbers_as_text_have_at_most_16_characters_and_the_preamble_is_empty(source: Series, tmp_path: Path) -> None:
    affine = source.affine.copy()
    affine[:3] = affine[:3] * np.pi / 3
    dicom_write.write(tmp_path / "out", blob() / 7, affine, source, HOW)
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes()[:132] == bytes(128) + b"DICM"
        for element in dcmread(path):
            if element.VR == "DS" and element.value is not None:
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(v)) <= 16 for v in values), element


def test_private_elements_that_all_slices_share_are_kept_on_request(source: Series, tmp_path: Path) -> None:
    dicom_write.write(tmp_path / "out", blob() * 1.0, source.affine, source, HOW, Choices(keep_private=True))
    for dataset in files(tmp_path / "out"):
        block = dataset.private_block(0x0029, "MAKER")
        assert block[1].value == "private, of all"
        assert 2 not in block


def test_the_seed_decides_the_uids(source: Series, tmp_path: Path) -> None:
    made = {}
    for name, seed, factor in (("a", "x", 1.0), ("b", "x", 1.0), ("c", "y", 1.0), ("d", "x", 0.5), ("e", None, 1.0)):
        dicom_write.write(tmp_path / name, blob() * factor, source.affine, source, HOW, Choices(uid_seed=seed))
        made[name] = {d.SOPInstanceUID for d in files(tmp_path / name)}
    assert made["a"] == made["b"]
    same = [[p.read_bytes() for p in sorted((tmp_path / n).iterdir())] for n in "ab"]
    assert same[0] == same[1]
    assert len(set.union(*made.values())) == 4 * 6


def test_the_hook_has_the_last_word(source: Series, tmp_path: Path) -> None:
    def anonymous(dataset: Dataset) -> Dataset:
        dataset.PatientName = "nobody"
        dataset.SOPInstanceUID += ".1"
        dataset.StudyInstanceUID += ".1"
        return dataset

    dicom_write.write(tmp_path / "out", blob() * 1.0, source.affine, source, HOW, Choices(transform=anonymous))
    for dataset in files(tmp_path / "out"):
        assert dataset.PatientName == "nobody"
        assert dataset.StudyInstanceUID == source.headers[0].StudyInstanceUID + ".1"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


@pytest.mark.parametrize(
    ("low", "high", "rescale"),
    [(0, 4095, None), (-800, 4000, None), (0, 65535, None), (-100, 65535, None), (0, 1e6, None), (0, 1e-3, None),
     (-1, 4000, (0.25, -1.0)), (0, 100, (0.001, 0.0)), (5, 5.5, (1.0, 0.0))],
)  # fmt: skip
def test_the_error_is_at_most_half_a_step_and_nothing_is_clipped(
    tmp_path: Path, low: float, high: float, rescale: tuple[float, float] | None
) -> None:
    """The source's step where 16 bits hold it, else the smallest that they allow."""
    extra = {} if rescale is None else {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    like = the_series(mr_series(tmp_path / "in", **extra))
    array = np.random.default_rng(0).uniform(low, high, (12, 10, 6))
    array[0, 0, :2] = low, high
    held = dicom_write.write(tmp_path / "out", array, like.affine, like, HOW)
    assert np.abs(held.array - array).max() <= 0.5 * held.step * (1 + 1e-9)
    assert np.array_equal(voxels(tmp_path / "out"), held.array)
    step = 1.0 if rescale is None else rescale[0]
    if (high - low) / step <= 65535:
        assert held.step == step
    else:
        assert held.step == pytest.approx((high - low) / 65534)
    has_rescale = ["RescaleSlope" in d for d in files(tmp_path / "out")]
    assert all(has_rescale) == any(has_rescale) == (held.step != 1 or rescale is not None)


def test_what_was_made_from_floating_point_uses_the_whole_range(source: Series, tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(0, 1e-3, (12, 10, 6))
    held = dicom_write.write(tmp_path / "out", array, source.affine, source, HOW, made_here=False)
    assert np.abs(held.array - array).max() < 1e-3 / 65534
    assert np.array_equal(voxels(tmp_path / "out"), held.array)
    for dataset in files(tmp_path / "out"):  # nothing of it is known to be of that source
        assert not {"SourceImageSequence", "WindowCenter", "WindowWidth"} & set(dataset.dir())


def test_slices_of_different_scale_and_window_get_one(tmp_path: Path) -> None:
    folder = mr_series(tmp_path / "in", RescaleSlope=1, RescaleIntercept=0)
    for k, path in enumerate(sorted(folder.iterdir())):
        dataset = dcmread(path)
        dataset.RescaleSlope, dataset.WindowCenter = 0.5 + 0.1 * k, 1000 + k
        dataset.LossyImageCompression = "01" if k == 2 else "00"
        dataset.save_as(path)
    like = the_series(folder)
    held = dicom_write.write(tmp_path / "out", blob() / 3, like.affine, like, HOW)
    found = files(tmp_path / "out")
    assert held.step == 0.5
    assert {float(d.RescaleSlope) for d in found} == {0.5}
    assert {float(d.WindowCenter) for d in found} == {1002.5}
    assert {d.LossyImageCompression for d in found} == {"01"}


def test_an_enhanced_source_gives_classic_images(tmp_path: Path) -> None:
    like = enhanced_source(tmp_path / "in")
    held = dicom_write.write(tmp_path / "out", dicom_files.voxels() * 2.0, like.affine, like, HOW)
    assert held.step == 2
    for k, dataset in enumerate(files(tmp_path / "out")):
        expected = {"EchoTime": 9.2, "RepetitionTime": 500, "FlipAngle": 70, "EchoTrainLength": 1, "InversionTime": 900}
        expected |= {
            "ScanningSequence": ["GR", "IR"],
            "SequenceVariant": "SP",
            "ImagedNucleus": "1H",
            "ScanOptions": "",
        }
        expected |= {"WindowCenter": 1000, "RescaleIntercept": -10, "RescaleSlope": 2, "PatientID": "SECRET-ID"}
        for name, value in expected.items():
            assert dataset[name].value == value, name
        assert dataset.ImageType == ["DERIVED", "SECONDARY", "VOLUME"]
        assert not {"NumberOfFrames", "EchoPulseSequence", "SharedFunctionalGroupsSequence"} & set(dataset.dir())
        (source,) = dataset.SourceImageSequence
        referred = source["ReferencedFrameNumber"].value
        assert like.frames[k] + 1 in (referred if source["ReferencedFrameNumber"].VM > 1 else [referred])
    assert np.allclose(the_series(tmp_path / "out").affine, like.affine, atol=1e-6)


def test_what_is_not_known_is_empty_or_absent(tmp_path: Path) -> None:
    like = the_series(mr_series(tmp_path / "in", ImageType=None, SeriesNumber=None, EchoTime=None, WindowCenter=None))
    dicom_write.write(tmp_path / "out", blob() * 1.0, like.affine, like, HOW)
    for dataset in files(tmp_path / "out"):
        assert dataset.ImageType[2] == "OTHER"
        assert dataset["EchoTime"].is_empty
        assert dataset["SeriesNumber"].is_empty
        assert "WindowWidth" not in dataset


def test_a_folder_is_there_whole_or_as_it_was(source: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    dicom_write.write(out, blob() * 1.0, source.affine, source, HOW)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(InputRefusedError, match="exists already"):
        dicom_write.write(out, blob() * 1.0, source.affine, source, HOW)
    with monkeypatch.context() as patched:
        real = derived.save

        def failing(dataset: Dataset, path: Path) -> None:
            if path.name == "0003.dcm":
                raise OSError(28, "No space left on device")
            real(dataset, path)

        patched.setattr(derived, "save", failing)
        for name in ("out", "new"):
            with pytest.raises(CannotWriteError, match="No space left"):
                dicom_write.write(tmp_path / name, blob() * 1.0, source.affine, source, HOW, force=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    dicom_write.write(out, blob()[:, :, :4] * 1.0, source.affine, source, HOW, force=True)
    assert len(files(out)) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CannotWriteError, match=r"not a folder of \.dcm files only"):
        dicom_write.write(out, blob() * 1.0, source.affine, source, HOW, force=True)


def test_what_reads_back_differently_is_refused(
    source: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = derived.save

    def damaging(dataset: Dataset, path: Path) -> None:
        real(dataset, path)
        if path.name == "0002.dcm":
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(derived, "save", damaging)
    with pytest.raises(CannotWriteError, match="reads back differently"):
        dicom_write.write(tmp_path / "out", blob() * 1.0, source.affine, source, HOW)
    assert list(tmp_path.iterdir()) == []


def test_odd_values_stay_as_they_are_and_unreadable_ones_are_left_out(tmp_path: Path) -> None:
    folder = mr_series(tmp_path / "in", PatientWeight=75.5, PatientAge="042Y", PregnancyStatus=4)
    for path in folder.iterdir():
        content = path.read_bytes().replace(b"75.5", b"75,5").replace(b"042Y", b"42  ")
        content = content.replace(b"US\x02\x00\x04\x00", b"US\x01\x00\x04")
        path.write_bytes(content)
    like = the_series(folder)
    dicom_write.write(tmp_path / "out", blob() * 1.0, like.affine, like, HOW)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert b"DS\x04\x0075,5" in content
        assert b"AS\x02\x0042" in content
        assert "PregnancyStatus" not in dcmread(path)


def test_a_single_slice_is_a_series_too(source: Series, tmp_path: Path) -> None:
    dicom_write.write(tmp_path / "out", blob()[:, :, :1] * 1.0, source.affine, source, HOW, thickness=2)
    assert the_series(tmp_path / "out").shape == (12, 10, 1)


def test_a_source_that_is_no_mr_is_refused(tmp_path: Path) -> None:
    like = the_series(mr_series(tmp_path / "in", Modality="CT"))
    with pytest.raises(InputRefusedError, match="is CT, not MR"):
        dicom_write.write(tmp_path / "out", blob() * 1.0, like.affine, like, HOW)


def test_all_scans_of_a_result_are_cited(tmp_path: Path) -> None:
    first, second = (the_series(mr_series(tmp_path / name)) for name in ("first", "second"))
    for number, header in enumerate(second.headers):
        header.SOPInstanceUID = f"1.2.3.{number + 1}"
    dicom_write.write(tmp_path / "out", blob().astype(np.float32), first.affine, first, HOW, further=(second,))
    for dataset in files(tmp_path / "out"):
        cited = {str(one.ReferencedSOPInstanceUID) for one in dataset.SourceImageSequence}
        assert cited & {str(h.SOPInstanceUID) for h in first.headers}
        assert cited & {str(h.SOPInstanceUID) for h in second.headers}
    other = dicom_write.write(
        tmp_path / "of nifti", blob().astype(np.float32), first.affine, first, HOW, made_here=False
    )
    assert other.step is not None
    assert not any("SourceImageSequence" in dataset for dataset in files(tmp_path / "of nifti"))
