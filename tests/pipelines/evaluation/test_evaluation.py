"""What an evaluation measures, and what it makes of the numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from brgm_med.corruptions import Mask, SliceProfile
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.gaussian import LinearGaussian
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.comparison import below, best_baseline, by_subject, mean, paired
from brgm_med.pipelines.evaluation.generator import made_consistent, orthogonal
from brgm_med.pipelines.evaluation.markdown import honesty, report
from brgm_med.pipelines.evaluation.measure import keep
from brgm_med.pipelines.evaluation.memory import peak
from brgm_med.pipelines.evaluation.methods import BLEND, METHODS, OURS, default_methods, known, reconstructions
from brgm_med.pipelines.evaluation.problems import (
    TASKS,
    averages,
    contrast,
    default_levels,
    holes,
    inverted,
    problem_at,
    shifts,
    turned,
)
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.pipelines.evaluation.subjects import Subject
from brgm_med.priors.bundle import load
from tests.squares import by_number, line, square

SHAPE = (80, 96)


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def setting(count: int = 2) -> Setting:
    return Setting(load(), (1, *SHAPE), tuple(range(count)))


# Problems.


@pytest.mark.parametrize("task", TASKS)
def test_every_task_measures_its_images(task: str) -> None:
    for problem in (problem_at(task, level, SHAPE, 2.0) for level in default_levels(task, SHAPE)):
        truth = problem.truth(images())
        y = problem.measure(truth, seed=1)
        assert truth.shape == (2, 1, *SHAPE)
        torch.testing.assert_close(y, problem.measure(truth, seed=1), rtol=0, atol=0)
        noise = y - problem.corruption(truth)
        assert float(noise.std()) == pytest.approx(problem.noise, rel=0.1)


def test_averages_are_means_over_blocks_and_rows_that_are_left_over_are_not_measured() -> None:
    x = images()
    expected = x[..., :78, :].reshape(2, 1, 26, 3, 32, 3).mean((3, 5))
    torch.testing.assert_close(averages(SHAPE, (3, 3))(x), expected)
    assert averages(SHAPE, (3, 1))(x).shape == (2, 1, 26, 96)
    assert problem_at("slices", "6", SHAPE, 2.0).block == (3, 1)


def test_seven_holes_from_lesion_to_half_a_head() -> None:
    found = holes(*SHAPE)
    sizes = {name: int(hole.sum()) for name, hole in found.items()}
    assert len(found) == 7
    assert all(hole.dtype == torch.bool and hole.shape == SHAPE for hole in found.values())
    assert min(sizes.values()) == sizes["disc"]
    assert sizes["half"] > 0.35 * 80 * 96
    assert len({hole.numpy().tobytes() for hole in found.values()}) == 7
    assert all(torch.equal(hole, holes(*SHAPE)[name]) for name, hole in found.items())


@pytest.mark.parametrize(
    ("task", "level", "said"),
    [
        ("sr", "2.5", "whole number"),
        ("sr", "1", "whole number"),
        ("sr", "x", "not a number"),
        ("slices", "5", "multiple of 2"),
        ("inpaint", "moon", "'disc'"),
        ("shift", "moon", "as trained"),
    ],
)
def test_unknown_levels_are_refused(task: str, level: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        problem_at(task, level, SHAPE, 2.0)


def test_pictures_have_no_slices() -> None:
    with pytest.raises(UsageError, match="heads"):
        problem_at("slices", "4", SHAPE, None)


def test_changes_of_the_truth() -> None:
    x = images()
    torch.testing.assert_close(turned(x, 0), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(turned(x, 180), x.flip((2, 3)), rtol=0, atol=1e-4)
    fixed = torch.tensor([-1.0, 0.0]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(contrast(fixed, 0.5), fixed)
    assert float(inverted(torch.tensor(-1.0))) == -1
    ramp = inverted(torch.linspace(-0.75, 1.0, 50))
    assert bool((ramp.diff() <= 0).all())
    noisy = shifts(SHAPE)["noise 5 %"]
    assert noisy.trained_for == "sr-4"


# Methods.


def test_ours_is_a_chain_whose_parts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(_setting: Setting) -> object:
        def reconstruct(y: Tensor, _corruption: nn.Module) -> Tensor:
            calls.append(1)
            return torch.zeros(len(y), 1, *SHAPE)

        return reconstruct

    monkeypatch.setitem(METHODS, "map", counted)
    f = averages(SHAPE, (8, 8))
    found = reconstructions([*OURS, "map"], setting(), f(images()), f)
    assert len(calls) == 1
    assert list(found) == [*OURS, "map"]
    assert found[BLEND].seconds > found["map+blend"].seconds > found["map"].seconds
    torch.testing.assert_close(f(found[BLEND].images), f(images()), rtol=0, atol=1e-5)
    torch.testing.assert_close(f(found["map+blend+orthogonal"].images), f(images()), rtol=0, atol=1e-5)


def test_names_of_methods() -> None:
    assert known(BLEND) == "map+blend+consistency"
    assert known("cubic+consistency") == "cubic+consistency"
    for name in ("moon", "cubic+moon", "+consistency", ""):
        with pytest.raises(UsageError, match="--methods"):
            known(name)
    for task in TASKS:
        for problem in (problem_at(task, level, SHAPE, 2.0) for level in default_levels(task, SHAPE)):
            asked = default_methods(problem)
            assert len(set(asked)) == len(asked)
            assert all(known(name) for name in asked)
    factor_4 = problem_at("sr", "4", SHAPE, 2.0)
    assert {"dip", "esrgan", "projection-a", "projection-f", "supervised"} <= set(default_methods(factor_4))


@pytest.mark.parametrize("corruption", [averages(SHAPE, (4, 4)), averages(SHAPE, (3, 1)), Mask(~holes(*SHAPE)["half"])])
def test_what_is_made_consistent_gives_back_the_measurement(corruption: SliceProfile | Mask) -> None:
    y = corruption(images())
    for finish in (made_consistent, orthogonal):
        torch.testing.assert_close(corruption(finish(setting(), images(seed=3), y, corruption)), y, rtol=0, atol=1e-5)


def test_filling_a_hole_is_the_estimate_of_the_masked_slice() -> None:
    stacks = [images(3, seed)[..., :10, :12] for seed in range(4)]
    linear = LinearGaussian.fit(stacks, 8)
    known_pixels = torch.rand(10, 12, generator=torch.Generator().manual_seed(9)) < 0.6
    y = images(3, 7)[..., :10, :12]
    y = y.where(known_pixels, torch.nan)
    expected = linear.estimate(Mask(known_pixels), Mask(known_pixels)(y), 0.1)
    torch.testing.assert_close(linear.fill(known_pixels, y, 0.1), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux tells the peak")
def test_peak_memory_sees_what_was_freed_again() -> None:
    with peak() as grown:
        held = np.ones(8_000_000)
        del held
    assert grown() == pytest.approx(64e6, rel=0.3)


# What the rows say.


def row(subject: str, method: str, psnr: float, image: str = "0", **more: str) -> table.Row:
    empty = dict.fromkeys(("SSIM", "LPIPS", "LPIPS vgg", "RMSE", "MAE", "hole PSNR", "residual", "seconds", "MB"), "")
    made = {"task": "sr", "level": "4", "subject": subject, "image": image, "method": method, "PSNR": str(psnr)}
    return empty | made | {"RMSE": str(255 * 10 ** (-psnr / 20)), **more}


def example(gain: float) -> list[table.Row]:
    rows = []
    for i in range(12):
        for image in ("0", "10"):
            rows += [
                row(f"s{i:02}", BLEND, 20 + i + gain + 0.01 * i, image),
                row(f"s{i:02}", "cubic+consistency", 20 + i, image),
                row(f"s{i:02}", "cubic", 19 + i, image),
            ]
    return rows


def test_means_are_over_subjects_whatever_their_number_of_images() -> None:
    rows = [row("a", BLEND, 10, "0"), row("a", BLEND, 20, "1"), row("b", BLEND, 30, "0")]
    assert by_subject(rows, BLEND, "PSNR") == {"a": 15.0, "b": 30.0}
    found = mean(rows, BLEND, "PSNR")
    assert found is not None
    assert found[0] == 22.5
    assert mean(rows, BLEND, "SSIM") is None


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "won"), (-1.0, "lost"), (-0.055, "undecided")])
def test_a_verdict_is_an_interval_that_leaves_out_nothing_gained(gain: float, verdict: str) -> None:
    rows = example(gain)
    assert best_baseline(rows, "PSNR") == "cubic+consistency"
    found = paired(rows, BLEND, "cubic+consistency", "PSNR")
    assert found.verdict == verdict
    assert found.subjects == 12
    assert found.difference == pytest.approx(gain + 0.055)
    if verdict != "undecided":
        assert found.p == pytest.approx(2 / 2**12, rel=0.05)
    assert paired(rows, BLEND, "cubic+consistency", "RMSE").verdict == verdict


def test_images_on_which_interpolation_is_better_are_named() -> None:
    rows = example(1.0)
    rows += [row("s99", BLEND, 10), row("s99", "cubic+consistency", 11), row("s99", "cubic", 5)]
    assert below(rows, BLEND, "cubic+consistency") == [("s99", "0", -1.0)]
    text = "\n".join(honesty(rows))
    assert "1 of 25" in text
    assert "s99 [0] -1.00" in text
    assert "won" in report(rows, {})


def test_a_projection_that_raised_an_error_is_counted() -> None:
    rows = [row("a", "map+blend", 20), row("a", "map+blend+orthogonal", 21), row("b", "map+blend", 20)]
    rows += [row("b", "map+blend+orthogonal", 19)]
    assert "1 of 2" in "\n".join(honesty(rows))


# The table of rows.


def test_a_table_goes_on_where_it_stopped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "table.csv"
    with pytest.raises(InputRefusedError, match="negative"):
        table.completed(place, [(3,), (-1,)], square, by_number, line, 1)
    assert table.read(place) == square(3)
    rows = table.completed(place, [(2,)], square, by_number, line, 1)
    assert rows == square(2) + square(3)
    assert table.read(place) == rows
    assert table.completed(place, [], square, by_number, line, 1) == rows
    assert "1 of 1: 4" in capfd.readouterr().out
    place.write_text("number,square\n1\n")
    with pytest.raises(InputRefusedError, match="move it away"):
        table.read(place)


def test_kept_pictures_show_the_window(tmp_path: Path) -> None:
    stack = torch.tensor([[[[-2.0, -1.0], [0.0, 1.0]]]])
    keep(tmp_path, Subject("head.nii.gz", stack, (30,), (-1.0, 1.0)), {BLEND: stack})
    found = np.asarray(Image.open(tmp_path / BLEND / "head_30.png"))
    np.testing.assert_array_equal(found, [[0, 0], [128, 255]])
