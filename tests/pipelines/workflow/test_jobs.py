"""Jobs on engines: each is done once, a crash is named and stops no other, unless it is to."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from brgm_med.pipelines.workflow import engines, jobs


def job(folder: Path, name: str, crashed: list[str]) -> list[str]:
    """Note in `folder` which process did `name`."""
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return crashed


def test_one_process_does_jobs_in_order_and_names_nodes_that_crashed(tmp_path: Path) -> None:
    several = {name: partial(job, tmp_path, name, [f"{name}.convert"] * (name == "b")) for name in "cbad"}
    report: list[str] = []
    assert jobs.run(several, tmp_path / "work", engines.engine(), report=report.append) == ["b.convert"]
    assert [(tmp_path / name).read_text() for name in "abcd"] == [f"{os.getpid()}\n"] * 4
    for name in "abcd":
        (tmp_path / name).unlink()
    stopped = jobs.run(several, tmp_path / "work", engines.engine(), stop_on_first_crash=True, report=report.append)
    assert stopped == ["b.convert"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]
    assert report == ["c: done", "b: crashed", "a: done", "d: done", "c: done", "b: crashed"]


def test_several_processes_do_each_job_once_in_graphs_of_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CHUNK", 3)
    names = [f"job{number}" for number in range(10)]
    several = {name: partial(job, tmp_path, name, ["convert"] * (name == "job8")) for name in names}
    report: list[str] = []
    assert jobs.run(several, tmp_path / "work", engines.engine(2), report=report.append) == ["job8"]
    done = [(tmp_path / name).read_text().splitlines() for name in names]
    assert [len(processes) for processes in done] == [1] * 10
    assert all(str(os.getpid()) not in processes for processes in done)
    assert sorted(report) == [f"{name}: {'crashed' if name == 'job8' else 'done'}" for name in names]
    (crash,) = (tmp_path / "work" / "crash").iterdir()
    assert "crashed: convert" in crash.read_text()


def test_chunks_hold_every_job_once() -> None:
    several = {str(number): list[str] for number in range(7)}
    assert [list(chunk) for chunk in jobs.chunks(several, 3)] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
