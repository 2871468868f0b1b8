"""Radiographs through `sr` and `inpaint` to DICOM, de-identified: as exact as ever, and of nobody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage

from tests.dicom_files import save, tiny_image
from tests.picture_prior import prior as prior
from tests.picture_prior import run, scene
from tests.planted import found, plant


def radiograph(path: Path, **changes: str) -> list[str]:
    """A CR image full of planted strings; returns those."""
    made = tiny_image(1, sop_class=ComputedRadiographyImageStorage)
    made.Modality = "CR"
    made.PixelData = scene(16, 12, 4095).astype("<u2").tobytes()
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(made, name)
    words = plant(made)
    for name, value in changes.items():
        setattr(made, name, value)
    save(made, path)
    return words


def with_hole(path: Path, shape: tuple[int, int]) -> np.ndarray:
    hole = np.zeros(shape, np.uint8)
    hole[shape[0] // 2 : shape[0] // 2 + shape[0] // 8, shape[1] // 3 : shape[1] // 2] = 1
    Image.fromarray(hole).save(path)
    return hole == 1


def test_nothing_planted_comes_out_of_either_command(
    prior: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scan, results = tmp_path / "Q03PLANTED.dcm", tmp_path / "results"
    words = radiograph(scan)
    results.mkdir()
    assert len(set(words) - set(found(words, [scan]))) == 0  # the test can find them
    hole = with_hole(tmp_path / "Q01PLANTED.png", (16, 12))
    common = ("--in", scan, "--prior", prior, "--deidentify")
    assert run("sr", *common, "--factor", 2, "--out", results / "large.dcm") == 0
    assert run("inpaint", *common, "--mask", tmp_path / "Q01PLANTED.png", "--out", results / "filled.dcm") == 0
    said = capfd.readouterr()
    assert found(words, [results], said.out + said.err) == []
    before = dcmread(scan).pixel_array
    filled, large = dcmread(results / "filled.dcm"), dcmread(results / "large.dcm")
    assert np.array_equal(filled.pixel_array[~hole], before[~hole])
    averages = large.pixel_array.astype(float).reshape(16, 2, 12, 2).mean((1, 3))
    assert np.abs(averages - before).max() <= 0.5
    for name, told in (("filled", filled), ("large", large)):
        content = json.loads((results / f"{name}_certificate.json").read_text())
        assert told.PatientIdentityRemoved == "YES"
        assert "not for diagnosis" in told.ImageComments
        assert content["prior"]["sha256"] in told.ImageComments
        assert "steps: 3" in told.ImageComments
        assert content["source"]["file"] == content["source"]["sha256"] == "withheld (de-identified)"


def test_burned_in_annotation_is_refused_before_the_search(
    prior: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    radiograph(tmp_path / "scan.dcm", BurnedInAnnotation="YES")
    with_hole(tmp_path / "mask.png", (16, 12))
    common = ("--in", tmp_path / "scan.dcm", "--prior", tmp_path / "none", "--out", tmp_path / "out.dcm")
    for command in (("sr", "--factor", 2), ("inpaint", "--mask", tmp_path / "mask.png")):
        capfd.readouterr()
        assert run(*command, *common, "--deidentify") == 3  # 5, of a prior that is not there, if it were looked for
        assert "burned into its pixels" in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("out*"))
    assert run("sr", "--factor", 2, "--in", tmp_path / "scan.dcm", "--prior", prior, "--out", tmp_path / "out.dcm") == 0
    assert dcmread(tmp_path / "out.dcm").BurnedInAnnotation == "YES"


@pytest.mark.slow
@pytest.mark.parametrize("prior", [1], indirect=True)
@pytest.mark.parametrize("hidden", [(), ("--deidentify",)])
def test_a_real_radiograph_comes_back_without_an_added_error(
    prior: Path, tmp_path: Path, data_dir: Path, hidden: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its pixel spacing is 0: a warning, and pixels."""
    scan = data_dir / "xray-chest-RG1.dcm"
    source = dcmread(scan)
    before, secrets = source.pixel_array, ("CompressedSamples", "9RG1", "19400305", "THORAVISION", "1.3.6.1.4.1.5962")
    hole = with_hole(tmp_path / "mask.png", before.shape)
    common = ("--in", scan, "--prior", prior, *hidden)
    assert run("inpaint", *common, "--mask", tmp_path / "mask.png", "--out", tmp_path / "filled.dcm") == 0
    assert run("sr", *common, "--factor", 2, "--out", tmp_path / "large.dcm") == 0
    said = capfd.readouterr().err
    assert "no pixel spacing" in said
    assert ("RG1" in said) != bool(hidden)
    filled, large = dcmread(tmp_path / "filled.dcm"), dcmread(tmp_path / "large.dcm")
    assert np.array_equal(filled.pixel_array[~hole], before[~hole])
    averages = large.pixel_array.astype(float).reshape(before.shape[0], 2, before.shape[1], 2).mean((1, 3))
    assert np.abs(averages - before).max() <= 0.5
    for told in (filled, large):
        assert told.SOPClassUID == source.SOPClassUID
        assert "PixelSpacing" not in told
        assert told.LossyImageCompression == "01"
        del told.PixelData
        header = f"{told.file_meta}{told}"
        assert [s for s in secrets if s in header] == ([] if hidden else list(secrets))
