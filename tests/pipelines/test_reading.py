"""How a scan is taken to have been acquired: one rule for NIfTI with a sidecar, DICOM, and all commands. Files of one
content are told, and a head that is trained on and held out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brgm_med.corruptions import profile_matrix
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.reading import Flags, check_together, read_scan, say_identical
from brgm_med.pipelines.steps.convert import convert
from brgm_med.pipelines.training.pictures import holds_pictures
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.formats import nifti, pictures_in
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from tests.mr_series import ROOT, blob, mr_series
from tests.textures import texture

RULES: list[tuple[tuple[float, float, float], dict[str, Any], tuple[float, float, float], int | None]] = [
    ((1, 1, 6), {"SliceThickness": 4}, (1, 1, 4), 2),
    ((1.1, 1.0, 0.8), {"SliceThickness": 1.6, "SliceEncodingDirection": "k-"}, (1.1, 1.0, 1.6), 2),
    (
        (1.1, 1.0, 0.8),
        {"SliceThickness": 1.6, "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0]},
        (1.1, 1.0, 1.6),
        2,
    ),
    (
        (1.0, 1.33, 1.33),
        {"SliceThickness": 1.2, "ImageOrientationPatientDICOM": [0, 1, 0, 0, 0, -1]},
        (1.2, 1.33, 1.33),
        0,
    ),
    ((1.1, 1.0, 0.8), {"SliceThickness": 1.6}, (1.1, 1.0, 0.8), None),
    ((1, 1, 6), {"SpacingBetweenSlices": 6}, (1, 1, 6), None),
]


def scan_at(path: Path, spacing: tuple[float, float, float], metadata: dict[str, Any] | None = None) -> Path:
    values = np.random.default_rng(0).random((6, 7, 5)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, values, make_affine(np.diag(spacing), np.zeros(3)))
    if metadata is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(metadata))
    return path


@pytest.mark.parametrize(("spacing", "metadata", "thickness", "axis"), RULES)
def test_one_rule_for_a_sidecar_beside_the_scan_and_for_a_study(
    spacing: tuple[float, float, float],
    metadata: dict[str, Any],
    thickness: tuple[float, float, float],
    axis: int | None,
    tmp_path: Path,
) -> None:
    """`sr` reads the file beside the scan; `run` converts with BIDS metadata first."""
    alone = read_scan(scan_at(tmp_path / "in" / "one.nii.gz", spacing, metadata)).scan.acquisition
    assert alone.thickness == pytest.approx(thickness)
    assert alone.axis == axis
    (tmp_path / "work").mkdir()
    converted, _ = convert(tmp_path / "in" / "one.nii.gz", tmp_path / "work", metadata=metadata)
    assert read_scan(converted).scan.acquisition == alone


def test_dicom_says_the_axis_and_the_thickness(tmp_path: Path) -> None:
    """Of overlapping slices finer than their pixels too, where a person states the thickness."""
    lps = np.diag([1.1, 1.0, 0.8, 1.0])
    folder = mr_series(tmp_path / "in", lps=lps, SliceThickness=1.6, SpacingBetweenSlices=0.8)
    for flags in (Flags(), Flags(thickness=1.6)):
        model = read_scan(folder, flags=flags).scan.acquisition
        assert model.axis == 2
        assert model.thickness == pytest.approx((1.1, 1.0, 1.6))


def test_the_axis_is_asked_for_where_nothing_tells_it(tmp_path: Path) -> None:
    for number, spacing in enumerate([(1.1, 1.0, 0.8), (1.0, 1.0, 0.8), (1.0, 1.0, 1.0)]):
        scan = scan_at(tmp_path / f"{number}.nii.gz", spacing)
        with pytest.raises(UsageError, match="--slice-axis"):
            read_scan(scan, flags=Flags(thickness=1.6))
        model = read_scan(scan, flags=Flags(thickness=1.6, axis="S")).scan.acquisition
        assert (model.thickness, model.axis) == (pytest.approx((*spacing[:2], 1.6)), 2)


def test_what_a_sidecar_contradicts_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gap = {"SliceThickness": 5, "SpacingBetweenSlices": 1}
    model = read_scan(scan_at(tmp_path / "gap.nii.gz", (1, 1, 6), gap)).scan.acquisition
    assert model == AcquisitionModel((1, 1, 5), "box", 2, True)
    said = capsys.readouterr().err
    assert "SpacingBetweenSlices is 1 mm (the gap), its slices lie 6 mm apart; the positions are taken" in said
    read_scan(scan_at(tmp_path / "unclear.nii.gz", (1.1, 1.0, 0.8), {"SliceThickness": 1.6}))
    assert "SliceThickness is 1.6 mm, but nothing tells along which axis" in capsys.readouterr().err
    read_scan(scan_at(tmp_path / "sound.nii.gz", (1, 1, 6), {"SliceThickness": 5, "SpacingBetweenSlices": 6}))
    read_scan(scan_at(tmp_path / "even.nii.gz", (1, 1, 1), {"SliceThickness": 1}))
    assert "warning" not in capsys.readouterr().err
    with pytest.raises(InputRefusedError, match="SliceThickness is '5', no length"):
        read_scan(scan_at(tmp_path / "text.nii.gz", (1, 1, 6), {"SliceThickness": "5"}))


def test_bids_says_that_a_skull_was_stripped(tmp_path: Path) -> None:
    for number, (content, stripped) in enumerate([({"SkullStripped": True}, True), ({"SkullStripped": False}, False)]):
        assert read_scan(scan_at(tmp_path / f"{number}.nii.gz", (1, 1, 6), content)).scan.stripped == stripped


def test_one_result_is_of_one_patient_in_one_world(tmp_path: Path) -> None:
    first = read_scan(mr_series(tmp_path / "first"))
    changes: list[dict[str, Any]] = [{"PatientID": "other"}, {"PatientBirthDate": "19800101"}, {"PatientName": "X"}]
    for number, change in enumerate(changes):
        other = read_scan(mr_series(tmp_path / f"other{number}", FrameOfReferenceUID=f"{ROOT}9", **change))
        for same_world in (False, True):
            with pytest.raises(InputRefusedError, match=f"other{number}: is of another patient than"):
                check_together([first, other], same_world=same_world)
        with pytest.raises(InputRefusedError, match="is of another patient"):
            check_together(
                [read_scan(scan_at(tmp_path / f"{number}.nii.gz", (1, 1, 6))), other], like=first.header.series
            )
    moved = read_scan(mr_series(tmp_path / "moved", FrameOfReferenceUID=f"{ROOT}9", PatientBirthDate=""))
    with pytest.raises(InputRefusedError, match=r"another frame of reference than .*--same-world"):
        check_together([first, moved])
    check_together([first, moved], same_world=True)
    check_together([first, read_scan(mr_series(tmp_path / "again", PatientName="Müller^Jürgen^"))])


def test_grids_of_a_sidecar_are_told_by_direction_and_not_by_order(tmp_path: Path) -> None:
    """A sagittal scan that was stored with its slices first."""
    from brgm_med.transforms.sidecar import slice_axis

    grid = Grid((5, 6, 7), make_affine([[0, 0, 3], [1, 0, 0], [0, 1, 0]], np.zeros(3)))
    assert slice_axis({"ImageOrientationPatientDICOM": [0, 1, 0, 0, 0, -1]}, grid) == 2
    assert slice_axis({"BrgmMedAcquisition": {"SliceAxis": "R"}, "SliceEncodingDirection": "i"}, grid) == 2
    for nothing in ({}, {"ImageOrientationPatientDICOM": [1, 0]}, {"SliceEncodingDirection": 3}):
        assert slice_axis(nothing, grid) is None
    assert slice_axis({"ImageOrientationPatientDICOM": [0.7, 0.7, 0, 0, 0, -1]}, grid) is None


def files(folder: Path, *contents: str) -> list[Path]:
    paths = [folder / f"{number}.nii.gz" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


def test_heads_that_differ_are_not_spoken_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_identical(files(tmp_path, "a", "b", "cc"))
    assert capsys.readouterr().err == ""


def test_the_same_content_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = files(tmp_path, "a", "b", "a", "a")
    say_identical(paths)
    assert capsys.readouterr().err.splitlines() == [
        "warning: 0.nii.gz and 2.nii.gz hold the same, byte for byte, and 1 more: each counts as a subject of its own"
    ]


@pytest.mark.parametrize(("trained", "leaks"), [(1, True), (2, True), (4, False)])
def test_a_head_that_is_trained_on_and_held_out(
    tmp_path: Path, trained: int, leaks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(tmp_path, "a", "b", "a", "c")
    say_identical(paths, paths[:trained])
    text = "0.nii.gz is trained on and, under another name, held out: its measure says nothing"
    assert (text in capsys.readouterr().err) == leaks


def test_series_of_the_same_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever their names, order and headers; one other pixel is another series."""
    one = mr_series(tmp_path / "one")
    copy = mr_series(tmp_path / "copy", PatientName="Other^Name", SeriesInstanceUID="1.2.3", SeriesNumber=9)
    for number, file in enumerate(sorted(copy.iterdir())):
        file.rename(copy / f"{9 - number}.dcm")
    voxels = blob()
    voxels[0, 0, 0] += 1
    other = mr_series(tmp_path / "other", voxels)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "IM0").write_bytes((one / "IM000").read_bytes()[:-100])
    bad = tmp_path / "bad"
    say_identical([one, other, bad])
    assert capsys.readouterr().err == ""
    text = " hold the same pixels, byte for byte: each counts as a subject of its own\n"
    say_identical([one, other, copy, bad])
    assert capsys.readouterr().err == f"warning: one and copy{text}"
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", copy))
    say_identical([one, other, archive])
    assert capsys.readouterr().err == f"warning: one and packed.zip{text}"
    assert not list(tmp_path.glob(".brgm-*"))


