"""benchmarks/gpu.py without a GPU: a copy of the tree, nothing installed, and a wrong kernel that it must find."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brgm_med.errors import PriorError
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.training.loop import train, train_iteration
from brgm_med.training.sources import Source, Sources, acquisition_kernel, unpacked
from brgm_med.training.sources import packed as in_8_bits
from brgm_med.training.state import TrainState
from tests import host_compiler, tiny
from tests.house import ROOT

ABSENT = ["monai", "nibabel", "nipype", "pydicom", "SimpleITK", "lpips", "torchvision", "highdicom", "pytest"]
BLOCKING = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT} or name in ("brgm_med.pipelines", "brgm_med.transforms"):
            raise ModuleNotFoundError(f"{{name}} is not there", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, first on PYTHONPATH, takes the packages away that a machine with a GPU may lack."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(BLOCKING)
    return folder


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("pack", "gpu_state", "gpu_training", "gpu_step", "prefetch", "rates"):
        sys.modules.pop(name, None)


def python(*arguments: str | Path, path: list[Path], timeout: float) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=path[-1], env=environment, capture_output=True, text=True, timeout=timeout)


def sources() -> Sources:
    """Two scanners and label maps, 12 x 12."""
    stacks = [values(torch.tensor(stack[:, 0], dtype=torch.float32)) for stack in tiny.stacks(heads=5, positions=9)]
    blurred = acquisition_kernel(2.0, 2.0, 1.5)
    labels = [torch.zeros(9, 24, 24, dtype=torch.uint8) for _ in range(2)]
    for stack in labels:
        stack[:, 6:18, 6:18] = torch.arange(1, 10, dtype=torch.uint8)[:, None, None] % 4
    tissue = torch.arange(64, dtype=torch.uint8) % 4
    exact = acquisition_kernel(0.0, 0.0, 1.5)
    return Sources(
        [
            Source("one", 0.6, (blurred, blurred), stacks[:3]),
            Source("two", 0.2, (exact, exact), stacks[3:]),
            Source("labels", 0.2, (exact, exact), labels, tissue),
        ]
    )


def values(stack: torch.Tensor) -> torch.Tensor:
    return in_8_bits(stack, torch.ones_like(stack, dtype=torch.bool))


def folder_for_gpu(folder: Path, state: TrainState) -> Path:
    import pack

    folder.mkdir()
    lost = pack.pack(sources(), folder / pack.SLICES, 1_000_000)
    state.save_snapshot(folder / pack.SNAPSHOT)
    pack.describe(folder, tiny.ARCHITECTURE, tiny.RECIPE, lost)
    return folder


def trained(updates: int, training_set: Sources | None = None) -> TrainState:
    state, drawn = tiny.state(), training_set or sources()
    for _ in range(updates):
        train_iteration(state, tiny.RECIPE, drawn)
    return state


def test_the_mathematics_and_the_trainer_need_none_of_the_packages_above_them(without: Path) -> None:
    code = """
import pkgutil, importlib, brgm_med
above = ("brgm_med.pipelines", "brgm_med.transforms", "brgm_med.__main__")
for module in pkgutil.walk_packages(brgm_med.__path__, "brgm_med.", onerror=lambda name: None):
    if not module.name.startswith(above):
        importlib.import_module(module.name)
try:
    import monai
except ModuleNotFoundError:
    print("all but monai")
