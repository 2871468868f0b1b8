"""Whole heads in thick slices at an angle: cases, scores, and the methods that reconstruct them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.errors import UsageError
from brgm_med.metrics import mae, psnr, rmse
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.comparison import best_baseline
from brgm_med.pipelines.evaluation.markdown import report
from brgm_med.pipelines.evaluation.measure import Evaluation, Job
from brgm_med.pipelines.evaluation.subjects import Source
from brgm_med.pipelines.evaluation.volume_methods import COLUMNS, METHODS, known, measure_volume, thickness_of, upright
from brgm_med.pipelines.evaluation.volumes import Case, Judge, turned_case
from brgm_med.search import VOLUME
from brgm_med.transforms.oblique import acquire_turned
from tests.small_heads import small_head

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_head(tmp_path_factory.mktemp("heads") / "head.nii.gz")


@pytest.fixture(scope="module")
def case(head: Path) -> Case:
    return turned_case("a head", head, 3, thickness=12.0)


def test_a_case_is_a_scan_of_its_truth_turned_by_5_to_15_degrees(case: Case, head: Path) -> None:
    torch.testing.assert_close(case.scan, acquire_turned(case.truth, case.grid, case.coarse, case.model))
    assert case.coarse.spacing == pytest.approx((4.0, 4.0, 12.0))
    assert case.coarse.world_axis(case.axis) == 2
    directions = case.coarse.affine[:3, :3] / case.coarse.spacing
    turn = np.rad2deg(np.arccos((np.trace(directions * np.sign(np.diag(directions))) - 1) / 2))
    assert 5 < turn < 15 * np.sqrt(3)
    again, other = turned_case("a head", head, 3, 12.0), turned_case("a head", head, 4, 12.0)
    assert torch.equal(again.scan, case.scan)
    assert not np.allclose(other.coarse.affine, case.coarse.affine)


def test_scores_are_those_of_the_metrics_inside_the_field_of_view_less_a_slice(case: Case) -> None:
    judge, truth = Judge(case, {}), case.truth[0]
    image = truth + torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)) * 20
    scores = judge.scores(image)
    pair = image[judge.mask][None], truth[judge.mask][None]
    for name, metric in (("PSNR", psnr), ("RMSE", rmse), ("MAE", mae)):
        assert scores[name] == pytest.approx(float(metric(*pair, judge.span)), rel=1e-5)
    assert 0 < scores["SSIM"] < 1
    far = image.where(judge.mask, torch.tensor(1e6))
    assert judge.scores(far) == scores  # what lies beyond does not count
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in case.grid.shape], indexing="ij"), -1).reshape(-1, 3)
    assert not any(bool(judge.mask[tuple(corner)]) for corner in corners)
    voxels = judge.mask.nonzero().numpy() @ case.grid.affine[:3, :3].T + case.grid.affine[:3, 3]
    back = np.linalg.inv(case.coarse.affine)
    place = (voxels @ back[:3, :3].T + back[:3, 3])[:, case.axis]
    assert place.min() >= 0.9
    assert place.max() <= case.coarse.shape[case.axis] - 1.9


def test_an_image_on_the_truths_grid_is_taken_as_it_is_and_another_resampled_once(case: Case) -> None:
    judge = Judge(case, {})
    assert torch.equal(judge.on_truth(case.truth, case.grid), case.truth[0])
    linear = torch.arange(case.coarse.shape[2], dtype=torch.float32).expand(1, *case.coarse.shape)
    image = judge.on_truth(linear, case.coarse)
    back = np.linalg.inv(case.coarse.affine) @ case.grid.affine
    index = np.stack(np.meshgrid(*map(np.arange, case.grid.shape), indexing="ij"), -1)
    expected = torch.from_numpy(index @ back[2, :3] + back[2, 3]).float()
    middle = judge.mask & (expected > 4) & (expected < case.coarse.shape[2] - 5)  # a spline is linear far from its ends
    torch.testing.assert_close(image[middle], expected[middle], rtol=0, atol=0.02)


def test_pictures_have_superior_on_top(case: Case) -> None:
    judge = Judge(case, {})
    world = [
        sum(case.grid.affine[w, a] * torch.arange(n).reshape([-1 if a == b else 1 for b in range(3)])
            for a, n in enumerate(case.grid.shape)).expand(case.grid.shape)
        for w in range(3)
    ]  # fmt: skip
    judge.mask = torch.ones_like(judge.mask)
    up, across = (upright(judge, world[w]).float() for w in (2, 1))
    assert bool((up.diff(dim=2) < 0).all())
    assert float(across.diff(dim=0).abs().min()) > 0
    assert float(across.diff(dim=2).abs().max()) == 0


def test_every_method_gives_a_row_and_a_refusal_is_one_without_scores(
    head: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = Evaluation(head.parent, tmp_path, task="volumes", every=8)
    rows = measure_volume(Job(asked, Source(head), "12", tuple(METHODS), tmp_path / "images"), VOLUME.limited_to(1))
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(set(COLUMNS) < set(row) for row in rows)
    of = {row["method"]: row for row in rows}
    for name in ("cubic+consistency", "cubic+orthogonal", "self", "brgm"):
        assert float(of[name]["residual"]) < 1e-6
    assert all(float(row["PSNR"]) > 10 and float(row["seconds"]) > 0 and row["LPIPS"] == "" for row in rows)
    assert len({row["PSNR"] for row in rows}) == len(METHODS)  # no method is another under its name
    assert {path.name for path in (tmp_path / "images").iterdir()} == {*METHODS, "truth"}

    knee = tmp_path / "knee.nii.gz"
    image = nib.load(head)
    assert isinstance(image, nib.Nifti1Image)
    values = np.random.default_rng(0).normal(100, 10, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, image.affine), knee)
    job = Job(asked, Source(knee), "12", ("cubic", "population"), None)
    refused = measure_volume(job, VOLUME.limited_to(1))
    assert refused[0]["PSNR"]
    assert not any(refused[1][column] for column in COLUMNS)
    assert "population refuses knee.nii.gz" in capfd.readouterr().err
    text = report([*rows, *refused], {})
    assert "Refused, and in no mean: population knee.nii.gz." in text
    assert best_baseline(rows, "PSNR") in {"cubic", "cubic+consistency", "cubic+orthogonal"}


def test_the_command_fills_a_table_and_goes_on(head: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["evaluate", "--data", str(head.parent), "--out", str(out), "--task", "volumes", "--levels", "12"]
    methods = ["--methods", "cubic", "cubic+consistency"]
    assert main([*options, *methods]) == 0
    rows = table.read(out / "volumes.csv")
    assert [(row["subject"], row["method"]) for row in rows] == [(head.name, m) for m in methods[1:]]
    assert "not for diagnosis" in (out / "volumes.md").read_text()
    assert (out / "images" / "volumes-12.png").stat().st_size > 1000
    before = (out / "volumes.csv").read_bytes()
    assert main([*options, *methods]) == 0
    assert (out / "volumes.csv").read_bytes() == before
    assert main([*options, "--methods", "moon"]) == 2
    assert main([*options, "--levels", "thick"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("brgm-med: ")]
    assert "--task volumes has cubic, cubic+consistency" in errors[-2]
    assert "slice thickness in mm" in errors[-1]


def test_names_and_levels() -> None:
    assert known("volumes", None) == tuple(METHODS)
    assert thickness_of("6.5") == 6.5
    for level in ("0", "-3", "inf", "nan", "thick"):
        with pytest.raises(UsageError, match="--levels"):
            thickness_of(level)
