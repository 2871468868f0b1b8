"""The demo's table: one resampling a method, inside the scan's field of view less a slice, and both are stated."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from brgm_med.pipelines.evaluation.volumes import Case, Judge, inside
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.oblique import oblique_profile
from brgm_med.transforms.register import resample_cubic
from brgm_med.transforms.simulate import thick_slices
from tests.house import ROOT


def balls(grid: Grid) -> torch.Tensor:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    place = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    depth = 44 - np.linalg.norm(place - 50, axis=-1)
    waves = 1 + 0.3 * np.sin(place / 6).prod(-1)
    return torch.from_numpy((100 * waves * np.clip(depth / 4, 0, 1)).astype(np.float32))[None]


def case(world: str = "S") -> Case:
    grid = Grid((50, 52, 48), np.diag([2.0, 2.0, 2.0, 1.0]))
    coarse, model = thick_slices(grid, world, 6.0)
    truth = balls(grid)
    scan = oblique_profile(model, coarse, grid)(truth.double()).float()
    return Case("balls", truth, grid, scan, coarse, model)


@pytest.mark.parametrize(("world", "axis"), [("R", 0), ("A", 1), ("S", 2)])
def test_a_slice_and_three_pixels_at_the_edge_are_not_judged(world: str, axis: int) -> None:
    one = case(world)
    mask = inside(one)
    index = mask.nonzero()
    centres = 2 * index.numpy() + 1.0  # mm from the first edge
    ends = np.array(one.coarse.shape) * one.coarse.spacing
    edges = np.full(3, 6.0)  # a slice of 6 mm; three pixels of 2 mm
    assert (centres > edges).all()
    assert (centres < ends - edges).all()
    head = (one.truth[0] > 0.1 * one.truth.max()).nonzero()
    assert (index >= head.min(0).values).all()
    assert (index <= head.max(0).values).all()
    assert len(index) > 0.5 * (one.truth[0] > 10).sum()
    assert Judge(one, {}).across == (0 if axis == 1 else 1)


def test_every_method_is_resampled_once_from_its_own_grid() -> None:
    one = case()
    referee = Judge(one, {})
    cubic = referee.on_truth(one.scan, one.coarse)
    torch.testing.assert_close(cubic, resample_cubic(one.scan, one.coarse, one.grid)[0])
    torch.testing.assert_close(referee.on_truth(one.truth, one.grid), one.truth[0])
    half = np.diag([1.0, 1.0, 1.0, 1.0])
    half[:3, 3] = -0.5
    fine = Grid((100, 104, 96), half)
    straight = referee.scores(referee.on_truth(balls(fine), fine))["PSNR"]
    assert straight > referee.scores(cubic)["PSNR"] + 10


def test_scores_count_the_mask_only() -> None:
    referee = Judge(case(), {})
    truth = referee.case.truth[0]
    assert referee.scores(torch.where(referee.mask, truth + 10, -1000))["PSNR"] == pytest.approx(
        20 * np.log10((referee.window[1] - referee.window[0]) / 10), abs=1e-4
    )
    assert referee.pictures(torch.where(referee.mask, truth, -1000)) == {"SSIM": pytest.approx(1)}


def test_the_table_states_mask_and_interpolator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    one = case()
    referee = Judge(one, {})
    demo = importlib.import_module("demo")
    methods = {"cubic": demo.Volume(one.scan, one.coarse)} | demo.baselines(
        demo.Volume(one.scan, one.coarse), one.grid, one.model
    )
    text = demo.table(methods, referee)
    rows = [line for line in text.splitlines() if line.startswith("| cubic")]
    psnrs = [float(row.split("|")[2]) for row in rows]
    assert len(rows) == 3
    assert psnrs[1] > psnrs[0]
    assert "resampled once, by a cubic B-spline from its own grid to the truth's" in text
    assert f"{int(referee.mask.sum())} voxels" in text
    assert "field of view less 6 x 6 x 6 mm at its edges" in text
    assert "n/a" in text
    names = (demo.COARSE, demo.CUBIC, demo.OURS, demo.MAP, demo.WIDTH)
    demo.draw(dict.fromkeys(names, one.truth[0]), referee, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_says_how_much_of_the_truth_its_intervals_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    one = case()
    demo = importlib.import_module("demo")
    truth = demo.Volume(one.truth, one.grid)
    wide, none = (demo.Volume(one.truth + change, one.grid) for change in (-1.0, 1.0))
    assert "hold the truth of 100.0 %" in demo.coverage(truth, wide, none)
    apart = demo.Volume(one.truth + 0.5, one.grid)
    assert "hold the truth of 0.0 %" in demo.coverage(truth, apart, none)
