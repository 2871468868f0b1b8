"""The certificate: what it lets out, and that it is written with its result or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from brgm_med.errors import BrgmError, InputRefusedError, UsageError
from brgm_med.pipelines.results import certificate as rules
from brgm_med.pipelines.results.certificate import Certificate, Entry, Task
from brgm_med.pipelines.results.choose import target_of
from brgm_med.pipelines.results.picture import PictureTarget
from brgm_med.pipelines.results.publish import check, publish
from brgm_med.pipelines.results.target import Destination, Target
from brgm_med.transforms.formats import for_reading, radiograph
from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices
from tests import dicom_files

SECRET = "DOE_JANE"
Planted = make_dataclass("Planted", [("patient", str, SECRET)], bases=(Certificate,), frozen=True, kw_only=True)
"""A certificate with a field that no list names."""

INPUT = {"file": f"{SECRET}.nii", "sha256": "5ec7e7", "affine": "sform"}
PRIOR = {"name": "M\u00fcller", "sha256": "ab", "finest_detail_mm": 2.0}
TASKS: dict[str, Entry] = {
    "sr": {
        "parameters": {"steps": 2, "weights": {"noise": 0.15}, "device": "cpu"},
        "acquisition": {"Thickness": {"R": 2.0}, "Origin": "assumed", "Stated": False},
        "registration": {"correlation": 0.8, "scale": 1.0},
        "noise": [{"deviation": 1.5, "kind": "rician"}, {"deviation": 0.0, "kind": "stated"}],
        "coverage": {"voxels_with_prior": 0.4, "slice_axis": 0, "interpolated_slices": [[0, 3]]},
        "explained_by_the_scans": {"mean": 0.4, "standard_error_of_a_voxel": 0.0},
        "uncertainty": {"level": 90.0, "rests_on": "the scan's own planes", "psnr_interval_db": [20.0, 24.0]},
        "further_scans": [{**INPUT, "acquisition": {"Stated": True}}],
        "region": {**INPUT, "resampled": False, "volume_ml": 1.0, "mean": 3.0, "mean_interval": [2.0, 4.0]},
        "consistency": {"relative_residual": 1e-7, "further_scans": [{"relative_residual": 2e-7}]},
    },
    "inpaint": {
        "parameters": {"steps": 3, "noise": 0.8},
        "hole": {"voxels": 4, "inferred_by_the_prior": 1.0},
        "mask": {**INPUT, "known": False, "resampled": True},
        "coronal_slices_searched": [3, 9],
        "outside_the_hole": {"voxels": 100, "changed": 0},
    },
    "pictures": {
        "parameters": {"factor": 2, "steps": 3},
        "hole": {"pixels": 4, "values_clipped_to_the_bits": 0},
        "mask": {**INPUT, "known": True},
        "consistency": {"max_abs_residual": 0.1, "bound": 0.5, "within_bound": True, "clipped_to_the_bits": 0},
        "outside_the_hole": {"values": 100, "changed": 0, "lossy_format": False},
    },
}


def certificate(task: str, kind: type = Certificate) -> Certificate:
    made = kind(prior=PRIOR, source=INPUT, **TASKS[task])
    assert isinstance(made, Certificate)
    return made


@pytest.mark.parametrize("task", TASKS)
def test_a_new_field_stays_in_the_certificate_of_an_identified_result(task: str) -> None:
    planted, plain = certificate(task, Planted), certificate(task)
    assert planted.to_json() == plain.to_json() | {"patient": SECRET}
    assert planted.public() == plain.public()
    assert planted.deidentified() == plain.deidentified()
    assert planted.derivation("sr") == plain.derivation("sr")
    assert SECRET not in f"{planted.deidentified()}{planted.derivation('inpaint')}"


@pytest.mark.parametrize("task", TASKS)
def test_a_new_name_inside_an_entry_stays_there_too(task: str) -> None:
    """In every entry that is a dictionary, or a list of these."""
    plain = certificate(task)
    for name, entry in plain.to_json().items():
        more: Any = entry
        if isinstance(entry, dict):
            more = entry | {"patient": SECRET}
        elif isinstance(entry, list) and isinstance(entry[0], dict):
            more = [one | {"patient": SECRET} for one in entry]
        planted = Certificate(**plain.to_json() | {name: more})
        assert (planted == plain) == (more is entry)
        assert planted.public() == plain.public()
        assert planted.deidentified() == plain.deidentified()


@pytest.mark.parametrize("task", TASKS)
def test_all_that_is_listed_comes_out(task: str) -> None:
    """De-identified, everything but names and hashes of inputs; in the images nothing that speaks of files."""
    made = certificate(task)
    content = made.to_json()
    hidden = {"file": "withheld (de-identified)", "sha256": "withheld (de-identified)"}
    for key in rules.INPUTS:
        if key in content:
            entry = content[key]
            content[key] = [one | hidden for one in entry] if isinstance(entry, list) else entry | hidden
    assert made.deidentified() == content
    assert made.public() == {key: content[key] for key in content if key in rules.PUBLIC}
    assert not {"source", "further_scans", "mask", "result", "consistency"} & set(made.public())
    assert Certificate.from_json(json.loads(json.dumps(made.to_json())) | {"later": 1}) == made


def test_the_account_is_ascii_lines() -> None:
    made = Certificate(software="brgm-med 1", prior=PRIOR, parameters={"steps": 3}, noise=[{"kind": "stated"}])
    lines = ["software: brgm-med 1", "prior: {name: M\\u00fcller, sha256: ab, finest_detail_mm: 2.0}"]
    assert made.account.splitlines() == [*lines, "parameters: {steps: 3}", "noise: [{kind: stated}]"]
    assert made.account.isascii()
    long = Certificate(prior=PRIOR, parameters={"weights": "x" * 20000})
    assert len(long.derivation("inpaint").comments) == 10240


Writer = Callable[..., Any]


def destination(folder: Path, task: str, choices: Choices, force: bool = False) -> tuple[Destination, Writer]:
    """Of a tiny series or radiograph in `folder`, and what writes it."""
    source, out = folder / "in", folder / "out"
    if task == "pictures":
        if not source.exists():
            source.mkdir()
            made = dicom_files.tiny_image(1, sop_class="1.2.840.10008.5.1.4.1.1.1")  # type: ignore[arg-type]
            made.Modality = "CR"
            dicom_files.save(made, source / "a.dcm")
        picture = radiograph.read(source / "a.dcm")
        target = PictureTarget(out.with_suffix(".dcm"), choices, force, picture)
        return target, lambda to, *text: to.write(picture.array, *text)
    if not source.exists():
        source.mkdir()
        for number in range(1, 4):
            dicom_files.save(dicom_files.tiny_image(number), source / f"{number}.dcm")
    reader = for_reading(source)
    header, stored = reader.read_stored(source, "auto")
    series = target_of(source, out, header, choices=choices, force=force)
    if task == "inpaint":
        return series, lambda to, *text: to.write_stored(stored, header, *text)
    return series, lambda to, *text: to.write(stored.astype(np.float32), header.affine, *text)


def mapped(target: Destination, folder: Path) -> Writer | None:
    if not isinstance(target, Target):
        return None
    header = for_reading(folder / "in").read_header(folder / "in")
    return lambda to, text: to.write_map(np.ones(header.shape), header.affine, text)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_new_field_reaches_no_image_and_no_deidentified_file(tmp_path: Path, task: str, hidden: bool) -> None:
    target, write = destination(tmp_path, task, Choices(transform=Deidentifier()) if hidden else NO_CHOICES)
    path = check(target, (tmp_path / "in",), None)
    entry = {"consistency": {"relative_residual": 3e-7, "patient": SECRET}}
    kind: Task = "inpaint" if task == "inpaint" else "sr"
    final = publish(
        target, path, certificate(task, Planted), kind, write, lambda image: entry, mapped(target, tmp_path)
    )
    assert getattr(final, "patient") == SECRET  # noqa: B009
    written = json.loads(path.read_text())
    assert written["result"]["file"] == target.path.name
    assert written["consistency"]["relative_residual"] == 3e-7
    assert (SECRET in path.read_text()) != hidden
    files = [file for one in target.paths for file in (one.rglob("*") if one.is_dir() else [one])]
    assert len(files) == (1 if task == "pictures" else 4)
    for file in files:
        assert SECRET.encode() not in file.read_bytes()
        assert "parameters: {" in dcmread(file).ImageComments


@pytest.mark.parametrize("task", TASKS)
def test_an_error_takes_back_all_and_an_early_one_nothing(tmp_path: Path, task: str) -> None:
    target, write = destination(tmp_path, task, NO_CHOICES)
    path = check(target, (), None)
    before = sorted(tmp_path.iterdir())

    def refuse(image: object) -> Entry:
        assert not any(one.exists() for one in (*target.paths, path))
        raise BrgmError("voxels changed")

    def fail(to: object, derivation: object, label: str) -> None:
        raise InputRefusedError("cannot be written")

    common = (target, path, certificate(task), "sr")
    with pytest.raises(BrgmError, match="voxels changed"):
        publish(*common, write, refuse, mapped(target, tmp_path))  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before
    publish(*common, write, lambda image: {}, mapped(target, tmp_path))  # type: ignore[arg-type]
    after = sorted(tmp_path.iterdir())
    assert {*target.paths, path} <= set(after)
    with pytest.raises(InputRefusedError, match="exists already"):
        check(target, (), None)
    forced, _ = destination(tmp_path, task, NO_CHOICES, force=True)
    check(forced, (), None)
    with pytest.raises(InputRefusedError, match="cannot be written"):
        publish(forced, *common[1:], fail, lambda image: {})  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == after
    with pytest.raises(UsageError, match="different files"):
        check(forced, (tmp_path / "in",), forced.path)
