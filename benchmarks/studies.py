"""The overhead of a study: seconds, memory of the parent process and lines of the log, by the number of scans.

    python benchmarks/studies.py 100 400 1600 --nprocs 2

Every scan is refused when it is read, so that nearly all of the time is what `brgm-med run` adds to the work on scans.
The second run finds the same study finished. CPU seconds are those of the parent and of all its processes together, as
sampled while they run; the peak of memory is the parent's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil


@dataclass(frozen=True)
class Run:
    """A run of a study: its wall time, the CPU time of the parent and of all processes, seconds; the parent's peak of
    memory, MiB; lines of the log."""

    wall: float
    cpu: float
    every: float
    peak: float
    lines: int


def study(root: Path, count: int) -> Path:
    """A BIDS data set of `count` scans whose files end before their voxels do."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "nobody", "BIDSVersion": "1.10.0"}))
    for number in range(1, count + 1):
        scan = root / f"sub-{number:04d}" / "anat" / f"sub-{number:04d}_T1w.nii"
        scan.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.full((16, 16, 4), number, np.int16), np.diag([1.0, 1.0, 4.0, 1.0])), scan)
        scan.write_bytes(scan.read_bytes()[:1000])
    return root


def run(root: Path, out: Path, nprocs: int) -> Run:
    """`brgm-med run` of the study."""
    command = [sys.executable, "-m", "brgm_med", "run", root, out, "participant", "--nprocs", nprocs]
    log = out.with_name(f"{out.name}.log")
    begun = time.monotonic()
    peak, cpu = 0.0, dict[int, float]()
    with log.open("w") as stream:
        child = subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream)
        parent = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                for one in (parent, *parent.children(recursive=True)):
                    cpu[one.pid] = sum(one.cpu_times()[:2])
                status = Path(f"/proc/{child.pid}/status").read_text()
                peak = float(status.split("VmHWM:")[1].split()[0]) / 1024
            except (psutil.Error, OSError, IndexError):  # one of them has just ended
                pass
            time.sleep(0.1)
        child.wait()
    wall, lines = time.monotonic() - begun, log.read_text().splitlines()
    if child.returncode != 1 or "scans done" not in lines[-1]:
        raise SystemExit(f"{log}: the study ended otherwise (exit code {child.returncode})")
    return Run(wall, cpu[child.pid], sum(cpu.values()), peak, len(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("counts", type=int, nargs="+", metavar="N", help="numbers of scans")
    parser.add_argument("--nprocs", type=int, default=2)
    options = parser.parse_args()
    print("| scans | run | wall (s) | a scan (s) | CPU (s) | parent's CPU (s) | parent's peak (MiB) | log lines |")
    print("|---|---|---|---|---|---|---|---|")
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            root = study(Path(folder) / "bids", count)
            for which in ("first", "second"):
                one = run(root, Path(folder) / "out", options.nprocs)
                seconds = f"{one.wall:.1f} | {one.wall / count:.3f} | {one.every:.1f} | {one.cpu:.1f}"
                numbers = f"{seconds} | {one.peak:.0f} | {one.lines}"
                print(f"| {count} | {which} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
