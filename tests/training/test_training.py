"""Training: the losses are their formulas, and a run that was cut equals one that was not, to the last bit."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.networks.discriminator import Discriminator
from brgm_med.training import loop
from brgm_med.training.loop import draw, iteration_seed, step_size, train_iteration
from brgm_med.training.losses import discriminator_loss, generator_loss, path_lengths, path_penalty, r1_penalty
from brgm_med.training.record import Record, pictures
from brgm_med.training.state import TrainState, mean_w, update_average
from tests import tiny
from tests.house import ROOT

HALF = torch.bfloat16
train = functools.partial(loop.train, precision=torch.float32)


def log_sigmoid(v: float) -> float:
    return -math.log1p(math.exp(-v))


def quiet(line: str) -> None:
    assert line


# Losses.


def test_losses_are_their_formulas() -> None:
    real, fake = torch.tensor([[0.3], [-1.2], [4.0]]), torch.tensor([[2.0], [-0.5], [0.1]])
    expected = -np.mean([log_sigmoid(v) for v in fake.flatten().tolist()])
    assert float(generator_loss(fake)) == pytest.approx(expected, rel=1e-5)
    # 1 - sigmoid(v) = sigmoid(-v)
    expected = -np.mean([log_sigmoid(v) for v in real.flatten().tolist()])
    expected -= np.mean([log_sigmoid(-v) for v in fake.flatten().tolist()])
    assert float(discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-5)


def test_r1_is_the_squared_length_of_the_gradient() -> None:
    a, b = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    x = torch.randn(4, 1, 2, 3).requires_grad_()
    logits = ((a * x).sum((1, 2, 3)) + 0.5 * (b * x.square()).sum((1, 2, 3)))[:, None]
    expected = (a + b * x).square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(r1_penalty(logits, x), expected)


def test_r1_gradient_is_that_of_finite_differences() -> None:
    d = Discriminator(base_shape=(3, 3), channels=(4, 3), group=1).double()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64).requires_grad_()
    weight = d.b6.conv0.weight
    (gradient,) = torch.autograd.grad(r1_penalty(d(x), x), weight)
    direction = torch.randn_like(weight)
    held, ends = weight.detach().clone(), []
    for step in (1e-6, -1e-6):
        weight.data.copy_(held + step * direction)
        ends.append(float(r1_penalty(d(x), x).detach()))
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def linear(weight: Tensor, w: Tensor) -> Tensor:
    """The generator whose Jacobian is `weight` [12, K], as pictures of 3 x 4."""
    return (w @ weight.T).reshape(-1, 1, 3, 4)


def test_path_lengths_and_their_gradient_are_those_of_the_jacobian() -> None:
    weight = torch.randn(12, 5, dtype=torch.float64).requires_grad_()
    w = torch.randn(7, 5, dtype=torch.float64).requires_grad_()
    torch.manual_seed(1)
    lengths = path_lengths(linear(weight, w), w)
    torch.manual_seed(1)
    y = torch.randn(7, 1, 3, 4, dtype=torch.float64).flatten(1)
    expected = (y @ weight / math.sqrt(12)).norm(dim=1)
    torch.testing.assert_close(lengths, expected)
    (found,) = torch.autograd.grad(path_penalty(lengths, 0.7), weight)
    (explicit,) = torch.autograd.grad((expected - 0.7).square().mean(), weight)
    torch.testing.assert_close(found, explicit)


def test_path_length_of_a_scaled_isometry_is_known() -> None:
    """J^T J = s^2 I: the mean square of |J^T y| is s^2 K / (H W)."""
    basis = torch.linalg.qr(torch.randn(12, 5))[0]
    w = torch.randn(20_000, 5).requires_grad_()
    lengths = path_lengths(linear(3.0 * basis, w), w)
    assert float(lengths.square().mean()) == pytest.approx(9 * 5 / 12, rel=0.02)
    assert float(path_penalty(lengths, 2.0)) == pytest.approx(float(lengths.sub(2).pow(2).mean()))


# What is drawn.


def test_iterations_have_seeds_of_their_own() -> None:
    seeds = {iteration_seed(s, i) for s in range(5) for i in range(200)}
    assert len(seeds) == 1000
    assert all(0 <= s < 2**63 for s in seeds)


def test_draw_takes_slices_with_their_positions() -> None:
    stacks = tiny.stacks()
    drawn = draw(stacks, 50, dataclasses.replace(tiny.RECIPE, widened=0.0))
    images, positions = drawn.image, drawn.position
    assert images.dtype == positions.dtype == torch.float32
    assert set(positions.tolist()) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    for image, position in zip(images, positions, strict=True):
        place = round((float(position) + 1) * 2)
        assert any(np.array_equal(image.numpy(), s[place].astype(np.float32)) for s in stacks)


# One iteration.


def changed(before: dict[str, Tensor], after: dict[str, Tensor], name: str) -> bool:
    return any(not torch.equal(before[k], after[k]) for k in before if k.startswith(f"{name}."))


def test_reconstruction_leaves_the_discriminator_alone() -> None:
    state = tiny.state()
    before = copy.deepcopy(tiny.numbers(state))
    losses = train_iteration(state, tiny.RECIPE, tiny.stacks(), None)
    after = tiny.numbers(state)
    assert set(losses) == {"pixel", "latent", "information"}
    assert [changed(before, after, n) for n in ("generator", "encoder", "discriminator")] == [True, True, False]
    assert changed(before, after, "average")
    assert changed(before, after, "average_encoder")
    assert (state.iteration, state.images) == (1, 4)


def test_every_network_changes_in_the_adversarial_phase() -> None:
    state = tiny.state()
    recipe = dataclasses.replace(tiny.RECIPE, path_every=2)
    state.images, state.iteration = recipe.reconstruction_only, 2
    stacks = tiny.stacks()
    for lazy in (True, False):
        before = copy.deepcopy(tiny.numbers(state))
        losses = train_iteration(state, recipe, stacks, lambda a, b: (a - b).square().mean((1, 2, 3)))
        after = tiny.numbers(state)
        expected = {"pixel", "latent", "information", "perceptual", "generator", "discriminator", "sign", "probability"}
        assert set(losses) == expected | ({"r1", "path"} if lazy else set())
        assert all(math.isfinite(v) for v in losses.values())
        for name in ("generator", "generator.mapping", "generator.synthesis", "encoder", "discriminator"):
            assert changed(before, after, name), name
        assert changed(before, after, "discriminator.mapping")
        assert not torch.equal(before["generator.mapping.w_avg"], after["generator.mapping.w_avg"])
        for name, value in after.items():
            assert bool(torch.isfinite(value).all()), name


def test_reconstruction_learns() -> None:
    state, recipe = tiny.state(), dataclasses.replace(tiny.RECIPE, rate=0.01, reconstruction_only=10**6)
    losses = [train_iteration(state, recipe, tiny.stacks(), None)["pixel"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


PLAYING = dataclasses.replace(tiny.RECIPE, reconstruction_only=0)


def test_running_mean_of_path_lengths_starts_at_the_first_and_follows_slowly() -> None:
    state, recipe, mean = tiny.state(), dataclasses.replace(PLAYING, path_every=2), 0.0
    for i in range(5):
        losses = train_iteration(state, recipe, tiny.stacks())
        assert ("path" in losses) == (i % 2 == 0)
        if "path" in losses:
            mean = 0.99 * mean + 0.01 * losses["path"] if mean else losses["path"]
        assert state.path_mean == pytest.approx(mean, rel=1e-5)
    assert mean > 0
    assert "path" not in train_iteration(tiny.state(), dataclasses.replace(PLAYING, path=0.0), tiny.stacks())


def test_path_length_regularisation_evens_out_the_lengths() -> None:
    """Alone with a weight that rules, it brings the lengths to their running mean."""
    recipe = dataclasses.replace(PLAYING, batch=16, path_every=1, path=2000.0, reconstructed=0.0, rate=0.01)
    spread = []
    for weight in (recipe.path, 1e-9):
        state, chosen = tiny.state(), dataclasses.replace(recipe, path=weight)
        for _ in range(25):
            train_iteration(state, chosen, tiny.stacks())
        g = state.generator.requires_grad_(True)
        torch.manual_seed(0)
        w = g.mapping(torch.randn(200, g.z_dim), torch.randn(200, g.c_dim))
        lengths = path_lengths(g.synthesis(g.broadcast(w)), w).detach()
        spread.append(float((lengths - state.path_mean).square().mean().sqrt()) / state.path_mean)
    assert spread[0] < 0.8 * spread[1]


def test_a_fraction_of_the_batch_is_reconstructed_once_the_adversary_plays() -> None:
    none, every = (dataclasses.replace(PLAYING, reconstructed=fraction) for fraction in (0.0, 1.0))
    state, before = tiny.state(), copy.deepcopy(tiny.numbers(tiny.state()))
    losses = train_iteration(state, none, tiny.stacks())
    after = tiny.numbers(state)
    assert not {"pixel", "latent"} & losses.keys()
    names = ("generator.mapping", "generator.synthesis", "discriminator", "encoder", "average_encoder")
    assert [changed(before, after, n) for n in names] == [True, True, True, False, False]

    state = tiny.state()
    losses = train_iteration(state, dataclasses.replace(every, path=0.0), tiny.stacks())
    assert {"pixel", "latent", "generator", "discriminator"} <= losses.keys()
    assert [changed(before, tiny.numbers(state), n) for n in names] == [False, True, True, True, True]

    state = tiny.state()  # before the adversary plays, everything is reconstructed
    seen: list[int] = []
    state.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for _ in range(3):
        train_iteration(state, dataclasses.replace(none, reconstruction_only=8), tiny.stacks())
    assert seen == [4, 4]


def test_the_probability_of_augmentation_is_driven_by_the_sign() -> None:
    for target, start, expected in ((-0.99, 0.0, [0.0, 0.0, 0.0, 0.16]), (0.99, 0.5, [0.5, 0.5, 0.5, 0.34])):
        state, recipe = tiny.state(), dataclasses.replace(PLAYING, sign_target=target, ramp=100.0)
        state.probability, sign, found = start, 0.0, []
        for _ in range(4):
            losses = train_iteration(state, recipe, tiny.stacks())
            assert -1 <= losses["sign"] <= 1
            sign += (losses["sign"] - sign) / 4
            found.append(state.probability)
        assert found == pytest.approx(expected)
        assert state.sign == pytest.approx(sign)


def test_the_discriminator_sees_both_kinds_of_image_augmented_and_the_reconstruction_does_not() -> None:
    def seen(probability: float) -> tuple[list[Tensor], list[Tensor]]:
        state, judged, encoded = tiny.state(), [], []
        state.probability = probability
        state.discriminator.register_forward_pre_hook(lambda _, inputs: judged.append(inputs[0].detach().clone()))
        state.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].detach().clone()))
        train_iteration(state, dataclasses.replace(PLAYING, path=0.0), tiny.stacks())
        return judged, encoded

    (plain, (target,)), (augmented, (same,)) = seen(0.0), seen(1.0)
    assert torch.equal(target, same)
    assert torch.equal(plain[1][:2], target)  # the discriminator's real images, not augmented
    assert len(plain) == len(augmented) == 3
    for one, two in zip(plain, augmented, strict=True):
        assert all(not torch.allclose(a, b, atol=0.02) for a, b in zip(one, two, strict=True))
    assert torch.equal(augmented[0], augmented[2])  # the fakes of both players' updates


def test_half_precision_losses_are_close_and_its_regularisers_are_not_half() -> None:
    recipe = dataclasses.replace(PLAYING, path_every=1, r1_every=1)
    exact, half = (train_iteration(tiny.state(), recipe, tiny.stacks(), None, p) for p in (torch.float32, HALF))
    assert exact.keys() == half.keys() >= {"pixel", "latent", "generator", "discriminator", "r1", "path"}
    for key in ("pixel", "latent", "generator", "discriminator"):
        assert half[key] == pytest.approx(exact[key], rel=0.03, abs=1e-3), key
    assert half["pixel"] != exact["pixel"]
    assert half["r1"] == exact["r1"]
    assert half["path"] == exact["path"]


def test_average_is_exponential_with_the_stated_half_life() -> None:
    state = tiny.state()
    g, average = state.generator, state.average
    before, buffer = average.mapping.fc0.weight.clone(), torch.randn(5)
    with torch.no_grad():
        g.mapping.fc0.weight.add_(1.0)
        g.mapping.w_avg.copy_(buffer)
    for _ in range(10):  # 10 batches of 4 are one half-life of 40
        update_average(average, g, images=10_000, batch=4, half_life=40.0)
    torch.testing.assert_close(average.mapping.fc0.weight - before, torch.full_like(before, 0.5), rtol=1e-4, atol=1e-4)
    assert torch.equal(average.mapping.w_avg, buffer)
    update_average(average, g, images=4, batch=4, half_life=40.0)  # early on: at most a twentieth of 4
    torch.testing.assert_close(average.mapping.fc0.weight, g.mapping.fc0.weight, rtol=0, atol=1e-4)


def test_mean_of_w_is_tracked() -> None:
    g = tiny.state().generator
    w = torch.randn(7, 5)
    mean_w(g, w, beta=0.75)
    torch.testing.assert_close(g.mapping.w_avg, 0.25 * w.mean(0))


# The state and its file.


def differing(a: TrainState, b: TrainState) -> list[str]:
    """Names of what is not equal to the last bit, of all that the weights depend on."""
    numbers = ("probability", "sign", "path_mean")
    return tiny.differing(a, b) + [name for name in numbers if getattr(a, name) != getattr(b, name)]


def run(state: TrainState, iterations: int, precision: torch.dtype = torch.float32) -> None:
    for _ in range(iterations):
        train_iteration(state, tiny.RECIPE, tiny.stacks(), None, precision)


def test_state_survives_its_file(tmp_path: Path) -> None:
    state = tiny.state()
    run(state, 4)
    state.record = {"heads": 3, "note": "x"}
    state.save(tmp_path / "state.pt")
    found = TrainState.new(tiny.ARCHITECTURE, seed=9, rate=tiny.RECIPE.rate)
    found.load(tmp_path / "state.pt")
    assert not differing(state, found)
    assert found.record == state.record
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def layout(value: Any, name: str = "") -> list[str]:
    """A line for every tensor and plain value: name, type and shape. What Adam keeps beside its moments is torch's."""
    if name.endswith("/param_groups"):
        return []
    if isinstance(value, dict):
        return [line for key, one in value.items() for line in layout(one, f"{name}/{key}")]
    if isinstance(value, Tensor):
        return [f"{name} {value.dtype} {tuple(value.shape)}"]
    assert isinstance(value, int | float), f"{name}: neither a tensor nor a number"
    return [f"{name} {type(value).__name__}"]