def test_hidden_pictures_and_volumes_do_not_count(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".git/b.png", ".git/annex/c.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("picture")
    assert pictures_in(tmp_path) == [tmp_path / "a.png"]
    assert holds_pictures(tmp_path, tmp_path / "run")


def striped(path: Path, gain: float) -> Path:
    """A smooth ball in 20 slices of 5 mm, every second one brighter by `gain`."""
    x, y, z = np.meshgrid(np.arange(60) - 29.5, np.arange(60) - 29.5, 2.0 * (np.arange(20) - 9.5), indexing="ij")
    values = 100 / (1 + np.exp((x**2 + y**2 + 0.3 * z**2) ** 0.5 - 25))
    values += np.random.default_rng(0).normal(size=values.shape)
    values[..., 0::2] *= 1 + gain
    nifti.write(path, values.astype(np.float32), make_affine(np.diag([1.0, 1.0, 5.0]), np.zeros(3)))
    return path


def test_the_gain_of_every_second_slice_is_warned_of_and_corrected_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = striped(tmp_path / "striped.nii.gz", 0.05)
    plain = read_scan(path)
    said = capsys.readouterr().err
    assert re.search(r"warning: striped.nii.gz: its odd-numbered slices are (4\.[5-9]|5\.[0-5])% .*brighter", said), (
        said
    )
    assert plain.examination is not None
    assert plain.examination.record()["even_odd_corrected"] is False
    level = read_scan(path, even_odd="correct")
    assert "are brought to one level" in (err := capsys.readouterr().err)
    assert "brighter" not in err
    assert level.examination is not None
    assert level.examination.record()["even_odd_corrected"] is True
    ratio = (level.scan.values / plain.scan.values)[0, 30, 30]
    assert float(ratio[1] / ratio[0]) == pytest.approx(1.05, abs=0.01)


def test_an_even_scan_is_not_corrected_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = striped(tmp_path / "even.nii.gz", 0.0)
    assert bool((read_scan(path, even_odd="correct").scan.values == read_scan(path).scan.values).all())
    assert "nothing is corrected" in capsys.readouterr().err


def test_a_thickness_that_the_scan_does_not_tell_is_refused(tmp_path: Path) -> None:
    path = striped(tmp_path / "ball.nii.gz", 0.0)
    with pytest.raises(InputRefusedError, match=r"ball.nii.gz: does not tell its slice thickness.*state it with"):
        read_scan(path, flags=Flags(thickness="estimate"))
    with pytest.raises(UsageError, match="--gap"):
        read_scan(path, flags=Flags(thickness="estimate", gap=1.0))


def test_a_thickness_is_taken_as_the_scan_looks(tmp_path: Path) -> None:
    values = texture(96).numpy() @ profile_matrix(96, 1.0, 24, 4.0, 6.0, "gaussian").float().numpy().T
    nifti.write(tmp_path / "thick.nii.gz", values, make_affine(np.diag([1.0, 1.0, 4.0]), np.zeros(3)))
    file = read_scan(tmp_path / "thick.nii.gz", flags=Flags(thickness="estimate", profile="gaussian"))
    assert file.origin == "estimated from the scan"
    assert file.scan.acquisition.thickness == (1.0, 1.0, pytest.approx(6.0, rel=0.1))
    assert file.scan.acquisition.profile == "gaussian"
