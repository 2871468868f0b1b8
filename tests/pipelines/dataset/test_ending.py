"""A run of several processes that is ended from outside, and a work folder behind a link."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from brgm_med.errors import CannotWriteError
from brgm_med.pipelines.dataset.run import run
from brgm_med.pipelines.dataset.settings import Selection, Settings
from tests.studies import bids_study

COMMAND = Path(sys.executable).with_name("brgm-med")


def test_a_work_folder_that_is_a_link_keeps_its_mode(tmp_path: Path) -> None:
    root, target = bids_study(tmp_path / "bids", 1), tmp_path / "target"
    target.mkdir(mode=0o755)
    for link in (tmp_path / "link", tmp_path / "out_work"):
        link.symlink_to(target)
        work = None if link.name == "out_work" else link
        with pytest.raises(CannotWriteError, match=f"{link.name}: is a link"):
            run(root, tmp_path / "out", "participant", Settings(), Selection(), work=work)
    assert target.stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "out").exists()


def session(number: int) -> list[int]:
    """The processes of a session, without zombies."""
    members = []
    for process in psutil.process_iter(["pid"]):
        try:
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return members


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_end_before_the_lock_is_free(tmp_path: Path, number: signal.Signals) -> None:
    root = bids_study(tmp_path / "bids", 4, bad=())
    command = list(map(str, (COMMAND, "run", root, tmp_path / "out", "participant", "--nprocs", 2, "--verbose")))
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    assert child.stderr is not None
    assert any(b"convert" in line for line in iter(child.stderr.readline, b""))
    time.sleep(3)  # workers compute
    workers = set(session(child.pid)) - {child.pid}
    assert workers
    os.kill(child.pid, number)
    deadline = time.monotonic() + 60
    with open(tmp_path / "out_work" / ".lock") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        busy = [pid for pid in session(child.pid) if pid != child.pid and psutil.Process(pid).num_threads() > 1]
        assert busy == []
    assert child.wait(timeout=60) == 130
    child.stderr.close()
    while session(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
