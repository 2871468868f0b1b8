"""Several processes train as one would with the whole batch."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brgm_med.errors import UsageError
from brgm_med.training import distributed
from brgm_med.training.loop import train
from brgm_med.training.state import TrainState
from tests import tiny
from tests.house import ROOT

# Everything plays within a few updates: regularisers, augmentation, styles, and samples beside reconstructions.
RECIPE = dataclasses.replace(
    tiny.RECIPE, batch=8, reconstruction_only=16, path_every=2, sign_target=-0.9, ramp=100.0, seed=3
)
UPDATES = 9


def fresh() -> TrainState:
    state = tiny.state()
    with torch.no_grad():
        for name, strength in state.generator.named_parameters():
            if name.endswith("noise_strength"):
                strength.fill_(0.2)
    return state


def say(line: str) -> None:
    """In one piece: two processes write to one stream."""
    os.write(1, f"{distributed.rank()} {line}\n".encode())


def together(state: TrainState, out: Path, stop: bool = False) -> None:
    """Train to the end; process 1 is asked to stop within its fourth update."""
    calls = []

    def perceptual(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        if stop and distributed.rank() == 1 and len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return (a - b).square().mean((1, 2, 3))

    images = UPDATES * RECIPE.batch
    settings = {"precision": torch.float32, "report": say, "report_every": 0.0}
    train(state, RECIPE, tiny.stacks(), out, images=images, perceptual=perceptual, **settings)  # type: ignore[arg-type]


def child(out: Path) -> None:
    """One of the processes: trains, is interrupted, resumes."""
    torch.set_num_threads(1)
    with distributed.process_group():
        try:
            together(fresh(), out, stop=True)
        except KeyboardInterrupt:
            say("interrupted")
        state = tiny.state()
        state.load(out / "state.pt")
        say(f"resumed at {state.iteration}")
        together(state, out)
        torch.save(state.generator.state_dict(), out / f"generator{distributed.rank()}.pt")
    assert not torch.distributed.is_initialized()


def losses(path: Path) -> list[dict[str, float]]:
    with open(path / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v and k != "seconds"} for row in rows]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, "-m", "tests.training.test_distributed", str(tmp_path / "two")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {f"{rank} {what}" for rank in "01" for what in ("interrupted", "resumed at 4")} <= set(lines)
    assert not [line for line in lines if line.startswith("1") and "kimg" in line]  # only the first reports

    one, two = fresh(), tiny.state()
    together(one, tmp_path / "one")
    two.load(tmp_path / "two" / "state.pt")
    assert one.iteration == two.iteration == UPDATES
    assert one.probability == two.probability > 0
    assert one.path_mean == pytest.approx(two.path_mean, rel=1e-3)
    rows, shared = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(rows) == UPDATES
    assert any("r1" in row and "path" in row for row in rows)
    for row, other in zip(rows, shared, strict=True):
        assert row == pytest.approx(other, rel=2e-3, abs=2e-4)
    expected, found = tiny.numbers(one), tiny.numbers(two)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    ranks = [torch.load(tmp_path / "two" / f"generator{r}.pt", weights_only=True) for r in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(ranks[0].values(), ranks[1].values(), strict=True))


def test_each_process_draws_its_share_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(n: int) -> list[Tensor]:
        torch.manual_seed(5)
        image = torch.zeros(n, 2, 3, 4)
        return [
            torch.rand(n),
            torch.randn(n, 3),
            torch.randn((n, 3), dtype=torch.float64),
            torch.randint(7, (n,)),
            torch.randint(2, 9, (n, 2)),
            torch.randn_like(image),
            torch.rand_like(image[:, 0]),
        ]

    whole = drawn(6)
    monkeypatch.setattr(distributed, "world", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with distributed.shared_draws():
            share = drawn(2)
        for mine, all_of_them in zip(share, whole, strict=True):
            assert torch.equal(mine, all_of_them[rank::3])
    assert not torch.equal(drawn(2)[0], whole[0][2::3])  # only inside the context


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.share(5, 4) == 5
    monkeypatch.setattr(distributed, "world", lambda: 2)
    assert distributed.share(16, 4) == 8
    for count, group in ((12, 4), (5, 1)):
        with pytest.raises(UsageError, match="2 processes"):
            distributed.share(count, group)


def test_a_process_alone_joins_nothing_and_averages_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.process_group():
        assert not torch.distributed.is_initialized()
        assert (distributed.rank(), distributed.world()) == (0, 1)
        value = torch.tensor([1.0, 2.0])
        distributed.average([value])
        assert value.tolist() == [1.0, 2.0]
        assert distributed.floats({"a": torch.tensor(0.5), "b": torch.tensor(2)}) == {"a": 0.5, "b": 2.0}
        assert [distributed.anyone(flag, torch.device("cpu")) for flag in (True, False)] == [True, False]


if __name__ == "__main__":
    child(Path(sys.argv[1]))