def test_a_state_file_has_the_layout_that_it_always_had(tmp_path: Path) -> None:
    """482 entries, as commit fb88990 wrote them: a state of before a change of the code is read after it."""
    state = tiny.state()
    for name, adam in state.optimisers.items():
        for parameter in getattr(state, name).parameters():
            parameter.grad = torch.ones_like(parameter)
        adam.step()
    state.save(tmp_path / "state.pt")
    lines = sorted(layout(torch.load(tmp_path / "state.pt", weights_only=True)))
    assert len(lines) == 482
    known = "ee3267effa2fa1821b54719550ccf4751303e842f3826748d49394c36c07f6d5"
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == known


def test_a_state_that_is_damaged_or_of_other_networks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    tiny.state().save(path)
    whole = path.read_bytes()
    for content in (b"", b"not a state", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(PriorError, match=r"state\.pt: is no training state") as caught:
            tiny.state().load(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    with pytest.raises(PriorError, match=r"state\.pt: is no training state"):
        tiny.state(w_dim=7).load(path)
    torch.save({"generator": {}}, path)
    with pytest.raises(PriorError, match=r"state\.pt: is no training state"):
        tiny.state().load(path)


@pytest.mark.parametrize("precision", [torch.float32, HALF])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, precision: torch.dtype) -> None:
    whole = tiny.state()
    run(whole, 10, precision)
    first = tiny.state()
    run(first, 5, precision)
    first.save(tmp_path / "state.pt")
    torch.manual_seed(1234)
    second = TrainState.new(tiny.ARCHITECTURE, seed=9, rate=tiny.RECIPE.rate)
    second.load(tmp_path / "state.pt")
    run(second, 5, precision)
    assert not differing(whole, second)


def test_train_writes_state_and_losses(tmp_path: Path) -> None:
    state, lines = tiny.state(), []
    train(state, tiny.RECIPE, tiny.stacks(), tmp_path, images=40, report=lines.append, report_every=0.0)
    assert state.images == 40
    assert len(lines) == 10
    assert "images/s" in lines[-1]
    rows = table(tmp_path / "losses.csv")
    assert [int(r["images"]) for r in rows] == list(range(4, 41, 4))
    assert rows[0]["discriminator"] == ""
    assert math.isfinite(float(rows[-1]["discriminator"]))
    expected = tiny.state()
    run(expected, 10)
    assert not differing(state, expected)
    found = tiny.state()
    found.load(tmp_path / "state.pt")
    assert not differing(state, found)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_snapshots_are_measured_and_the_best_is_kept(tmp_path: Path) -> None:
    scores, measured = iter([1.0, 3.0, math.nan, 2.0]), []

    def measure(state: TrainState) -> dict[str, float]:
        torch.randn(1000)  # what is measured changes nothing of the training
        measured.append(copy.deepcopy(state.average.state_dict()))
        return {"inversion_psnr": 20.0 + len(measured), "score": next(scores)}

    state = tiny.state()
    train(state, tiny.RECIPE, tiny.stacks(), tmp_path, images=16, measure=measure, snapshot_every=0.0, report=quiet)
    snapshots = state.record["snapshots"]
    assert [s["images"] for s in snapshots] == [4, 8, 12, 16]
    assert [s["inversion_psnr"] for s in snapshots] == [21.0, 22.0, 23.0, 24.0]
    rows = table(tmp_path / "quality.csv")
    assert [(int(r["images"]), float(r["score"])) for r in rows][1::2] == [(8, 3.0), (16, 2.0)]
    best = tiny.state()
    best.load_snapshot(tmp_path / "best.safetensors")
    assert best.images == 8
    torch.testing.assert_close(best.average.state_dict(), measured[1], rtol=1e-3, atol=1e-4)
    unmeasured, found = tiny.state(), tiny.state()
    run(unmeasured, 4)
    assert not differing(state, unmeasured)

    found.load(tmp_path / "state.pt")  # a resumed run knows what was best
    scores = iter([2.5])
    train(found, tiny.RECIPE, tiny.stacks(), tmp_path, images=20, measure=measure, report=quiet)
    best.load_snapshot(tmp_path / "best.safetensors")
    assert best.images == 8
    assert [int(r["images"]) for r in table(tmp_path / "quality.csv")] == [4, 8, 12, 16, 20]


def test_snapshots_come_at_intervals_of_training_and_at_the_end(tmp_path: Path) -> None:
    taken: list[int] = []

    def measure(state: TrainState) -> dict[str, float]:
        taken.append(state.images)
        return {"score": 0.0}

    record = Record(tiny.state(), tmp_path, 40, torch.float32, measure, report=quiet, snapshot_every=10.0)
    for i in range(1, 11):
        record.state.images = 4 * i
        record.add({"pixel": 1.0}, 4.0)
    record.close()
    assert taken == [12, 24, 36, 40]
    resumed = tiny.state()
    resumed.load(tmp_path / "state.pt")
    assert resumed.record["seconds"] == 40.0
    record = Record(resumed, tmp_path, 80, torch.float32, measure, report=quiet, snapshot_every=10.0)
    for i in range(11, 14):
        resumed.images = 4 * i
        record.add({"pixel": 1.0}, 4.0)
    record.close()
    assert taken[4:] == [52]


def test_curves_of_a_resumed_run_have_no_row_twice(tmp_path: Path) -> None:
    state = tiny.state()
    train(state, tiny.RECIPE, tiny.stacks(), tmp_path, images=8, report=quiet, report_every=0.0)
    kept = (tmp_path / "state.pt").read_bytes()
    train(state, tiny.RECIPE, tiny.stacks(), tmp_path, images=20, report=quiet, report_every=0.0)
    first = table(tmp_path / "losses.csv")
    (tmp_path / "state.pt").write_bytes(kept)  # as if the last three rows were written, and the state was not
    with open(tmp_path / "losses.csv", "a") as file:
        file.write("24,1.")
    resumed, lines = tiny.state(), []
    resumed.load(tmp_path / "state.pt")
    train(resumed, tiny.RECIPE, tiny.stacks(), tmp_path, images=20, report=lines.append, report_every=0.0)
    again = table(tmp_path / "losses.csv")
    assert [int(r["images"]) for r in again] == [4, 8, 12, 16, 20]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in again] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in first
    ]
    assert [float(r["seconds"]) for r in again] == sorted(float(r["seconds"]) for r in again)
    assert all("min left" in line for line in lines)


