"""What a command does around a deidentifier: refuses early, warns, and keeps names out of the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.deidentification import begin, withhold
from tests.dicom_sent import image


def test_it_warns_that_faces_remain(capsys: pytest.CaptureFixture[str]) -> None:
    deidentifier = begin([image(1), image(2)], "series", Path("out"))
    assert deidentifier(image(1)).PatientIdentityRemoved == "YES"
    (line,) = capsys.readouterr().err.splitlines()
    assert "face" in line


def test_one_image_with_burned_in_annotation_is_enough() -> None:
    marked = image(2)
    marked.BurnedInAnnotation = "YES"
    with pytest.raises(InputRefusedError, match="series: declares annotation burned"):
        begin([image(1), marked], "series", Path("out"))


def test_the_name_of_the_output_is_not_made_of_the_source() -> None:
    with pytest.raises(UsageError, match="--out"):
        begin([image(1)], "series", None)


def test_certificates_name_no_source() -> None:
    told = {
        "source": {"file": "DOE_JANE", "sha256": "12", "dicom_files": 3},
        "mask": {"file": "DOE_JANE_mask.nii", "sha256": "34"},
        "result": {"file": "out", "sha256": "56"},
        "statement": "research",
    }
    left = withhold(told)
    assert "DOE_JANE" not in str(left)
    assert left["source"]["dicom_files"] == 3
    assert left["result"] == told["result"]
    assert told["source"] == {"file": "DOE_JANE", "sha256": "12", "dicom_files": 3}
