"""`brgm-med run`: derivatives by the rules, the same on every engine and after any interruption."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brgm_med.errors import CannotWriteError, UsageError
from brgm_med.pipelines.dataset.run import check_places
from brgm_med.pipelines.dataset.work import node_name
from brgm_med.pipelines.workflow import engines
from brgm_med.transforms.formats.affine import RAS_LPS
from tests.house import ROOT
from tests.mr_series import mr_series
from tests.slurm import cluster, missing
from tests.small_heads import small_head, truncated
from tests.studies import bids_study, hashes

BIN = Path(sys.executable).parent
STUDY = ("study.csv", "study.html", "study.tsv")


def command(*arguments: object) -> list[str]:
    return [str(BIN / "brgm-med"), "run", *map(str, arguments)]


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "BRGM_MED_DEBUG"} | variables
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment, timeout=280)


def validated(out: Path) -> None:
    """The BIDS validator finds no error in `out`."""
    done = subprocess.run([BIN / "bids-validator-deno", out, "--json"], capture_output=True, text=True, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [i for i in issues if i.get("severity") == "error"] == []
    assert done.returncode == 0, done.stderr


# What is refused at once, and what is only listed.


def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path) -> None:
    root = bids_study(tmp_path / "bids", 2, bad=())
    done = run(root, tmp_path / "out", "participant", "--dry-run", "--participant-label", "02")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sub-02/anat/sub-02_T1w.nii.gz: sub-02/anat/sub-02_desc-sr_T1w\n"
    assert [p.name for p in tmp_path.iterdir()] == ["bids"]


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    root = bids_study(tmp_path / "bids", 1, bad=())
    (tmp_path / "plugin.json").write_text('{"plugin": "SLURMGraph"}')
    cases = (
        ((tmp_path / "none", tmp_path / "out", "participant"), 3, "dataset_description.json"),
        ((root, root, "participant"), 2, "must not lie over the scans"),
        ((root, tmp_path / "out", "participant", "-w", tmp_path / "out" / "work"), 2, "must not lie in one another"),
        ((root, tmp_path / "out", "participant", "--participant-label", "9"), 2, "sub-9"),
        ((root, tmp_path / "out", "participant", "--mask-pattern", "x"), 2, "--task inpaint"),
        ((root, tmp_path / "out", "participant", "--series", "4"), 2, "--layout plain"),
        ((root, tmp_path / "out", "participant", "--suffix", "T2w", "PDw"), 3, "no *_T2w.nii.gz, *_PDw.nii.gz of"),
        ((root, tmp_path / "out", "participant", "--prior", "self", "--task", "train"), 2, "--prior self"),
        ((root, tmp_path / "out", "participant", "--mem-gb", "0.1"), 2, "--mem-gb"),
        ((root, tmp_path / "out", "participant", "--prior", "none"), 5, "none"),
        ((root, tmp_path / "out", "participant", "--use-plugin", tmp_path / "plugin.json"), 2, "SLURMGraph"),
        ((root, tmp_path / "out", "participant", "--use-plugin", root / "README"), 2, "JSON"),
    )
    for arguments, code, named in cases:
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert named in done.stderr
    assert not (tmp_path / "out").exists()


def test_work_is_for_one_run_of_one_user(tmp_path: Path) -> None:
    engines.private_folder(tmp_path / "work")
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    (tmp_path / "work" / "kept").touch()
    engines.private_folder(tmp_path / "work")
    (tmp_path / "work").chmod(0o777)
    with pytest.raises(CannotWriteError, match="others could write"):
        engines.private_folder(tmp_path / "work")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    with pytest.raises(CannotWriteError, match="is no folder"):
        engines.private_folder(tmp_path / "link")
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 65534, 65534)
        with pytest.raises(CannotWriteError, match="another user"):
            engines.private_folder(tmp_path / "theirs")


def test_places_and_names(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    check_places(a, b, tmp_path / "c")
    check_places(a, a / "derivatives" / "x", tmp_path / "c")
    for wrong in ((a, a, b), (a / "x", a, b), (a, b, a), (a, b, b / "w"), (a, b, a / "w"), (a, b, tmp_path)):
        with pytest.raises(UsageError):
            check_places(*wrong)
    assert node_name("sub-01") == "sub_01"
    assert node_name("a/Müller").startswith("scan_")
    assert node_name("a/Müller") != node_name("a/Miller")
    assert node_name("sub-01/anat/sub-01_acq-b_desc-sr_T1w") == "sub_01_acq_b_desc_sr_T1w"
    others = ("sub-01_a_sr", "sub-01-a_sr", "sub-01_a-b-c_T1w", "x/sub-01_T1w", "sub-01_acq-b+c_T1w", f"sub-{'1' * 99}")
    assert len({node_name(name) for name in others}) == len(others)
    assert all(node_name(name).startswith("scan_") for name in others)


def test_engines_are_chosen_by_their_names(tmp_path: Path) -> None:
    assert engines.engine() == ("Linear", {})
    name, arguments = engines.engine(3, 8.0)
    assert (name, arguments["n_procs"], arguments["memory_gb"]) == ("MultiProc", 3, 8.0)
    for plugin in ("SLURM", "SGE", "PBS"):
        content = {"plugin": plugin, "plugin_args": {"max_jobs": 2}}
        (tmp_path / "plugin.json").write_text(json.dumps(content))
        assert engines.engine(plugin=tmp_path / "plugin.json") == (plugin, {"max_jobs": 2})
    (tmp_path / "plugin.json").write_text('{"plugin": "Nothing"}')
    with pytest.raises(UsageError, match="no plugin 'Nothing'"):
        engines.engine(plugin=tmp_path / "plugin.json")


def test_a_scan_that_is_refused_is_named_and_the_table_says_why(tmp_path: Path) -> None:
    truncated(small_head(tmp_path / "in" / "half.nii.gz"))
    out = tmp_path / "out"
    for level in ("participant", "group"):
        done = run(tmp_path / "in", out, level, "--layout", "plain")
        assert done.returncode == 1, done.stderr
        assert "half.nii.gz: refused: half.nii.gz:" in done.stderr
        assert "0 of 1 scans done" in done.stderr.splitlines()[-1]
    assert sorted(hashes(out)) == ["logs/CITATION.md", "logs/half_sr_refused.json", *STUDY]
    assert "half.nii.gz,refused,half.nii.gz:" in (out / "study.csv").read_text()
    assert str(tmp_path) not in "".join(p.read_text() for p in out.rglob("*") if p.is_file())


# Whole studies.


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Three subjects, the second one's file truncated, and the hashes of what one process makes of them."""
    folder = tmp_path_factory.mktemp("study")
    root = bids_study(folder / "bids")
    done = run(root, folder / "out", "participant", "--steps", 1)
    assert done.returncode == 1, done.stderr
    return folder, hashes(folder / "out")


