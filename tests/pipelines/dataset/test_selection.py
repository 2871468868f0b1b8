"""Scans of a data set by session and by filter file, and stacks of one session that go into one result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.dataset.filters import passes, read_filters
from brgm_med.pipelines.dataset.join import joined
from brgm_med.pipelines.dataset.remembered import inputs_of
from brgm_med.pipelines.dataset.run import find
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Model, Selection, Settings


def image(path: Path, spacing: tuple[float, float, float] = (1, 1, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([*spacing, 1])), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sessions of a subject, each with an axial and a sagittal T2w; the second subject has no sagittal one."""
    root = tmp_path / "bids"
    for sub, ses, acq in (("01", "a", "axial"), ("01", "b", "axial"), ("02", "a", "axial")):
        image(root / f"sub-{sub}/ses-{ses}/anat/sub-{sub}_ses-{ses}_acq-{acq}_T2w.nii.gz", (0.9, 0.9, 5))
    for ses in ("a", "b"):
        image(root / f"sub-01/ses-{ses}/anat/sub-01_ses-{ses}_acq-sagittal_T2w.nii.gz", (4, 0.8, 0.8))
    image(root / "sub-01/ses-a/anat/sub-01_ses-a_acq-axial_run-02_FLAIR.nii.gz")
    (root / "dataset_description.json").write_text("{}")
    return root


def names(scans: list[Scan]) -> list[str]:
    return [scan.path.name.removesuffix(".nii.gz") for scan in scans]


def test_sessions_are_chosen_by_their_labels(root: Path) -> None:
    scans = find(root, Settings(), Selection(sessions=["ses-b"]), without=())
    assert names(scans) == ["sub-01_ses-b_acq-axial_T2w", "sub-01_ses-b_acq-sagittal_T2w"]
    assert len(find(root, Settings(), Selection(sessions=["a", "b"]), without=())) == 6
    with pytest.raises(UsageError, match="--session-label b: no image of the subjects asked for is of ses-b"):
        find(root, Settings(), Selection(labels=["02"], sessions=["a", "b"]), without=())


def filtered(root: Path, content: object) -> list[str]:
    file = root.parent / "filter.json"
    file.write_text(json.dumps(content))
    return names(find(root, Settings(), Selection(filter_file=file), without=()))


