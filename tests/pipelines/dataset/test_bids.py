"""Names and files of BIDS: no two scans share a derivative, sidecars are inherited, masks are found or asked for."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
import pytest

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.dataset.bids import find_scans, metadata_of, result_spacing
from brgm_med.pipelines.dataset.ignored import matches
from brgm_med.pipelines.dataset.names import derived_name, entities, resolution_label
from brgm_med.pipelines.dataset.plain import find_plain
from brgm_med.pipelines.dataset.run import find
from brgm_med.pipelines.dataset.settings import Selection, Settings
from brgm_med.pipelines.workflow.write_back import log_of
from tests.mr_series import mr_series


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path / "dataset_description.json", "{}")
    return tmp_path


def test_names_keep_every_entity() -> None:
    name = "sub-01_ses-a_acq-x_run-2_T1w.nii.gz"
    assert entities(name) == {"sub": "01", "ses": "a", "acq": "x", "run": "2", "suffix": "T1w"}
    assert derived_name(name, "2mm", "sr") == "sub-01_ses-a_acq-x_run-2_res-2mm_desc-sr_T1w"
    for other in ("sub-01_T1w.json", "T1w.nii.gz", "sub-01_T1w_brgm.nii.gz", "sub-0/1_T1w.nii.gz", "sub_T1w.nii.gz"):
        assert entities(other) is None
    assert [resolution_label("sr", s) for s in (2.0, 1.5, 0.9375)] == ["2mm", "1p5mm", "0p938mm"]
    assert resolution_label("inpaint", 2.0) == "native"
    assert resolution_label("sr", None) is None
    assert derived_name("sub-01_ce-gd_T2w.nii", None, "sr") == "sub-01_ce-gd_desc-sr_T2w"


def image(path: Path, spacing: tuple[float, float, float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.nifti1.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([*spacing, 1])), path)
    return path


def test_a_name_says_the_spacing_that_is_known_before_the_work(root: Path) -> None:
    fine = image(root / "sub-01/anat/sub-01_T1w.nii.gz", (0.9, 0.9, 5))
    coarse = image(root / "sub-01/anat/sub-01_acq-c_T1w.nii.gz", (3, 3, 8))
    near = image(root / "near.nii.gz", (2.001, 2.001, 8))
    unreadable = touch(root / "sub-01/anat/sub-01_acq-x_T1w.nii.gz")
    files = (fine, coarse, unreadable)
    assert [result_spacing((f,), 2.0, own=False) for f in files] == pytest.approx([0.9, 2, 2])
    assert [result_spacing((f,), None, own=True) for f in (fine, coarse)] == pytest.approx([0.9, 3])
    # Beside the scan's own prior, the weight of the other decides whether a coarse scan comes out at its 2 mm.
    assert result_spacing((fine,), 2.0, own=True) == pytest.approx(0.9)
    assert [result_spacing((f,), 2.0, own=True) for f in (coarse, unreadable)] == [None, None]
    assert result_spacing((near,), 2.0, own=True) == pytest.approx(2.001)
    scans = {s.path: s for s in find_scans(root, task="sr", spacing=2.0, own=True)}
    assert scans[fine].destination == "sub-01/anat/sub-01_res-0p9mm_desc-sr_T1w"
    assert scans[fine].sidecar["Resolution"].startswith("0.9 mm")
    assert scans[coarse].destination == "sub-01/anat/sub-01_acq-c_desc-sr_T1w"
    assert "Resolution" not in scans[coarse].sidecar


def test_every_contrast_is_taken_unless_a_population_prior_works_alone(root: Path) -> None:
    names = ("T1w", "ce-gd_T1w", "T2w", "FLAIR", "PDw", "part-mag_T2w")
    for name in (*names, "part-phase_T1w", "part-real_T2w", "part-imag_T2w", "T2starw", "T1map"):
        image(root / f"sub-01/anat/sub-01_{name}.nii.gz", (1, 1, 5))

    def taken(settings: Settings, *suffixes: str) -> list[str]:
        scans = find(root, settings, Selection(suffixes=suffixes), without=())
        return sorted(s.path.name.removeprefix("sub-01_").removesuffix(".nii.gz") for s in scans)

    assert taken(Settings()) == taken(Settings(prior="self")) == sorted(names)
    for settings in (Settings(prior="brain-t1-coronal"), Settings(task="train")):
        assert taken(settings) == ["T1w", "ce-gd_T1w"]
    assert taken(Settings(), "T2w", "T2starw") == ["T2starw", "T2w", "part-mag_T2w"]
    assert taken(Settings(prior="brain-t1-coronal"), "FLAIR") == ["FLAIR"]
    contrast = find(root, Settings(), Selection(), without=())[0]
    assert contrast.destination == "sub-01/anat/sub-01_res-1mm_desc-sr_FLAIR"
    for task in ("inpaint", "train"):
        with pytest.raises(UsageError, match="--prior self: is for --task sr"):
            find(root, Settings(task, "self"), Selection(), without=())
    with pytest.raises(UsageError, match="--suffix: is for BIDS"):
        find(root, Settings(), Selection(layout="plain", suffixes=["T2w"]), without=())
    with pytest.raises(InputRefusedError, match=r"no \*_PDT2.nii.gz, \*_UNIT1.nii.gz of"):
        find(root, Settings(), Selection(suffixes=["PDT2", "UNIT1"]), without=())


def test_files_that_bidsignore_names_are_not_taken(root: Path) -> None:
    for name in ("sub-01_T1w", "sub-01_run-2_T1w", "sub-01_acq-scout_T1w"):
        touch(root / f"sub-01/anat/{name}.nii.gz")
    touch(root / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")
    touch(root / ".bidsignore", "# those of no use\n\n*_acq-scout_*\n/sub-02/ses-a/\n*_run-?_T1w.nii*\n!*_run-2_*\n")
    scans = find_scans(root, task="sr", spacing=2.0)
    assert [s.path.name for s in scans] == ["sub-01_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz"]
    with pytest.raises(InputRefusedError, match=r"no \*_T1w"):
        find_scans(root, task="sr", spacing=2.0, labels=["02"])


def test_patterns_are_those_of_gitignore() -> None:
    path = PurePosixPath("sub-01/anat/sub-01_T1w.nii.gz")
    fits = (
        "*.nii.gz",
        "anat",
        "anat/",
        "sub-01/",
        "/sub-*",
        "sub-01/anat/*",
        "**/*_T1w.*",
        "sub-01/**",
        "sub-??/anat/",
    )
    assert [p for p in fits if not matches(path, p)] == []
    others = ("*.nii", "anat/*.nii.gz", "/anat", "*_T1w.nii.gz/", "sub-01/*.nii.gz", "s", "sub-1/**", "T1w[.]nii.gz")
    assert [p for p in others if matches(path, p)] == []


def test_no_two_scans_have_one_derivative(root: Path) -> None:
    names = [
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_run-1_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-y_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
    ]
    for name in (*names, "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/func/sub-01_T1w.nii.gz", "sub-02/anat/notes.txt"):
        touch(root / name)
    scans = find_scans(root, task="sr", spacing=2.0)
    assert sorted(s.path.relative_to(root).as_posix() for s in scans) == sorted(names)
    assert len({s.destination for s in scans}) == len(names)
    assert {s.group for s in scans} == {"sub-01", "sub-02"}
    assert all(s.problem is None for s in scans)
    one = next(s for s in scans if s.path.name == "sub-01_ses-a_T1w.nii")
    assert one.destination == "sub-01/ses-a/anat/sub-01_ses-a_res-2mm_desc-sr_T1w"
    assert one.sidecar["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii"]
    assert one.sidecar["Resolution"].startswith("2 mm")
    touch(root / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    twice = [s for s in find_scans(root, task="sr", spacing=2.0) if s.problem]
    assert sorted(s.path.name for s in twice) == ["sub-01_ses-a_T1w.nii", "sub-01_ses-a_T1w.nii.gz"]


def test_what_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(InputRefusedError, match="no \\*_T1w"):
        find_scans(root, task="sr", spacing=2.0)
    touch(root / "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(UsageError, match="sub-07"):
        find_scans(root, task="sr", spacing=2.0, labels=["07"])
    assert len(find_scans(root, task="sr", spacing=2.0, labels=["sub-01"])) == 1
    (root / "dataset_description.json").unlink()
    with pytest.raises(InputRefusedError, match="--layout plain"):
        find_scans(root, task="sr", spacing=2.0)


def test_nearer_sidecars_win(root: Path) -> None:
    scan = touch(root / "sub-01/ses-a/anat/sub-01_ses-a_acq-x_T1w.nii.gz")
    touch(root / "T1w.json", json.dumps({"a": 1, "b": 1, "c": 1, "d": 1}))
    touch(root / "acq-x_T1w.json", json.dumps({"b": 2, "c": 2, "d": 2}))
    touch(root / "acq-y_T1w.json", json.dumps({"a": 9}))
    touch(root / "sub-01/sub-01_T1w.json", json.dumps({"c": 3, "d": 3}))
    touch(root / "sub-01/ses-a/anat/sub-01_ses-a_acq-x_T1w.json", json.dumps({"d": 4}))
    assert metadata_of(root, scan) == {"a": 1, "b": 2, "c": 3, "d": 4}
    touch(root / "sub-01/sub-01_T1w.json", "{")
    (found,) = find_scans(root, task="sr", spacing=2.0)
    assert "sub-01/sub-01_T1w.json: is no readable JSON" in str(found.problem)


def test_a_hole_needs_one_mask(root: Path) -> None:
    for sub in ("01", "02", "03"):
        touch(root / f"sub-{sub}/ses-a/anat/sub-{sub}_ses-a_T1w.nii.gz")
    mask = touch(root / "derivatives/lesions/sub-01/ses-a/anat/sub-01_ses-a_label-lesion_mask.nii.gz")
    touch(root / "derivatives/lesions/sub-01/ses-b/anat/sub-01_ses-b_label-lesion_mask.nii.gz")
    touch(root / "derivatives/lesions/sub-01/ses-a/anat/sub-01_ses-a_space-MNI_label-lesion_mask.nii.gz")
    for name in ("sub-02_label-lesion_mask", "sub-02_ses-a_label-lesion_mask"):
        touch(root / "sub-02/ses-a/anat" / f"{name}.nii.gz")
    one, two, three = find_scans(root, task="inpaint", spacing=2.0)
    assert one.mask == mask
    assert one.sidecar["Sources"][1] == f"bids:raw:{mask.relative_to(root).as_posix()}"
    assert two.mask is three.mask is None
    assert "found: sub-02/ses-a/anat/sub-02_label-lesion_mask.nii.gz, sub-02" in str(two.problem)
    assert "found: none" in str(three.problem)
    assert [one.skipped, two.skipped, three.skipped] == [False, False, True]
    touch(root / "masks/03-a.nii.gz")
    found = find_scans(root, task="inpaint", spacing=2.0, labels=["03"], mask_pattern="masks/{sub}-{ses}.nii*")
    assert found[0].mask == root / "masks/03-a.nii.gz"
    with pytest.raises(UsageError, match="'run'"):
        find_scans(root, task="inpaint", spacing=2.0, mask_pattern="{run}.nii.gz")


def test_a_scan_of_a_plain_folder_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden files and folders do not count; the same bytes under two names are said; a dangling link has a reason."""
    for name in ("a/one.nii.gz", ".git/annex/objects/one.nii.gz", "a/._one.nii.gz", "b/two.nii.gz", "c.nii"):
        touch(tmp_path / name)
        (tmp_path / name).write_text("other" if name == "c.nii" else "scan")
    mr_series(tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / ".study")
    (tmp_path / "gone.nii").symlink_to(".git/annex/objects/MD5E-gone.nii")
    scans = {s.destination: s.problem for s in find_plain(tmp_path, task="sr")}
    assert list(scans) == ["a/one_sr", "b/two_sr", "c_sr", "gone_sr"]
    assert [problem is None for problem in scans.values()] == [True, True, True, False]
    assert "is a pointer of git-annex" in str(scans["gone_sr"])
    assert "warning: one.nii.gz and two.nii.gz hold the same, byte for byte" in capsys.readouterr().err