def test_pictures_and_curves_are_there_to_be_looked_at(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = torch.from_numpy(tiny.stacks()[0]), torch.linspace(-1, 1, 5)
    state = tiny.state()
    settings = {"shown": shown, "measure": lambda _: {"score": 1.5}, "report": quiet, "report_every": 0.0}
    train(state, tiny.RECIPE, tiny.stacks(), tmp_path, images=12, **settings)
    grid = pictures(state, *shown)
    with Image.open(tmp_path / "pictures" / "000000.png") as image:
        written = torch.from_numpy(np.asarray(image).copy())
    assert written.shape == (5 * 14 + 2, 5 * 14 + 2, 3)  # truth, two reconstructions, two samples; a border of 2
    torch.testing.assert_close(written.permute(2, 0, 1) / 255, grid, rtol=0, atol=1 / 255)
    torch.testing.assert_close(grid[:, 2:14, 2:14], (shown[0][0].float().expand(3, -1, -1) + 1) / 2)
    assert torch.equal(pictures(state, *shown), grid)

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("losses/pixel")] == [4, 8, 12]
    rows = table(tmp_path / "losses.csv")
    assert [e.value for e in board.Scalars("losses/pixel")] == pytest.approx(
        [float(r["pixel"]) for r in rows], abs=1e-6
    )
    assert [(e.step, e.value) for e in board.Scalars("quality/score")] == [(12, 1.5)]
    assert [e.step for e in board.Images("pictures")] == [12]