"""
    done = python("-c", code, path=[without, ROOT], timeout=200)
    assert done.stdout.strip() == "all but monai", done.stderr


def test_packed_sources_come_back_with_the_loss_that_is_stated(tmp_path: Path) -> None:
    import pack

    whole = sources()
    lost = pack.pack(whole, tmp_path / "whole", 1_000_000)
    assert (lost["one slice in"], lost["slices"], lost["of"]) == (1, 45, 45)
    errors = []
    for one, other in zip(pack.unpack(tmp_path / "whole").sources, whole.sources, strict=True):
        assert (one.name, one.share) == (other.name, other.share)
        for a, b in zip(one.stacks, other.stacks, strict=True):
            assert other.tissue is None or torch.equal(a, b)
            if other.tissue is None:
                assert torch.equal(a > 0, b > 0)
                errors.append((unpacked(a)[0] - unpacked(b)[0]).flatten())
    error = torch.cat(errors)
    assert error.abs().max() <= pack.DROPPED / 2 / 64 + 1e-6
    assert lost["rms error"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
    assert 0 < lost["rms error"] < 0.03


def test_what_does_not_fit_is_thinned_evenly_and_keeps_its_positions(tmp_path: Path) -> None:
    import pack

    whole = sources()
    pack.pack(whole, tmp_path / "whole", 1_000_000)
    size = int(0.7 * (tmp_path / "whole").stat().st_size)
    lost = pack.pack(whole, tmp_path / "few", size)
    assert (tmp_path / "few").stat().st_size <= size
    every = int(lost["one slice in"])
    assert every > 1
    few = pack.unpack(tmp_path / "few")
    for one, other in zip(few.sources, whole.sources, strict=True):
        for h, (stack, before) in enumerate(zip(one.stacks, other.stacks, strict=True)):
            held = {i for i in range(9) if (stack[i] > 0).any()}
            assert held == {i for i in range(h % every, 9, every) if (before[i] > 0).any()}
    torch.manual_seed(0)
    assert few.draw(64).known.flatten(1).any(1).all()
    with pytest.raises(PriorError, match="give more"):
        pack.pack(whole, tmp_path / "none", 500)
    damaged = (tmp_path / "few").read_bytes()[:-100]
    (tmp_path / "few").write_bytes(damaged)
    with pytest.raises(PriorError, match="damaged"):
        pack.unpack(tmp_path / "few")


@pytest.mark.parametrize("processes", [0, 2])
def test_slices_drawn_ahead_are_those_of_the_trainer(processes: int) -> None:
    import prefetch

    ahead = prefetch.Prefetched(sources(), tiny.RECIPE, 0, processes)
    assert not tiny.differing(trained(5, ahead), trained(5))


def test_a_state_in_parts_is_joined_and_goes_on(tmp_path: Path) -> None:
    import gpu_state

    state, folder = trained(4), tmp_path
    files = gpu_state.split(state, folder, limit=9000)
    assert len(files) > 3
    assert {path.name for path in folder.iterdir()} == {path.name for path in files}
    assert all(path.stat().st_size <= 9000 for path in files if path.name.startswith("state"))
    back = gpu_state.join(folder, tiny.ARCHITECTURE)
    before, after = tiny.numbers(state), tiny.numbers(back)
    for name, value in before.items():
        if name.startswith("average"):
            torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-6)
        elif name.startswith("adam") and "exp_avg" in name:
            torch.testing.assert_close(after[name], value, rtol=2**-8, atol=0)
        elif not name.endswith("rate"):
            assert torch.equal(after[name], value), name
    first = train_iteration(back, tiny.RECIPE, sources())
    assert first == pytest.approx(train_iteration(state, tiny.RECIPE, sources()), rel=0.02, abs=0.01)

    part = folder / "state-2"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(PriorError, match="not one whole state"):
        gpu_state.join(folder, tiny.ARCHITECTURE)
    part.unlink()
    with pytest.raises(PriorError, match="not one whole state"):
        gpu_state.join(folder, tiny.ARCHITECTURE)
    part.write_bytes(whole)
    trained(5).save_snapshot(folder / gpu_state.SNAPSHOT)
    with pytest.raises(PriorError, match="of update 5, the rest of 4"):
        gpu_state.join(folder, tiny.ARCHITECTURE)


def test_a_larger_batch_keeps_the_updates_that_an_average_spans() -> None:
    import gpu_training
    from brgm_med.training.loop import step_size

    recipe = tiny.RECIPE
    larger = gpu_training.scaled(recipe, 16 * recipe.batch)
    assert larger.half_life / larger.batch == recipe.half_life / recipe.batch
    late = 100 * recipe.steady
    assert step_size(larger, late) == pytest.approx(4 * step_size(recipe, late))
    assert step_size(larger, 0) == step_size(recipe, 0)


def test_the_shipped_architecture_is_returned_in_few_files(tmp_path: Path) -> None:
    import gpu_state
    from brgm_med.training.state import Architecture

    state = TrainState.new(Architecture(), seed=0, rate=0.001)
    for name in gpu_state.NETWORKS:
        network, optimiser = getattr(state, name), state.optimisers[name]
        assert isinstance(network, torch.nn.Module)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    files = gpu_state.split(state, tmp_path)
    assert isinstance(state.generator, StyleGAN2)
    assert len(files) <= 6  # with gpu.json and gpu.md 8
    assert all(path.stat().st_size <= 15e6 for path in files)
    assert sum(path.stat().st_size for path in files) < 60e6


@pytest.mark.slow
@pytest.mark.skipif(not host_compiler.available(), reason="no g++ on this machine")
def test_the_command_in_a_copy_without_installation(without: Path, tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "transforms", "pipelines")
    for folder in ("brgm_med", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    kernel = tree / "brgm_med" / "ops" / "modulated_epilogue.cu"
    source = kernel.read_text()
    assert source.count("0.2") == 1
    kernel.write_text(source.replace("0.2", "0.21"))
    source = folder_for_gpu(tmp_path / "packed", trained(2))

    command = ["benchmarks/gpu.py", "--out", out, "--packed", source, "--minutes", "1.2"]
    done = python(*command, path=[without, tree], timeout=200)
    assert done.returncode == 0, done.stderr
    assert "MORE THAN MAY BE RETURNED" not in done.stdout

    files = sorted(out.rglob("*"))
    assert len(files) <= 8
    assert all(path.parent == out and path.stat().st_size <= 15e6 for path in files)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in files)
    assert {"gpu.json", "gpu.md", "snapshot.safetensors", "state-1"} <= {path.name for path in files}
    results = json.loads((out / "gpu.json").read_text())
    page = (out / "gpu.md").read_text()

    kernels = results["kernels"]
    assert kernels["how"].startswith("NO GPU")
    assert "NO GPU" in page
    wrong = {key for key, row in kernels["rows"].items() if row["failures"]}
    assert wrong
    assert all(key.startswith("modulated_epilogue forward") for key in wrong)
    assert {key.split()[0] for key in kernels["rows"]} == {"bias_act", "modulated_epilogue", "upfirdn2d"}
    assert kernels["launches"]["modulated_epilogue.cu"] > 0
    assert next(iter(wrong)) in page

    speed = results["speed"]
    assert speed["bandwidth"] > 1e8
    assert speed["products"]["float32"] > 1e8
    assert speed["operations"]
    assert all(row["ours"] > 0 and row["composed"] > 0 for row in speed["operations"])
    assert not speed.get("failures")

    training = results["training"]
    assert training["ended"] == "ended", done.stdout
    assert training["images"][1] > training["images"][0] == 8
    assert all(math.isfinite(value) for row in training["losses"] for value in row.values())
    assert "without a perceptual term" in page

    run = tmp_path / "run"
    joined = python(tree / "benchmarks" / "gpu_state.py", out, "--run", run, path=[without, tree], timeout=100)
    assert joined.returncode == 0, joined.stderr
    state = tiny.state()
    state.load(run / "state.pt")
    assert state.images == training["images"][1]
    assert state.record["runs"][-1]["batch"] == training["batch"]
    goal = state.images + 2 * tiny.RECIPE.batch
    train(state, tiny.RECIPE, sources(), run, images=goal, report=lambda line: None)
    assert state.images == goal