def test_plain_folders_hold_nifti_and_dicom(tmp_path: Path) -> None:
    root = tmp_path / "in"
    touch(root / "a/one.nii.gz")
    touch(root / "a/one.json", json.dumps({"SliceThickness": 3}))
    touch(root / "a/one_mask.nii.gz")
    touch(root / "two.nii")
    mr_series(root / "study")
    touch(root / "out/three.nii.gz")
    masked = find_plain(root, task="inpaint", without=[root / "out"])
    assert [s.destination for s in masked] == ["a/one_inpaint", "two_inpaint", "study_inpaint"]
    assert masked[0].mask == root / "a/one_mask.nii.gz"
    assert masked[0].metadata == {"SliceThickness": 3}
    assert [s.problem is None for s in masked] == [True, False, False]
    touch(root / "study.nii.gz")
    found = {s.destination: s.problem for s in find_plain(root, task="sr", without=[root / "out"])}
    assert "another scan has this name" in str(found["study_sr"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRefusedError, match="holds no scan"):
        find_plain(tmp_path / "empty", task="sr")


def test_one_bad_name_hides_no_other(root: Path) -> None:
    touch(root / "sub-01/anat/sub-01_T1w.nii.gz")
    touch(root / "sub-02/anat/ses-1_T1w.nii.gz")
    touch(root / "sub-03/anat/sub-04_T1w.nii.gz")
    touch(root / "sub-05/anat/sub-05_T1w.nii.gz")
    touch(root / "sub-05/sub-05_T1w.json", "[" * 10_000 + "]" * 10_000)
    (root / "sub-06/anat").mkdir(parents=True)
    (root / "sub-06/anat/sub-06_T1w.nii.gz").symlink_to("../.git/annex/objects/gone")
    (root / "sub-07/anat").mkdir(parents=True)
    (root / "sub-07/anat/sub-07_T1w.nii.gz").symlink_to("sub-07_T1w.nii.gz")
    long = "x" * 220
    touch(root / f"sub-08/anat/sub-08_acq-{long}_T1w.nii.gz")
    scans = find_scans(root, task="sr", spacing=2.0)
    assert [scan.group for scan in scans] == [f"sub-{n:02d}" for n in (1, 2, 3, 5, 6, 7, 8)]
    good, *bad = [scan.problem for scan in scans]
    assert good is None
    reasons = (
        "begin with sub-02_",
        "begin with sub-03_",
        "no readable JSON",
        "git annex get",
        "link to a file",
        "longer than",
    )
    for problem, reason in zip(bad, reasons, strict=True):
        assert reason in str(problem)
        assert str(root) not in str(problem)


def test_one_bad_file_of_a_folder_hides_no_other(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to("gone.nii.gz")
    touch(tmp_path / "c.nii.gz")
    touch(tmp_path / "c.json", '{"a":' * 10_000 + "1" + "}" * 10_000)
    touch(tmp_path / f"{'d' * 245}.nii.gz")
    scans = find_plain(tmp_path, task="sr")
    assert [scan.path.name[0] for scan in scans] == ["a", "b", "c", "d"]
    for scan, reason in zip(scans, ("None", "link to a file", "no readable JSON", "longer than"), strict=True):
        assert reason in str(scan.problem)


def test_notes_of_scans_of_nearly_one_name_are_two(tmp_path: Path) -> None:
    names = [
        "a_b",
        "a/b",
        "a/b_c",
        "a_b/c",
        "a/" + "b" * 230,
        "a/" + "b" * 229 + "c",
        "sub-1/anat/sub-1_T1w",
        "Müller/x",
    ]
    logs = [log_of(tmp_path, name) for name in names]
    assert len(set(logs)) == len(names)
    for log in logs:
        log.parent.mkdir(exist_ok=True)
        log.touch()
    assert logs[-2].name == "sub-1_anat_sub-1_T1w_refused.json"
