"""Oddities that scanners write are tolerated and said: uneven spacing, rounding, carets, missing birth dates, gaps."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.transforms import formats
from brgm_med.transforms.formats.dicom.series import the_series
from tests.dicom_files import expected_affine, series

Change = Callable[[int, Dataset], None]
SECRETS = ("SECRET", "Secret", "19700101")


def shifts(*along: float) -> Change:
    """Move each slice along the normal of an axial series."""

    def change(k: int, made: Dataset) -> None:
        x, y, z = (float(v) for v in made.ImagePositionPatient)
        made.ImagePositionPatient = [x, y, z + along[k]]

    return change


def rounded(k: int, made: Dataset) -> None:
    made.ImagePositionPatient = [f"{float(v):.1f}" for v in made.ImagePositionPatient]


def only(number: int, **header: object) -> Change:
    def change(k: int, made: Dataset) -> None:
        for name, value in header.items() if k == number else ():
            setattr(made, name, value)

    return change


def test_the_spacing_of_uneven_slices_is_fitted_to_all_of_them(tmp_path: Path) -> None:
    """Least squares by hand: of shifts 0, .2, -.1, 0, .1 the slope is .0 and the mean .04."""
    volume = the_series(series(tmp_path, change=shifts(0.0, 0.2, -0.1, 0.0, 0.1)))
    np.testing.assert_allclose(volume.affine, expected_affine(origin=(-80.5, -101.25, 33.125 + 0.04)), atol=1e-9)
    assert volume.tolerated == (
        "slices lie 2.7 to 3.2 mm apart; taken as 3 mm, at most 0.16 mm from where they were measured",
    )


@pytest.mark.parametrize("plane", ["axial", "oblique", "coronal"])
def test_positions_rounded_to_a_tenth_of_a_millimetre(tmp_path: Path, plane: str) -> None:
    volume = the_series(series(tmp_path, plane=plane, gap=1.25, change=rounded, SpacingBetweenSlices=None))
    corners = np.array([[0, 0, 0, 1], [6, 5, 4, 1]]).T
    expected = expected_affine(plane, gap=1.25)
    np.testing.assert_allclose(volume.affine @ corners, expected @ corners, atol=0.1)
    (said,) = volume.tolerated
    assert "mm apart; taken as 1.2" in said


@pytest.mark.parametrize("number", [0, 2])
def test_cosines_off_in_one_slice(tmp_path: Path, number: int) -> None:
    """The others decide, wherever that slice lies."""
    tilted = [1, 0, 0, 0, 0.9999998, 0.0006]
    volume = the_series(series(tmp_path, change=only(number, ImageOrientationPatient=tilted)))
    np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-9)
    assert volume.tolerated == (
        "the orientation of 1 slice differs from that of the others by up to 0.0006 in a cosine; taken as the same",
    )


def test_carets_after_the_name_and_a_missing_birth_date(tmp_path: Path) -> None:
    name = the_series(series(tmp_path / "a", change=only(1, PatientName="Secret^Name^^^")))
    born = the_series(series(tmp_path / "b", change=only(0, PatientBirthDate="")))
    assert name.tolerated == (
        "the patient's name ends in carets or blanks in some of its slices; taken as one patient",
    )
    assert born.tolerated == ("one of its slices lacks the patient's birth date; taken as one patient",)
    for unlike in ({"PatientName": "Secret^Nam"}, {"PatientID": ""}, {"PatientName": ""}):
        with pytest.raises(InputRefusedError, match="another patient"):
            the_series(series(tmp_path / str(unlike), change=only(1, **unlike)))


@pytest.mark.parametrize(("stated", "said"), [(0.5, " (the gap)"), (7.0, ""), (-3.0, None), (3.1, None)])
def test_positions_win_over_the_spacing_that_is_stated(tmp_path: Path, stated: float, said: str | None) -> None:
    volume = the_series(series(tmp_path, SpacingBetweenSlices=stated))
    np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-9)
    problem = f"its Spacing Between Slices says {stated:g} mm{said}, its positions 3 mm; the positions are taken"
    assert volume.tolerated == (() if said is None else (problem,))


def test_an_exact_series_has_nothing_to_tolerate(tmp_path: Path) -> None:
    assert the_series(series(tmp_path)).tolerated == ()


def test_commands_say_it_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = series(tmp_path / "scan", change=only(0, PatientName="Secret^Name^^", PatientBirthDate=""))
    degrade = ["degrade", "--in", str(scan), "--out", str(tmp_path / "thick.nii.gz")]
    assert main([*degrade, "--axis", "S", "--slice-thickness", "6"]) == 0
    assert main(["series", str(scan)]) == 0
    output = capsys.readouterr()
    assert "warning: scan: the patient's name ends in carets" in output.err
    assert "lacks the patient's birth date" in output.err
    assert "carets or blanks in some of its slices" in output.out
    assert not any(secret in output.out + output.err for secret in SECRETS)


def test_a_real_series_of_uneven_slices(data_dir: Path, tmp_path: Path) -> None:
    """GE, oblique, 5 mm slices every 7 mm in whole tenths; its Spacing Between Slices holds the gap."""
    packed = data_dir / "dicom-papaya-pd.tar.xz"
    if not packed.is_file():
        pytest.skip(f"{packed} is not there")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    scan = formats.for_reading(tmp_path).read(tmp_path)
    assert scan.array.shape == (256, 256, 20)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [0.859375, 0.859375, 6.9993], atol=1e-4)
    assert scan.header.series is not None
    assert scan.header.series.thickness == 5
    assert scan.header.series.tolerated == (
        "slices lie 6.958 to 7.071 mm apart; taken as 6.999 mm, at most 0.055 mm from where they were measured",
        "its Spacing Between Slices says 2 mm (the gap), its positions 6.999 mm; the positions are taken",
    )
