"""Wrong and dangerous DICOM: exit code 3, one line that says which file and what to do, nothing written, no torch."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.transforms.formats import dicom
from tests.dicom_files import dicomdir, enhanced, image, normal_of, save, save_all, series, slices, voxels, zipped

Maker = Callable[[Path], Path]
SECRETS = ("SECRET", "Secret", "19700101")


def one(k: int, **header: object) -> Callable[[int, Dataset], None]:
    """Change the header of slice `k` only; keywords that are None are deleted."""

    def change(i: int, made: Dataset) -> None:
        for name, value in header.items() if i == k else ():
            if value is None:
                delattr(made, name)
            else:
                setattr(made, name, value)

    return change


def moved(k: int, along: float, aside: float = 0.0) -> Callable[[int, Dataset], None]:
    """Move slice `k`, or for -1 slice i by i times as much, `along` the axis and `aside` of it."""

    def change(i: int, made: Dataset) -> None:
        times = i if k == -1 else int(i == k)
        place = np.array(made.ImagePositionPatient, float) + times * np.array([0, aside, along])
        made.ImagePositionPatient = [f"{x:.9g}" for x in place]

    return change


def without(*left_out: int) -> Maker:
    return lambda folder: save_all([s for k, s in enumerate(slices()) if k not in left_out], folder)


def changed(change: Callable[[int, Dataset], None], **header: object) -> Maker:
    return lambda folder: series(folder, change=change, **header)


def with_more(*more: Dataset) -> Maker:
    return lambda folder: save_all([*slices(), *more], folder)


def cut(size: int) -> Maker:
    """The last of five files loses all but `size` bytes, or its last -`size`."""

    def make(folder: Path) -> Path:
        file = series(folder) / "IM004"
        file.write_bytes(file.read_bytes()[:size])
        return folder

    return make


def one_file(made: Dataset) -> Maker:
    return lambda folder: save(made, folder / "IM000.dcm").parent


def compressed(content: bytes, syntax: str, **header: object) -> Dataset:
    made = image(voxels()[..., 0].T, [0, 0, 0], **header)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([content])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def codestream(rows: int, columns: int) -> bytes:
    """A JPEG 2000 codestream of 6 x 7 pixels that says it has more."""
    import imagecodecs

    packed = bytearray(imagecodecs.jpeg2k_encode(voxels()[..., 0].T.copy(), codecformat="j2k", reversible=True))
    struct.pack_into(">2I", packed, 8, columns, rows)
    return bytes(packed)


def all_of(made: list[Dataset], **header: object) -> Maker:
    def make(folder: Path) -> Path:
        for s in made:
            for name, value in header.items():
                setattr(s, name, value)
        return save_all(made, folder)

    return make


def outside(*parts: str) -> Maker:
    def make(folder: Path) -> Path:
        series(folder.parent / "elsewhere")
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "LINK").symlink_to(folder.parent / "elsewhere" / "IM000")
        return dicomdir(folder, [list(parts)])

    return make


def zip_of(name: str, content: bytes | None = None) -> Maker:
    """A zip with one slice under this name, or with this content."""

    def make(folder: Path) -> Path:
        slice_ = save(slices()[0], folder / "slice").read_bytes()
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, slice_ if content is None else content)
        return folder / "a.zip"

    return make


def lying_zip(folder: Path) -> Path:
    """A zip whose directory understates a member's size."""
    path = zip_of("IM000", bytes(128) + b"DICM" + bytes(1 << 22))(folder)
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        struct.pack_into("<I", content, content.index(signature) + at, 5000)
    path.write_bytes(content)
    return path


def broken_zip(folder: Path) -> Path:
    path = zipped(series(folder), folder.parent / "a.zip")
    path.write_bytes(path.read_bytes()[:-100])
    return path


def zip_with_a_gap(folder: Path) -> Path:
    return zipped(without(2)(folder), folder.parent / "a.zip")


def deflated(folder: Path) -> Path:
    made = slices()
    made[3].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return save_all(made, folder)


def all_are_cut(folder: Path) -> Path:
    for file in series(folder).iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    return folder