def test_a_filter_file_is_read_as_fmriprep_does(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = filtered(root, {})
    assert len(everything) == 6
    flair = "sub-01_ses-a_acq-axial_run-02_FLAIR"
    sagittal = [name for name in everything if "sagittal" in name]
    assert filtered(root, {"t2w": {"datatype": "anat", "acquisition": "sagittal", "suffix": "T2w"}}) == [
        flair,
        *sagittal,
    ]
    both = {"T2w": {"acq": ["axial", "sagittal"], "session": "b", "run": None}, "flair": {"run": 2}}
    assert filtered(root, both) == [flair, *(n for n in everything if "ses-b" in n)]
    assert filtered(root, {"flair": {"run": None}}) == [n for n in everything if n != flair]
    assert filtered(root, {"t2w": {"run": "Query.ANY"}, "flair": {"run": "*"}}) == [flair]
    assert capsys.readouterr().err == ""
    assert filtered(root, {"bold": {"task": "rest"}, "t2w": {"session": "Query.NONE"}}) == [flair]
    assert capsys.readouterr().err == "filter.json: bold: no such images are taken, so its entry is left out\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"t2w": "axial"}, "t2w: give entities"),
        ({"t2w": {"aquisition": "axial"}}, "aquisition is no entity"),
        ({"t2w": {"acquisition": {"axial": 1}}}, "acquisition: give a label"),
    ],
)
def test_a_filter_that_says_something_else_is_named(tmp_path: Path, content: object, reason: str) -> None:
    (tmp_path / "filter.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=reason):
        read_filters(tmp_path / "filter.json", ["T2w"])


def test_a_filter_that_leaves_nothing_is_named(root: Path) -> None:
    with pytest.raises(InputRefusedError, match="--bids-filter-file"):
        filtered(root, {"t2w": {"acquisition": "none"}, "flair": {"acquisition": "none"}})
    assert passes(Path("sub-01_T1w.nii"), {"t1w": {"extension": ".nii"}})
    assert not passes(Path("sub-01_T1w.nii.gz"), {"t1w": {"extension": ".nii"}})


def test_stacks_of_one_session_are_one_scan(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "acq-sagittal_T2w.json").write_text('{"SliceThickness": 4}')
    selection = Selection(join=["acq-sagittal", "acq-axial"])
    scans = find(root, Settings(prior="self"), selection, without=())
    pairs = [(scan.path.name, [path.name for path, _ in scan.further]) for scan in scans]
    assert pairs == [
        ("sub-01_ses-a_acq-sagittal_T2w.nii.gz", ["sub-01_ses-a_acq-axial_T2w.nii.gz"]),
        ("sub-01_ses-a_acq-axial_run-02_FLAIR.nii.gz", []),
        ("sub-01_ses-b_acq-sagittal_T2w.nii.gz", ["sub-01_ses-b_acq-axial_T2w.nii.gz"]),
        ("sub-02_ses-a_acq-axial_T2w.nii.gz", []),
    ]
    both = scans[0]
    assert both.metadata == {"SliceThickness": 4}
    assert both.further[0][1] == {}
    assert both.destination == "sub-01/ses-a/anat/sub-01_ses-a_acq-sagittal_res-0p8mm_desc-sr_T2w"
    assert [source.rsplit("_acq-", 1)[1] for source in both.sidecar["Sources"]] == [
        "sagittal_T2w.nii.gz",
        "axial_T2w.nii.gz",
    ]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == [
        "sub-01_ses-a_acq-axial_run-02_FLAIR.nii.gz: has no acq-sagittal beside it to be joined with; "
        "reconstructed by itself",
        "sub-02_ses-a_acq-axial_T2w.nii.gz: has no acq-sagittal beside it to be joined with; reconstructed by itself",
    ]


def test_one_file_of_two_endings_is_not_joined(root: Path) -> None:
    folder = root / "sub-01/ses-a/anat"
    image(folder / "sub-01_ses-a_acq-axial_T2w.nii", (0.9, 0.9, 5))
    selection = Selection(labels=["01"], sessions=["a"], suffixes=["T2w"], join=["acq-axial", "acq-sagittal"])
    scans = find(root, Settings(), selection, without=())
    assert [scan.further for scan in scans] == [(), (), ()]
    assert [scan.problem is None for scan in scans] == [False, False, True]


@pytest.mark.parametrize(
    "values", [["acq-axial"], ["axial", "sagittal"], ["acq-a", "run-2"], ["acq-a", "acq-a"], ["acq-", "acq-b"]]
)
def test_values_that_are_not_of_one_entity_are_refused(values: list[str]) -> None:
    with pytest.raises(UsageError, match=f"--join {' '.join(values)}: give two or more labels of one entity"):
        joined([Path("sub-01_acq-a_T2w.nii.gz")], values)


def test_a_broken_stack_refuses_the_whole(root: Path) -> None:
    stack = root / "sub-01/ses-a/anat/sub-01_ses-a_acq-sagittal_T2w.nii.gz"
    stack.unlink()
    stack.symlink_to("gone.nii.gz")
    selection = Selection(suffixes=["T2w"], sessions=["a"], labels=["01"], join=["acq-axial", "acq-sagittal"])
    (scan,) = find(root, Settings(), selection, without=())
    assert "sub-01_ses-a_acq-sagittal_T2w.nii.gz: is a link to a file" in str(scan.problem)


def test_a_record_knows_options_and_further_scans(root: Path, tmp_path: Path) -> None:
    selection = Selection(suffixes=["T2w"], sessions=["b"], join=["acq-axial", "acq-sagittal"])
    scans = find(root, Settings(), selection, without=())
    first = inputs_of(scans, Settings(), "", tmp_path)
    models = (
        Model(4.0),
        Model(profile="gaussian"),
        Model(gap=0.0),
        Model(slice_axis="S"),
        Model(noise=0.0),
        Model(spacing=0.7),
    )
    others = [Settings(device="cuda"), *(Settings(model=model) for model in models)]
    hashes = {inputs_of(scans, settings, "", tmp_path) for settings in others}
    assert len(hashes - {first}) == len(others)
    changes: tuple[Callable[[Path], object], ...] = (lambda path: image(path, (3, 3, 3)), lambda path: path.unlink())
    for change in changes:
        before = inputs_of(scans, Settings(), "", tmp_path)
        change(scans[0].further[0][0])
        assert inputs_of(scans, Settings(), "", tmp_path) != before


def test_a_stated_spacing_is_in_the_name(root: Path) -> None:
    scans = find(root, Settings(model=Model(spacing=0.75)), Selection(suffixes=["FLAIR"]), without=())
    assert scans[0].destination.endswith("_res-0p75mm_desc-sr_FLAIR")
    assert scans[0].sidecar["Resolution"].startswith("0.75 mm")


@pytest.mark.parametrize(
    ("settings", "selection", "named"),
    [
        (Settings("inpaint", model=Model(4.0)), Selection(), "--slice-thickness: is for --task sr"),
        (Settings("train", model=Model(slice_axis="S")), Selection(), "--slice-axis: is for --task sr"),
        (Settings("train", device="cuda"), Selection(), "--device cuda: is for --task sr and inpaint"),
        (Settings("inpaint"), Selection(join=["acq-a", "acq-b"]), "--join: is for --task sr"),
        (Settings(), Selection(layout="plain", sessions=["a"]), "--session-label: is for BIDS"),
        (Settings(), Selection(layout="plain", join=["acq-a", "acq-b"]), "--join: is for BIDS"),
        (Settings(), Selection(layout="plain", filter_file=Path("x")), "--bids-filter-file: is for BIDS"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    root: Path, settings: Settings, selection: Selection, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        find(root, settings, selection, without=())
