"""Steps, interfaces and workflows: hashed by content, refusals that travel, training to derivatives in one workflow."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nipype import Node, Workflow
from nipype.interfaces.base import TraitError, isdefined

from brgm_med import pipelines
from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines import (
    Convert,
    Preprocess,
    Reconstruct,
    Slice,
    WriteBack,
    init_brgm_wf,
    init_reconstruct_wf,
)
from brgm_med.pipelines.steps import super_resolve
from brgm_med.pipelines.steps.compare import evaluate
from brgm_med.pipelines.steps.convert import convert
from brgm_med.pipelines.workflow import engines
from brgm_med.pipelines.workflow.refusals import is_refusal, reason_of
from brgm_med.priors import DEFAULT, bundle
from brgm_med.priors.bundle import load
from tests.mr_series import mr_series
from tests.phantom import rigid
from tests.small_heads import small_head, truncated

TINY = {
    "z_dim": 6,
    "w_dim": 5,
    "c_dim": 4,
    "generator_channels": [8, 8, 6, 4, 4],
    "discriminator_channels": [8, 8, 6, 4, 4],
    "encoder_channels": [8, 8, 6, 4, 4],
    "mapping_layers": 2,
}


ENDINGS = (".nii.gz", ".json", ".html", "_measured.nii.gz")


def test_a_node_is_hashed_with_the_module_that_its_pickled_results_name() -> None:
    """Else a work directory of before a move gives results without a file, silently, after it."""
    hashed, _ = Convert().inputs.get_hashval()
    assert dict(hashed)["software"] == f"{__version__} {Convert.__module__}"


def test_nifti_passes_through_and_slice_thickness_is_a_profile(tmp_path: Path) -> None:
    scan = small_head(tmp_path / "in" / "sub-1_T1w.nii.gz", thick=True)
    (tmp_path / "out").mkdir()
    out, sidecar = convert(scan, tmp_path / "out", metadata={"SliceThickness": 6, "EchoTime": 0.003})
    assert out.read_bytes() == scan.read_bytes()
    content = json.loads(sidecar.read_text())
    assert content["EchoTime"] == 0.003
    assert content["BrgmMedAcquisition"]["Thickness"] == {"R": 4.0, "A": 4.0, "S": 6.0}
    assert content["BrgmMedAcquisition"]["Spacing"]["S"] == 8.0
    for wrong in (0, -1, "6", float("inf")):
        with pytest.raises(InputRefusedError, match="SliceThickness"):
            convert(scan, tmp_path / "out", metadata={"SliceThickness": wrong}, force=True)
    even = small_head(tmp_path / "in" / "even.nii.gz")
    _, sidecar = convert(even, tmp_path / "out", metadata={"SliceThickness": 6})
    assert "BrgmMedAcquisition" not in json.loads(sidecar.read_text())  # nothing tells the slice axis


def test_dicom_is_converted_to_the_last_bit(tmp_path: Path) -> None:
    series = mr_series(tmp_path / "study", SliceThickness=2.5)
    (tmp_path / "out").mkdir()
    out, sidecar = convert(series, tmp_path / "out")
    from brgm_med.transforms.formats import dicom, nifti

    header, stored = dicom.Reader().read_stored(series)
    again, held = nifti.read_stored(out)
    assert np.array_equal(stored, held)
    assert np.allclose(header.affine, again.affine, atol=1e-4)
    assert max(json.loads(sidecar.read_text())["BrgmMedAcquisition"]["Thickness"].values()) == 2.5
    assert b"ller" not in out.read_bytes() + sidecar.read_bytes()  # no one's name


def test_a_folder_counts_by_what_it_holds(tmp_path: Path) -> None:
    series = mr_series(tmp_path / "study")
    step = Convert(scan=str(series))

    def hashed() -> str:
        return str(step.inputs.get_hashval(hash_method="content")[1])

    before = hashed()
    shutil.move(series, tmp_path / "moved")
    step.inputs.scan = str(tmp_path / "moved")
    assert hashed() == before
    file = tmp_path / "moved" / "IM000"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert hashed() != before


def test_a_refused_scan_raises_or_goes_on_as_a_refusal(tmp_path: Path) -> None:
    scan = truncated(small_head(tmp_path / "sub-1_T1w.nii.gz"))
    with pytest.raises(InputRefusedError, match="truncated"):
        Convert(scan=str(scan)).run(cwd=tmp_path)
    found = Convert(scan=str(scan), keep_going=True).run(cwd=tmp_path).outputs
    assert found.scan == found.sidecar
    assert is_refusal(found.scan)
    for step in (Preprocess(scan=found.scan), Reconstruct(scan=found.scan), Slice(registered=found.scan)):
        outputs = step.run(cwd=tmp_path).outputs.get()
        assert set(outputs.values()) == {found.scan}
    assert json.loads(Path(found.scan).read_text())["step"] == "convert"
    assert reason_of(Path(found.scan)).startswith("sub-1_T1w.nii.gz:")  # no folder's name
    back = WriteBack(
        result=found.scan, certificate=found.scan, out_dir=str(tmp_path / "out"), destination="sub-1/anat/sub-1_T1w"
    )
    back.run(cwd=tmp_path)
    assert [p.name for p in (tmp_path / "out").rglob("*.json")] == ["sub-1_anat_sub-1_T1w_refused.json"]


def test_intervals_and_samples_are_outputs(tmp_path: Path) -> None:
    scan = small_head(tmp_path / "head.nii.gz", thick=True)
    uncertain = {"thickness": 7.5, "samples": 2, "level": 80.0, "dtype": "float32"}
    (tmp_path / "out").mkdir()
    outputs = Reconstruct(scan=str(scan), prior="self", steps=1, **uncertain).run(cwd=tmp_path / "out").outputs
    lower, upper, result, std = (
        nib.nifti1.load(path).get_fdata() for path in (outputs.lower, outputs.upper, outputs.result, outputs.std)
    )
    assert np.all(lower <= result + 1e-3)
    assert np.all(result <= upper + 1e-3)
    assert std.min() >= 0 < std.max()
    assert [Path(path).name for path in outputs.samples] == ["head_sr_sample-1.nii.gz", "head_sr_sample-2.nii.gz"]
    content = json.loads(Path(outputs.certificate).read_text())
    assert content["acquisition"]["Thickness"]["S"] == 7.5
    with pytest.raises(InputRefusedError, match="does not tell its slice thickness"):
        Reconstruct(scan=str(scan), thickness="estimate").run(cwd=tmp_path)
    assert content["uncertainty"]["level"] == 80


def test_reconstruct_has_every_option_of_super_resolve_but_files_and_dicom_output() -> None:
    """And its help says of each input, in words, that it is."""
    options = set(inspect.signature(super_resolve).parameters)
    elsewhere = {"out", "force", "certificate", "like", "choices", "report"}
    inputs = Reconstruct.input_spec().copyable_trait_names()
    assert options - elsewhere <= set(inputs)
    text = " ".join(Reconstruct.help(returnhelp=True).split())
    for words in ("thickness: (a floating point number > 0.0 or 'estimate')", "level of intervals, per cent"):
        assert words in text
    for words in ("lower bounds of the intervals", "samples of the truth as it may be"):
        assert words in text.partition("Outputs::")[2]


def test_an_option_that_does_not_fit_a_scan_refuses_it_alone(tmp_path: Path) -> None:
    """In a study; a device that is not there is no fault of a scan, and not remembered as one."""
    scan = small_head(tmp_path / "head.nii.gz", thick=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="--spacing 9"):
        Reconstruct(scan=str(scan), spacing=9.0).run(cwd=tmp_path / "a")
    outputs = Reconstruct(scan=str(scan), spacing=9.0, keep_going=True).run(cwd=tmp_path / "b").outputs
    assert is_refusal(outputs.result)
    assert "--spacing 9: the scan's own is 4 mm" in reason_of(Path(outputs.result))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--device cuda"):
            Reconstruct(scan=str(scan), device="cuda", keep_going=True).run(cwd=tmp_path / "b")


def test_further_scans_are_converted_beside_the_first(tmp_path: Path) -> None:
    first, second = (small_head(tmp_path / f"{name}.nii.gz", thick=True) for name in ("first", "second"))
    (tmp_path / "out").mkdir()
    contents = [{"SliceThickness": 7.0}, {"SliceThickness": 6.0}]
    files = {"scan": str(first), "further_scans": [str(second)]}
    step = Convert(**files, metadata=contents[0], further_metadata=contents[1:])
    outputs = step.run(cwd=tmp_path / "out").outputs
    further = Path(outputs.further_scans)
    assert further.resolve() == second
    for path, content in ((Path(outputs.scan), contents[0]), (further, contents[1])):
        beside = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert beside["BrgmMedAcquisition"]["Thickness"]["S"] == content["SliceThickness"]
    truncated(second)
    (tmp_path / "again").mkdir()
    outputs = Convert(**files, keep_going=True).run(cwd=tmp_path / "again").outputs
    assert is_refusal(outputs.scan)
    assert is_refusal(outputs.further_scans)


def test_a_node_runs_once_until_what_it_is_given_changes(tmp_path: Path) -> None:
    scan = small_head(tmp_path / "one.nii.gz", thick=True)

    def run() -> tuple[Path, int]:
        wf = Workflow(name="mine")
        wf.add_nodes([Node(Convert(scan=str(scan)), name="convert")])
        assert engines.run(wf, tmp_path / "work") == []
        (sidecar,) = (tmp_path / "work").glob("**/convert/one.json")
        return sidecar, sidecar.stat().st_mtime_ns

    made = run()
    assert run() == made
    os.utime(scan)
    assert run() == made  # its content counts
    small_head(scan, seed=1, thick=True)
    assert run()[1] != made[1]


def test_what_a_scan_s_sidecar_says_counts(tmp_path: Path) -> None:
    """Of the first scan and of further ones, whether Convert wrote it or a person."""
    one, two = (small_head(tmp_path / f"{name}.nii.gz", thick=True) for name in ("one", "two"))
    step = Reconstruct(scan=str(one), further_scans=[str(two)])

    def hashed() -> str:
        return str(step.inputs.get_hashval(hash_method="content")[1])

    seen = [hashed()]
    for beside in ("one.json", "two.json"):
        for content in ("{}", '{"SliceThickness": 6}'):
            (tmp_path / beside).write_text(content)
            seen.append(hashed())
    assert len(set(seen)) == 5
    (tmp_path / "one.json").unlink()
    (tmp_path / "two.json").unlink()
    (tmp_path / "three.json").write_text("{}")
    assert hashed() == seen[0]


def test_reconstruct_takes_what_super_resolve_takes(tmp_path: Path) -> None:
    one, two = (small_head(tmp_path / f"{i}.nii.gz", seed=i, thick=True) for i in (1, 2))
    stated = {"thickness": 6.0, "profile": "gaussian", "gap": 2.0, "slice_axis": "S", "noise": 0.0, "spacing": 3.5}
    limits = {"same_world": True, "max_memory": 20.0}
    step = Reconstruct(scan=str(one), further_scans=[str(two)], prior="self", steps=1, name="both", **stated, **limits)
    (tmp_path / "out").mkdir()
    outputs = step.run(cwd=tmp_path / "out").outputs
    content = json.loads(Path(outputs.certificate).read_text())
    assert content["prior"]["name"] == "self"
    assert content["acquisition"]["Thickness"]["S"] == 6
    assert content["acquisition"]["Profile"] == "gaussian"
    assert [noise["kind"] for noise in content["noise"]] == ["stated", "stated"]
    assert content["further_scans"][0]["file"] == "2.nii.gz"
    result, measured = (nib.nifti1.load(path) for path in (outputs.result, outputs.measured))
    assert Path(outputs.measured).name == "both_measured.nii.gz"
    assert result.header.get_zooms() == pytest.approx([3.5] * 3)
    assert measured.shape == result.shape


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -1},
        {"thickness": 0.0},
        {"spacing": -1.0},
        {"noise": -1.0},
        {"profile": "sinc"},
        {"thickness": "thick"},
        {"level": 100.0},
        {"samples": -1},
        {"threads": 0},
        {"even_odd": "even"},
        {"dtype": "int8"},
        {"slice_axis": "X"},
    ],
)
def test_an_input_that_cannot_be_is_refused_where_it_is_set(wrong: dict[str, float | str]) -> None:
    with pytest.raises(TraitError, match=next(iter(wrong))):
        Reconstruct(**wrong)


def test_nipype_s_own_configuration_keeps_the_map_for_the_report(tmp_path: Path) -> None:
    """By default it removes files that no connected output names."""
    scan = small_head(tmp_path / "in" / "head.nii.gz", thick=True)
    (tmp_path / "in" / "head.json").write_text("{}")
    wf = init_reconstruct_wf(prior="self", steps=1)
    wf.base_dir = str(tmp_path / "work")
    lists = {"scans": [str(scan)], "sidecars": [str(scan.with_name("head.json"))], "names": ["head"]}
    wf.get_node("inputnode").inputs.trait_set(**lists)
    wf.run()
    assert sorted(p.name for p in (tmp_path / "work").rglob("*.nii.gz")) == ["head.nii.gz", "head_measured.nii.gz"]
    assert list((tmp_path / "work").rglob("brgm-med.log")) == []
    (report,) = (tmp_path / "work").rglob("report.html")
    assert "no map of what was measured" not in report.read_text()


def test_a_hole_is_filled_by_the_shipped_population_prior(tmp_path: Path) -> None:
    scan, mask = small_head(tmp_path / "head.nii.gz"), tmp_path / "hole.nii.gz"
    image = nib.nifti1.load(scan)
    hole = np.zeros(image.shape, np.uint8)
    hole[tuple(slice(n // 2 - 2, n // 2 + 2) for n in hole.shape)] = 1
    nib.save(nib.nifti1.Nifti1Image(hole, image.affine), mask)
    inputs = {"scan": str(scan), "task": "inpaint"}
    for wrong, named in (
        ({}, "a mask is needed"),
        ({"mask": str(mask), "prior": "self"}, "a population prior is needed, not self"),
        ({"mask": str(mask), "spacing": 2.0, "noise": 0.0}, "leave out noise, spacing"),
    ):
        with pytest.raises(UsageError, match=named):
            Reconstruct(**inputs, **wrong).run(cwd=tmp_path)
    (tmp_path / "out").mkdir()
    outputs = Reconstruct(**inputs, mask=str(mask), steps=1).run(cwd=tmp_path / "out").outputs
    assert json.loads(Path(outputs.certificate).read_text())["prior"]["name"] == DEFAULT
    assert np.array_equal(nib.nifti1.load(outputs.measured).get_fdata() == 0, hole == 1)


def test_workflows_pass_the_prior_on(tmp_path: Path) -> None:
    """A report looks for another prior than the certificate names only where one is stated."""
    folder = str(shutil.copytree(bundle.find(DEFAULT), tmp_path / "prior"))
    for prior, reports in (("auto", None), ("self", None), (DEFAULT, DEFAULT), (folder, folder)):
        wf = init_brgm_wf(out_dir=tmp_path / "out", prior=prior)
        reconstruct, report = (wf.get_node(f"reconstruct_wf.{name}") for name in ("reconstruct", "report"))
        assert reconstruct.inputs.prior == prior
        assert (report.inputs.prior if isdefined(report.inputs.prior) else None) == reports
    assert init_brgm_wf(out_dir=tmp_path / "out").get_node("reconstruct_wf.reconstruct").inputs.prior == "auto"
    wf = init_brgm_wf(out_dir=tmp_path / "out", train={"kimg": 1.0})
    assert wf.get_node("train_wf.train").inputs.template == DEFAULT
    assert wf.get_node("preprocess_wf.preprocess").inputs.prior == DEFAULT
    with pytest.raises(UsageError, match="prior self: has no template"):
        init_brgm_wf(out_dir=tmp_path / "out", prior="self", train={"kimg": 1.0})


def test_what_crashes_is_named_and_stops_no_other_node(tmp_path: Path) -> None:
    scan = small_head(tmp_path / "a.nii.gz")
    wf = Workflow(name="two")
    (tmp_path / "bad").write_text("no scan")
    wf.add_nodes([Node(Convert(scan=str(tmp_path / "bad")), name="bad"), Node(Convert(scan=str(scan)), name="good")])
    lines: list[str] = []
    assert engines.run(wf, tmp_path / "work", report=lines.append) == ["bad"]
    assert sorted(lines) == ["bad: crashed", "good: done"]
    (crash,) = (tmp_path / "work" / "crash").iterdir()
    assert "InputRefusedError" in crash.read_text()
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700


def test_evaluate_compares_on_one_grid(tmp_path: Path) -> None:
    truth = small_head(tmp_path / "truth.nii.gz")
    other = small_head(tmp_path / "other.nii.gz", seed=1)
    same = evaluate(truth, truth, tmp_path / "same.json")
    assert (same["rmse"], same["mae"], same["ssim"]) == (0, 0, pytest.approx(1))
    numbers = evaluate(other, truth, tmp_path / "scores.json")
    a, b = (nib.load(p).get_fdata() for p in (other, truth))  # type: ignore[attr-defined]
    width = np.diff(np.percentile(b, [0.5, 99.5]))[0]
    assert numbers["rmse"] == pytest.approx(255 * np.sqrt(((a - b) ** 2).mean()) / width, rel=1e-4)
    assert numbers["psnr"] == pytest.approx(-20 * np.log10(numbers["rmse"] / 255), rel=1e-6)
    assert json.loads((tmp_path / "scores.json").read_text())["psnr"] == numbers["psnr"]
    with pytest.raises(InputRefusedError, match="another grid"):
        evaluate(small_head(tmp_path / "thick.nii.gz", thick=True), truth, tmp_path / "none.json")


def test_every_name_is_there_and_every_trait_says_what_it_is() -> None:
    for name in pipelines.__all__:
        found = getattr(pipelines, name)
        assert found.__doc__
        for spec in (getattr(found, "input_spec", None), getattr(found, "output_spec", None)):
            if spec is not None:
                assert all(trait.desc for trait in spec().traits(transient=None).values() if trait.desc is not None)
                assert all(spec().trait(t).desc for t in spec().copyable_trait_names())


@pytest.mark.slow
def test_training_to_derivatives_in_one_workflow(tmp_path: Path) -> None:
    """Twelve heads, one of them truncated: preprocess, slice, train, reconstruct, write back."""
    names = [f"head{i:02d}" for i in range(12)]
    scans = [
        small_head(tmp_path / f"{name}.nii.gz", seed=i, pose=rigid(i % 3, 0, i % 2, (i, 0, -i)))
        for i, name in enumerate(names)
    ]
    truncated(scans[7])
    train = {"kimg": 0.032, "architecture": TINY, "held_out": 0}

    def run(work: Path, out: Path) -> dict[str, bytes]:
        wf = init_brgm_wf(out_dir=out, train=train, steps=1)
        given = wf.get_node("inputnode").inputs
        given.scans = [str(s) for s in scans]
        given.series, given.metadata = [""] * 12, [{}] * 12
        given.destinations, given.sidecars = names, [{"Description": "a test"}] * 12
        assert engines.run(wf, work) == []
        return {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    made = run(tmp_path / "work", tmp_path / "out")
    good = [name for name in names if name != "head07"]
    assert sorted(made) == sorted([f"{n}{e}" for n in good for e in ENDINGS] + ["head07_refused.json"])
    (bundle,) = (tmp_path / "work").glob("**/trained-prior/prior")
    prior = load(str(bundle))
    assert prior.metadata["heads"] == good
    assert prior.metadata["training"]["images"] == 32
    assert prior.generator.num_ws == 10
    for name in good:
        proof = json.loads(made[f"{name}.json"])["BrgmMedCertificate"]
        assert proof["prior"]["sha256"] == prior.sha256
        assert proof["consistency"]["relative_residual"] < 1e-5
    shutil.rmtree(tmp_path / "out")
    again = run(tmp_path / "work", tmp_path / "out")  # nothing is computed, all is put back
    assert again == made