def empty_file(folder: Path) -> Path:
    series(folder)
    (folder / "IM004").rename(folder / "IM004.dcm").write_bytes(b"")
    return folder


def text_only(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    return folder


def capture(**header: object) -> Dataset:
    made = image(voxels()[..., 0].T, [0, 0, 0], SOPClassUID=SecondaryCaptureImageStorage, **header)
    del made.ImagePositionPatient, made.ImageOrientationPatient
    return made


def broken_groups(folder: Path) -> Path:
    made = enhanced()
    made.NumberOfFrames = 1_000_000_000
    return save(made, folder / "IM000.dcm").parent


def short_frames(folder: Path) -> Path:
    made = enhanced()
    made.PixelData = made.PixelData[:-84]
    return save(made, folder / "IM000.dcm").parent


def concatenation(folder: Path) -> Path:
    made = enhanced()
    made.ConcatenationUID = "1.2.9"
    return save(made, folder / "IM000.dcm").parent


def no_groups(folder: Path) -> Path:
    made = enhanced()
    del made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence
    return save(made, folder / "IM000.dcm").parent


OTHER_UID = {"SeriesInstanceUID": "1.7", "SeriesNumber": 4}
OTHER_PERSON = {"PatientID": "SECRET-ID-2", "PatientName": "Secret^Other"}
BAD: dict[str, tuple[Maker, str]] = {
    "a slice is missing": (without(2), "IM001: 1 slice is missing between it and IM002; copy"),
    "two slices are missing": (without(1, 2), "IM000: 2 slices are missing between it and IM001"),
    "two places of three": (without(1, 4), "IM000: 1 slice is missing between it and IM001"),
    "a slice is a copy": (
        with_more(image(voxels()[..., 2].T, [-80.5, -101.25, 39.125])),
        "IM005: is at the same place as",
    ),
    "a file is a copy": (
        lambda f: save(slices(SOPInstanceUID="1.2")[0], series(f, SOPInstanceUID="1.2") / "IM9").parent,
        "is the same image as",
    ),
    "uneven": (changed(moved(2, 0.7)), "uneven spacing, 2.3 to 3.7 mm"),
    "uneven by more than a tenth": (changed(moved(2, 0.45)), "uneven spacing, 2.55 to 3.45 mm"),
    "two series": (
        with_more(*slices(**OTHER_UID)),
        "holds 2 volumes; choose one with --series: 3, 4 (brgm-med series)",
    ),
    "two patients": (with_more(*slices(**OTHER_UID, **OTHER_PERSON)), "holds 2 volumes of 2 patients; choose"),
    "two patients in one series": (changed(one(3, **OTHER_PERSON)), "IM003: has another patient than IM000; separate"),
    "two births in one series": (changed(one(3, PatientBirthDate="19710101")), "IM003: has another patient than IM000"),
    "gantry tilt": (changed(moved(-1, 0.0, 0.8)), "the slices are shifted by 15 degrees (gantry tilt)"),
    "slight tilt": (changed(moved(-1, 0.0, 0.035)), "(gantry tilt)"),
    "a slice aside": (changed(moved(2, 0.0, 2.0)), "is 2 mm aside of its series"),
    "mixed orientations": (changed(one(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])), "holds 2 volumes"),
    "two orientations": (
        changed(one(2, ImageOrientationPatient=[1, 0, 0, 0, 0.999995, 0.003])),
        "holds 2 volumes",
    ),
    "a slice has no position": (changed(one(2, ImagePositionPatient=None)), "IM002: has no position or no orientation"),
    "no slice has a position": (lambda f: series(f, ImagePositionPatient=None), "IM000: has no position or no orient"),
    "a slice has no orientation": (
        changed(one(0, ImageOrientationPatient=None)),
        "IM000: has no position or no orient",
    ),
    "infinite position": (changed(one(2, ImagePositionPatient=["1e999", 0, 0])), "IM002: has no position or no orient"),
    "orientation of length 0": (lambda f: series(f, ImageOrientationPatient=[0] * 6), "not of two perpendicular unit"),
    "no pixel spacing": (lambda f: series(f, PixelSpacing=None), "IM000: has no pixel spacing"),
    "pixel spacing of 0": (lambda f: series(f, PixelSpacing=[0, 1]), "IM000: has no pixel spacing"),
    "two pixel spacings": (changed(one(2, PixelSpacing=[0.8, 1.2])), "IM002: has another pixel spacing than IM000"),
    "two sizes": (
        with_more(image(voxels((8, 6, 1))[..., 0].T, [-80.5, -101.25, 48.125])),
        "IM005: has another number of columns",
    ),
    "two frames of reference": (changed(one(4, FrameOfReferenceUID="1.2.99")), "IM004: has another frame of reference"),
    "absurd spacing": (lambda f: series(f, PixelSpacing=[5e4, 5e4]), "absurd voxel size"),
    "one slice of no thickness": (
        one_file(image(voxels()[..., 0].T, [0, 0, 0], SliceThickness=None)),
        "unknown thickness",
    ),
    "cut in its pixels": (cut(-20), "IM004: is truncated: it ends before its pixels do"),
    "cut before its pixels": (cut(-96), "IM004: holds no pixels"),
    "cut in its header": (cut(400), "IM004: holds no pixels"),
    "cut in its meta information": (cut(150), "IM004: "),
    "a frame is missing": (
        one_file(enhanced(voxels((7, 6, 6)), order=np.array([5, 1, 0, 3, 4]))),
        ", frame 2: 1 slice is missing between it and IM000.dcm, frame 4",
    ),
    "all are cut": (all_are_cut, "IM000: is truncated: it ends before its pixels do"),
    "no pixel data": (changed(one(3, PixelData=None)), "IM003: holds no pixels; copy it again if it is truncated"),
    "mosaic": (lambda f: series(f, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a Siemens mosaic"),
    "unsupported transfer syntax": (
        one_file(compressed(b"film", MPEG2MPML)),
        "compressed in a way that is not known here",
    ),
    "secondary captures": (one_file(capture()), "holds 1 DICOM files without a place in space (such as secondary"),
    "cut to nothing": (empty_file, "IM004.dcm: is named like DICOM and is none"),
    "no dicom": (text_only, "holds no DICOM file (1 others)"),
    "colour": (lambda f: series(f, PhotometricInterpretation="RGB"), "IM000: is not grey (RGB)"),
    "one bit": (lambda f: series(f, BitsStored=1), "has 1 bits stored in 16"),
    "slope of 0": (lambda f: series(f, RescaleSlope=0, RescaleIntercept=0), "is rescaled by 0 and 0"),
    "beyond float32": (lambda f: series(f, RescaleSlope="1e300", RescaleIntercept=0), "beyond float32"),
    "constant": (lambda f: series(f, np.full((7, 6, 5), 9, np.uint16)), "all its voxels are 9"),
    "classic frames": (no_groups, "holds several frames and nothing that says where they are"),
    "too few groups": (broken_groups, "says that it has 1000000000 frames and describes 5"),
    "too few frames": (short_frames, "is truncated or damaged"),
    "a part of a concatenation": (concatenation, "is a part of a concatenation"),
    "DICOMDIR that leads out": (outside("..", "elsewhere", "IM000"), "names a file outside of its folder"),
    "DICOMDIR that leads up": (outside("inside", "..", "..", "elsewhere"), "names a file outside of its folder"),
    "DICOMDIR with a root": (outside("/", "etc", "passwd"), "names a file outside of its folder (/"),
    "DICOMDIR with a separator": (outside("../elsewhere/IM000"), "names a file outside of its folder"),
    "DICOMDIR that follows a link": (outside("inside", "LINK"), "names a file outside of its folder (inside/LINK)"),
    "DICOMDIR of what is gone": (
        outside("GONE"),
        "names a file that is not there (GONE); copy the whole medium again, or give",
    ),
    "zip that leads out": (zip_of("../IM000"), "has a member outside of itself (../IM000)"),
    "zip that leads out backwards": (zip_of("a\\..\\..\\IM000"), "has a member outside of itself"),
    "zip with a root": (zip_of("/tmp/IM000"), "has a member outside of itself (/tmp/IM000)"),
    "zip bomb": (
        zip_of("IM000", bytes(128) + b"DICM" + bytes(1 << 26)),
        "has a member packed 200 times or more (IM000)",
    ),
    "zip that lies": (lying_zip, "is no zip, or a damaged one"),
    "zip that is cut": (broken_zip, "is no zip, or a damaged one"),
    "zip of a series with a gap": (zip_with_a_gap, "a.zip/IM001: 1 slice is missing"),
    "zip of nothing": (zip_of("notes.txt", b"hello"), "holds no DICOM file (1 others)"),
    "deflated": (deflated, "IM003: is deflated as a whole; convert"),
    "codestream bomb": (
        one_file(compressed(codestream(60000, 60000), JPEG2000Lossless)),
        "of 60000 x 60000 pixels and declares 7 x 6",
    ),
    "codestream without an end": (one_file(compressed(codestream(6, 7)[:-40], JPEG2000Lossless)), "frame has no end"),
    "declared bomb": (
        one_file(compressed(codestream(16000, 16000), JPEG2000Lossless, Rows=16000, Columns=16000)),
        "declare 488 MiB, more than files of their size can hold",
    ),
    "absurd size": (lambda f: series(f, Rows=65535, Columns=65535), "declare 65535 x 65535 x 5 voxels"),
    "no size": (lambda f: series(f, Rows=None), "declare 7 x 0 x 5 voxels"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_folder_is_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, says = BAD[name]
    place, out = make(tmp_path / "in"), tmp_path / "out.nii.gz"
    before = sorted(tmp_path.rglob("*"))
    command = ["degrade", "--in", place, "--slice-thickness", 6, "--axis", "S", "--out", out]
    assert main([str(a) for a in command]) == 3
    captured = capfd.readouterr()
    assert not captured.out
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith(f"brgm-med: {place.parent if place.name == 'DICOMDIR' else place}")
    assert says in captured.err
    assert "; " in captured.err
    assert not any(secret in captured.err for secret in SECRETS)
    if name != "secondary captures":  # those are pictures to `sr`
        assert main(["sr", "--in", str(place)]) == 3
        assert len(capfd.readouterr().err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_refusals_come_before_torch_and_cost_no_memory(tmp_path: Path) -> None:
    """Those that would be bombs, in a fresh interpreter each: under 300 MB, and no heavy import."""
    code = """
import re, sys
from brgm_med.pipelines.cli import main
assert main(["sr", "--in", sys.argv[1]]) == 3
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(peak, *{"torch", "monai", "nibabel", "SimpleITK"} & set(sys.modules))
"""
    for name in ("codestream bomb", "declared bomb", "zip bomb", "absurd size", "a slice is missing"):
        place = BAD[name][0](tmp_path / name / "in")
        done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)
        peak, *heavy = done.stdout.split()
        assert float(peak) < 300, name
        assert not heavy, name


def test_a_choice_does_not_mend_a_bad_series_and_a_bad_one_does_not_spoil_a_good(tmp_path: Path) -> None:
    folder = with_more(*(s for k, s in enumerate(slices(**OTHER_UID)) if k != 2))(tmp_path / "in")
    assert dicom.Reader("3").read(folder).array.shape == (7, 6, 5)
    with pytest.raises(InputRefusedError, match="1 slice is missing"):
        dicom.Reader("4").read(folder)


def test_the_listing_shows_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with the geometry of a series, the listing says so and does not fail."""
    for name in ("a slice is missing", "gantry tilt", "no slice has a position", "mosaic", "absurd size", "no size"):
        make, says = BAD[name]
        assert main(["series", str(make(tmp_path / name)), "--json"]) == 0
        (volume,) = json.loads(capsys.readouterr().out)["volumes"]
        assert says.removeprefix("IM") in volume["problem"], name
        assert str(tmp_path) not in volume["problem"]


def test_a_missing_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["series", str(tmp_path / "nowhere")]) == 3
    assert "no such file or folder; check the name" in capsys.readouterr().err
    assert normal_of("axial").tolist() == [0, 0, 1]
