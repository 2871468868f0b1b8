"""Warnings where a result is not what its scans say: none is silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brgm_med.pipelines import reconstruct_volume
from brgm_med.pipelines.results.certificate import Certificate
from brgm_med.pipelines.results.consistency import contradictions, residuals
from brgm_med.pipelines.results.picture import PictureTarget
from brgm_med.pipelines.results.publish import warn_beyond
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES
from brgm_med.transforms.formats.format import ReadBack
from brgm_med.transforms.formats.picture import Picture
from tests.spheres import QUICK, scan_of, spheres


def test_two_patients_in_one_result_contradict_each_other() -> None:
    """Alike enough to overlap, as two heads are; a scan of the same object in other units does not contradict."""
    other = 0.75 * spheres() + 0.4 * spheres().flip(1)
    for volume, count in ((2 * spheres() + 7, 0), (other, 2)):
        result = reconstruct_volume([scan_of(spheres(), 2), scan_of(volume, 0, "the other")], search=QUICK)
        written = ReadBack(result.image[0].double().numpy(), None)
        clauses = contradictions(residuals(result.measurements, written)["consistency"], ["one", "two"])
        assert len(clauses) == count
    assert clauses[0].startswith("one: the result differs from it by ")


def test_noise_and_one_scan_alone_are_no_contradiction() -> None:
    entry = {"residual_rms": 10.0, "noise_deviation": 10.0, "relative_residual": 0.3, "further_scans": []}
    assert not contradictions(entry, ["one"])
    assert not contradictions({**entry, "further_scans": [entry]}, ["one", "two"])
    assert not contradictions({**entry, "noise_deviation": 0.0}, ["one"])
    louder = {**entry, "noise_deviation": 8.0}
    assert len(contradictions({**entry, "further_scans": [louder]}, ["one", "two"])) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["differs from the scan by up to 3, more than the 0.5 of rounding"]),
        ({"clipped_to_the_bits": 7}, ["7 values were clipped to what its bits can hold"]),
        ({"noise_deviation": 2.0}, ["with noise, or several, are not kept to the last bit"]),
    ],
)
def test_a_residual_beyond_its_bound_is_said(
    changes: dict[str, float], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Picture(tmp_path / "a.png", np.zeros((1, 4, 4), np.uint8), (0, 255))
    target = PictureTarget(tmp_path / "b.png", NO_CHOICES, False, picture)
    entry = {"max_abs_residual": 3.0, "bound": 0.5, **changes}
    for within, said in ((True, False), (False, True)):
        warn_beyond(target, Certificate(prior={}, parameters={}, consistency={**entry, "within_bound": within}))
        err = capsys.readouterr().err
        assert all((word in err) == said for word in ["warning: b.png: ", *words])
    warn_beyond(target, Certificate(prior={}, parameters={}))
    assert capsys.readouterr().err == ""