def test_a_run_of_other_data_or_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tiny.state(), tiny.RECIPE, tiny.stacks(), tmp_path, images=4, report=quiet)
    brighter = tiny.stacks() + np.float16(0.1)
    cases = (
        (tiny.stacks(), dataclasses.replace(tiny.RECIPE, seed=4), r"seed 0, not 4;"),
        (tiny.stacks(), dataclasses.replace(tiny.RECIPE, pixel=3.0, batch=8), r"batch 4, not 8; pixel 4\.0, not 3\.0;"),
        (tiny.stacks(4), tiny.RECIPE, r"heads 3, not 4; data \w+, not \w+;"),
        (brighter, tiny.RECIPE, r"with data \w+, not \w+;"),
    )
    for stacks, recipe, named in cases:
        state = tiny.state()
        state.load(tmp_path / "state.pt")
        with pytest.raises(PriorError, match=named):
            train(state, recipe, stacks, tmp_path, images=8, report=quiet)
    state, lines = tiny.state(), []
    state.load(tmp_path / "state.pt")
    heads = [torch.from_numpy(head).float() for head in tiny.stacks()]  # the same numbers, held otherwise
    loop.train(state, tiny.RECIPE, heads, tmp_path, images=8, precision=HALF, report=lines.append)
    assert "precision float32, now bfloat16" in lines[0]
    assert [run["precision"] for run in state.record["runs"]] == ["float32", "bfloat16"]
    assert [run["images"] for run in state.record["runs"]] == [0, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_after_the_iteration_with_the_state_saved(tmp_path: Path, number: int) -> None:
    calls = []

    def perceptual(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)  # in the middle of the third iteration
        return (a - b).abs().mean((1, 2, 3))

    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        train(tiny.state(), tiny.RECIPE, tiny.stacks(), tmp_path, images=400, perceptual=perceptual, report=quiet)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    found = tiny.state()
    found.load(tmp_path / "state.pt")
    assert (found.iteration, found.images) == (3, 12)

    train(found, tiny.RECIPE, tiny.stacks(), tmp_path, images=24, perceptual=perceptual, report=quiet)
    whole = tiny.state()
    (tmp_path / "whole").mkdir()
    train(whole, tiny.RECIPE, tiny.stacks(), tmp_path / "whole", images=24, perceptual=perceptual, report=quiet)
    assert not differing(found, whole)


CHILD = """
import sys
from pathlib import Path
import torch
from brgm_med.training.loop import train
from tests import tiny

torch.set_num_threads(1)
out, images = Path(sys.argv[1]), int(sys.argv[2])
state = tiny.state()
if (out / "state.pt").is_file():
    state.load(out / "state.pt")
report = lambda line: print(line, flush=True)
train(state, tiny.RECIPE, tiny.stacks(), out, images=images, precision=torch.float32,
      save_every=0.0, report=report, report_every=0.0)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    def start(images: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(images)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for kill in range(3):
        child = start(10**7)
        assert child.stdout is not None
        for _ in range(8 + kill):
            assert child.stdout.readline()
        time.sleep(0.003 * kill)
        child.kill()
        child.wait()
        child.communicate()
    cut = tiny.state()
    cut.load(tmp_path / "state.pt")
    assert cut.iteration >= 20
    images = cut.images + 16
    child = start(images)
    _, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors

    resumed, whole = tiny.state(), tiny.state()
    resumed.load(tmp_path / "state.pt")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(whole, images // tiny.RECIPE.batch)
    torch.set_num_threads(threads)
    assert not differing(resumed, whole)


def test_a_snapshot_holds_the_averages_to_half_precision(tmp_path: Path) -> None:
    state, other = tiny.state(), tiny.state()
    for parameter in state.average.parameters():
        parameter.add_(0.25)
    state.iteration, state.images = 7, 56
    state.save_snapshot(tmp_path / "snapshot.safetensors")
    other.load_snapshot(tmp_path / "snapshot.safetensors")
    assert (other.iteration, other.images) == (7, 56)
    for kept, now, average in zip(
        state.average.parameters(), other.generator.parameters(), other.average.parameters(), strict=True
    ):
        torch.testing.assert_close(now, kept, rtol=1e-3, atol=1e-4)
        assert torch.equal(now, average)
    before = [p.clone() for p in other.discriminator.parameters()]
    state.save_snapshot(tmp_path / "alone.safetensors", adversary=False)
    assert (tmp_path / "alone.safetensors").stat().st_size < (tmp_path / "snapshot.safetensors").stat().st_size
    other.load_snapshot(tmp_path / "alone.safetensors")
    for was, now in zip(before, other.discriminator.parameters(), strict=True):
        assert torch.equal(was, now)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(PriorError, match="junk"):
        other.load_snapshot(tmp_path / "junk.safetensors")


def test_the_step_falls_as_the_inverse_square_root_of_the_images() -> None:
    recipe = dataclasses.replace(tiny.RECIPE, rate=0.01, steady=100)
    assert step_size(recipe, 0) == step_size(recipe, 100) == 0.01
    assert step_size(recipe, 400) == pytest.approx(0.005)
    assert step_size(recipe, 10_000) == pytest.approx(0.001)
    state = tiny.state()
    state.images = 400
    train_iteration(state, recipe, tiny.stacks())
    assert {group["lr"] for adam in state.optimisers.values() for group in adam.param_groups} == {0.005}