@pytest.mark.slow
def test_one_bad_scan_of_three(study: tuple[Path, dict[str, str]]) -> None:
    folder, made = study
    out = folder / "out"
    images = [f"sub-{s}/anat/sub-{s}_desc-sr_T1w" for s in ("01", "03")]
    refused = "logs/sub-02_anat_sub-02_desc-sr_T1w_refused.json"
    assert {f"{i}{e}" for i in images for e in (".nii.gz", ".json")} | {refused} <= set(made)
    assert "truncated" in json.loads((out / refused).read_text())["reason"]
    for image in images:
        about = json.loads((out / f"{image}.json").read_text())
        assert about["BrgmMedCertificate"]["result"]["sha256"] == made[f"{image}.nii.gz"]
        assert about["BrgmMedCertificate"]["acquisition"]["Stated"]
    everything = b"".join((out / name).read_bytes() for name in made)
    assert str(folder).encode() not in everything
    validated(out)
    begun = time.monotonic()
    done = run(folder / "bids", out, "participant", "--steps", 1)
    assert done.returncode == 1
    assert time.monotonic() - begun < 20
    assert hashes(out) == made
    (out / f"{images[0]}.nii.gz").unlink()
    run(folder / "bids", out, "participant", "--steps", 1)
    assert hashes(out) == made
    assert run(folder / "bids", out, "group", "--steps", 1).returncode == 1
    rows = (out / "study.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["done", "refused", "done"]
    for page in out.rglob("*.html"):
        page.unlink()
    run(folder / "bids", out, "participant", "--steps", 1, "--reports-only", "-w", folder / "elsewhere")
    (out / "study.csv").unlink()
    (out / "study.tsv").unlink()
    assert hashes(out) == made
    shutil.copy(folder / "bids/sub-01/anat/sub-01_T1w.nii.gz", folder / "kept.nii.gz")
    small_head(folder / "bids/sub-02/anat/sub-02_T1w.nii.gz", seed=2, thick=True)  # mended: only that one is worked on
    done = run(folder / "bids", folder / "mended", "participant", "--steps", 1, "-w", folder / "out_work")
    assert done.returncode == 0, done.stderr
    mended = hashes(folder / "mended")
    assert all(mended[f"{i}.nii.gz"] == made[f"{i}.nii.gz"] for i in images)
    assert refused not in mended


@pytest.mark.slow
def test_stacks_of_a_session_are_one_derivative(tmp_path: Path) -> None:
    """It has the axes of the first; another noise is another result; an option that does not fit is a refusal."""
    root, out = bids_study(tmp_path / "bids", 1, bad=()), tmp_path / "out"
    anat = root / "sub-01" / "anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-01_acq-axial_T1w.nii.gz")
    fine = nib.nifti1.load(small_head(tmp_path / "fine.nii.gz", seed=1))
    values = fine.get_fdata()[: fine.shape[0] // 2 * 2]
    affine = fine.affine @ np.diag([2, 1, 1, 1])
    affine[:3, 3] += fine.affine[:3, 0] / 2
    stack = nib.nifti1.Nifti1Image(((values[::2] + values[1::2]) / 2).astype(np.int16), affine)
    nib.save(stack, anat / "sub-01_acq-sagittal_T1w.nii.gz")
    join = ("--steps", 1, "--prior", "self", "--join", "acq-axial", "acq-sagittal")
    images = []
    for noise in (2, 5):
        done = run(root, out, "participant", *join, "--noise", noise)
        assert done.returncode == 0, done.stderr
        (image,) = out.rglob("*_T1w.nii.gz")
        content = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
        assert [entry["deviation"] for entry in content["BrgmMedCertificate"]["noise"]] == [noise, noise]
        images.append(nib.nifti1.load(image).get_fdata())
    assert image.name == "sub-01_acq-axial_res-4mm_desc-sr_T1w.nii.gz"
    assert [source.rsplit("/", 1)[1] for source in content["Sources"]] == [
        "sub-01_acq-axial_T1w.nii.gz",
        "sub-01_acq-sagittal_T1w.nii.gz",
    ]
    assert images[0].shape == images[1].shape
    assert not np.array_equal(*images)
    validated(out)
    done = run(root, out, "participant", *join, "--spacing", 9)
    assert done.returncode == 1
    assert "refused: --spacing 9: the scan's own is 4 mm" in done.stderr


@pytest.mark.slow
def test_several_processes_make_the_same(study: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    _, made = study
    bids_study(tmp_path / "bids")
    done = run(tmp_path / "bids", tmp_path / "out", "participant", "--steps", 1, "--nprocs", 2)
    assert done.returncode == 1, done.stderr
    assert hashes(tmp_path / "out") == made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_cluster_makes_the_same(study: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    _, made = study
    bids_study(tmp_path / "bids")
    plugin = tmp_path / "slurm.json"
    plugin.write_text(json.dumps({"plugin": "SLURM", "plugin_args": {"sbatch_args": "--time=10", "max_jobs": 4}}))
    with cluster(tmp_path / "slurm") as environment:
        given = (tmp_path / "bids", tmp_path / "out", "participant", "--steps", 1, "--use-plugin", plugin)
        done = run(*given, **environment)
        jobs = subprocess.run(
            ["squeue", "--states=all", "-h", "-o", "%T"], env=environment, capture_output=True, text=True
        ).stdout.split()
    assert done.returncode == 1, done.stderr
    assert jobs == ["COMPLETED"] * 3  # one a scan
    assert hashes(tmp_path / "out") == made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nprocs", [1, 2])
def test_killed_at_any_moment_and_run_again(study: tuple[Path, dict[str, str]], tmp_path: Path, nprocs: int) -> None:
    _, made = study
    bids_study(tmp_path / "bids")
    arguments = (tmp_path / "bids", tmp_path / "out", "participant", "--steps", 1, "--nprocs", nprocs)
    chance = random.Random(nprocs)
    for _ in range(5):
        child = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = hashes(tmp_path / "out") if (tmp_path / "out").exists() else {}
        whole = {k: v for k, v in found.items() if not any(part.startswith(".brgm-") for part in k.split("/"))}
        assert {k: made.get(k) for k in whole if k != "logs/CITATION.md"} == {
            k: v for k, v in whole.items() if k != "logs/CITATION.md"
        }
    done = run(*arguments)
    assert done.returncode == 1, done.stderr
    assert hashes(tmp_path / "out") == made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_six_real_heads_one_of_them_truncated(data_dir: Path, tmp_path: Path) -> None:
    from brgm_med.pipelines.steps.degrade import degrade
    from brgm_med.transforms.prepare import heads_in

    root = bids_study(tmp_path / "bids", 0)
    (root / "T1w.json").unlink()
    heads = heads_in(data_dir / "ixi-hh-2mm" / "t1")[135:141]
    for i, head in enumerate(heads, 1):
        scan = root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz"
        scan.parent.mkdir(parents=True)
        degrade(head, scan, thickness=6.0, axis="S")
    truncated(root / "sub-04/anat/sub-04_T1w.nii.gz")
    given = ("--steps", 2, "--nprocs", 2)
    for level in ("participant", "group"):
        done = run(root, tmp_path / "out", level, *given)
        assert done.returncode == 1, done.stderr
        assert "sub-04_T1w.nii.gz: refused: sub-04_T1w.nii.gz:" in done.stderr
        assert "5 of 6 scans done" in done.stderr.splitlines()[-1]
    validated(tmp_path / "out")
    rows = [row.split(",")[:2] for row in (tmp_path / "out" / "study.csv").read_text().splitlines()[1:]]
    assert [status for _, status in rows] == ["done", "done", "done", "refused", "done", "done"]
    for i, head in enumerate(heads, 1):
        if i == 4:
            continue
        place = tmp_path / "out" / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_res-2mm_desc-sr_T1w"
        about = json.loads(place.with_name(f"{place.name}.json").read_text())
        assert about["BrgmMedCertificate"]["acquisition"]["Stated"]
        ours, truth = (nib.load(p).get_fdata() for p in (f"{place}.nii.gz", head))  # type: ignore[attr-defined]
        shape = tuple(slice(0, min(pair)) for pair in zip(ours.shape, truth.shape, strict=True))
        assert np.corrcoef(ours[shape].ravel(), truth[shape].ravel())[0, 1] > 0.95
        assert place.with_name(f"{place.name}.html").stat().st_size < 8e6
    made = hashes(tmp_path / "out")
    begun = time.monotonic()
    run(root, tmp_path / "out", "participant", *given)
    run(root, tmp_path / "out", "group", *given)
    assert time.monotonic() - begun < 30
    assert hashes(tmp_path / "out") == made


def dicom_study(folder: Path) -> int:
    """A head in thick slices as the only series of `folder`/in; the number of its slices."""
    head = nib.load(small_head(folder / "head.nii.gz", thick=True))
    assert isinstance(head, nib.Nifti1Image)
    (folder / "in").mkdir()
    voxels = np.asarray(head.dataobj).astype(np.uint16)
    mr_series(folder / "in" / "study", voxels, RAS_LPS @ head.affine, SliceThickness=8, SpacingBetweenSlices=8)
    return int(voxels.shape[2])


@pytest.mark.slow
def test_dicom_in_dicom_out_and_the_same_again(tmp_path: Path) -> None:
    dicom_study(tmp_path)
    made = []
    for out in ("one", "two"):
        done = run(tmp_path / "in", tmp_path / out, "participant", "--layout", "plain", "--steps", 1)
        assert done.returncode == 0, done.stderr
        made.append(hashes(tmp_path / out))
    assert made[0] == made[1]
    from brgm_med.transforms.formats import dicom, nifti

    series = dicom.Reader().read(tmp_path / "one" / "study_sr_dicom")
    volume = nifti.read(tmp_path / "one" / "study_sr.nii.gz")
    assert series.array.shape == volume.array.shape
    assert np.allclose(series.affine, volume.affine, atol=1e-3)
    assert np.abs(series.array - volume.array).max() <= 0.51
    assert "Müller" in str(series.header.series.headers[0].PatientName)


@pytest.mark.slow
def test_dicom_with_an_empty_file_is_read_where_that_is_allowed(tmp_path: Path) -> None:
    """By every step of the study: the derived series too."""
    slices = dicom_study(tmp_path)
    (tmp_path / "in" / "study" / f"IM{slices - 1:03d}").write_bytes(b"")
    arguments = (tmp_path / "in", tmp_path / "out", "participant", "--layout", "plain", "--steps", 1)
    done = run(*arguments)
    assert done.returncode == 1
    assert "--allow-missing-files" in done.stderr
    done = run(*arguments, "--allow-missing-files")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out" / "study_sr_dicom").iterdir())


@pytest.mark.slow
def test_a_control_without_a_mask_is_skipped_and_the_study_is_done(tmp_path: Path) -> None:
    root = bids_study(tmp_path / "bids", 2, bad=())
    scan = nib.load(root / "sub-01/anat/sub-01_T1w.nii.gz")
    assert isinstance(scan, nib.Nifti1Image)
    mask = np.zeros(scan.shape, np.uint8)
    mask[tuple(slice(n // 2 - 1, n // 2 + 1) for n in scan.shape)] = 1
    nib.save(nib.Nifti1Image(mask, scan.affine), root / "sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    for level, derivatives in (("participant", 1), ("group", 1)):
        done = run(root, tmp_path / "out", level, "--task", "inpaint", "--steps", 1)
        assert done.returncode == 0, done.stderr
        assert "sub-02/anat/sub-02_T1w.nii.gz: skipped: has no mask, nothing to fill" in done.stderr
        assert "1 scans done, 1 skipped" in done.stderr.splitlines()[-1]
        assert len(list((tmp_path / "out").rglob("*_desc-inpaint_T1w.nii.gz"))) == derivatives
    assert len((tmp_path / "out" / "study.csv").read_text().splitlines()) == 2
    validated(tmp_path / "out")
    (root / "sub-01/anat/sub-01_label-lesion_mask.nii.gz").unlink()
    done = run(root, tmp_path / "none", "participant", "--task", "inpaint", "--steps", 1)
    assert (done.returncode, (tmp_path / "none").exists()) == (3, False)
    assert "no scan has a mask" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_trains_a_prior(tmp_path: Path) -> None:
    from brgm_med.priors.bundle import load

    root = bids_study(tmp_path / "bids", 4)
    done = run(root, tmp_path / "out", "participant", "--task", "train")
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "out" / "prior").exists()
    done = run(root, tmp_path / "out", "group", "--task", "train", "--kimg", 0.016)
    assert done.returncode == 1, done.stderr
    prior = load(str(tmp_path / "out" / "prior"))
    assert prior.metadata["heads"] == ["sub-01_T1w", "sub-03_T1w", "sub-04_T1w"]
    assert [r.split(",")[1] for r in (tmp_path / "out/study.csv").read_text().splitlines()[1:]] == [
        "done",
        "refused",
        "done",
        "done",
    ]
    done = run(root, tmp_path / "sr", "participant", "--prior", tmp_path / "out" / "prior", "--steps", 1)
    assert "3 of 4 scans done" in done.stderr


MEMORY = """
import sys
from pathlib import Path

import psutil
from nipype import Node, Workflow
from brgm_med.pipelines import Reconstruct
from brgm_med.pipelines.workflow import engines
from tests.small_heads import small_head, truncated

folder = Path(sys.argv[1])
wf = Workflow(name="many")
for i in range(20):
    scan = small_head(folder / f"{i}.nii.gz", seed=i, thick=True)
    wf.add_nodes([Node(Reconstruct(scan=str(scan), steps=1), name=f"scan{i}")])
held = []
crashed = engines.run(wf, folder / "work", report=lambda line: held.append(psutil.Process().memory_info().rss))
assert crashed == [], crashed
print(*held)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_study(tmp_path: Path) -> None:
    """Twenty subjects in one process: at most 5 % more after the last than after the fifth."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NIPYPE_NO_ET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    held = [int(n) for n in done.stdout.split()]
    assert len(held) == 20
    assert max(held[5:]) <= 1.05 * held[4], held
