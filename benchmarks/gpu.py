"""One command for a machine with a GPU, without a network and without an installation.

    PYTHONPATH=. python benchmarks/gpu.py --out OUT [--packed gpu] [--minutes 10]

(a) every CUDA kernel against float64 on the processor, (b) speed, (c) training from what benchmarks/pack.py packed.
Each step is a process of its own with its own limit, scaled with --minutes; a step that breaks the device, fails or
outlasts its limit takes nothing from the next. After each, OUT/gpu.json and OUT/gpu.md hold all that is known so far;
(c) adds its snapshot and the parts of its state (gpu_state.py joins them): at most 8 files of at most 15 MB. Without a
GPU everything runs on the processor, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gpu_kernels
import gpu_speed
import gpu_training
from gpu_step import say

HERE = Path(__file__).resolve().parent
# name -> title, script, part of the whole time at whose end it must have ended, page
STEPS: dict[str, tuple[str, str, float, Callable[[dict[str, Any]], list[str]]]] = {
    "kernels": ("Kernels against float64", "gpu_kernels.py", 0.20, gpu_kernels.page),
    "speed": ("Speed", "gpu_speed.py", 0.35, gpu_speed.page),
    "training": ("Training", "gpu_training.py", 0.95, gpu_training.page),
}
GRACE = 10.0
"""Seconds after its limit in which a step may still end by itself."""
FILES, BYTES = 8, 15_000_000


def run(name: str, out: Path, packed: Path, results: Path, seconds: float) -> dict[str, Any]:
    """A step's results, with `ended`: how. What it had written counts where it did not end by itself."""
    command = [sys.executable, "-u", str(HERE / STEPS[name][1]), "--results", str(results)]
    command += ["--seconds", f"{seconds:.1f}", "--since", str(time.monotonic())]
    if name == "training":
        command += ["--packed", str(packed), "--out", str(out)]
    paths = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(seconds + GRACE)
        ended = "ended" if code == 0 else f"failed (exit code {code})"
    except subprocess.TimeoutExpired:
        ended = f"stopped at its limit of {seconds:.0f} s"
    finally:
        if process.poll() is None:  # its children, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = json.loads(results.read_text()) if results.is_file() else {}
    return {**found, "ended": ended}


def write(out: Path, results: dict[str, Any]) -> None:
    """The two files, each replaced as a whole."""
    lines = ["# benchmarks/gpu.py", ""]
    for name, (title, _, _, page) in STEPS.items():
        if name in results:
            step = results[name]
            took = f"{step['seconds']} s" if "seconds" in step else "nothing was written"
            lines += [f"## {title}", "", f"{step.get('device', '')}; {step['ended']}, {took}.", "", *page(step), ""]
    for name, text in (("gpu.json", json.dumps(results, indent=1) + "\n"), ("gpu.md", "\n".join(lines))):
        partial = out / f"{name}.partial"
        partial.write_text(text)
        os.replace(partial, out / name)


def check(out: Path) -> None:
    """Say where what is returned is more than may be."""
    files = [path for path in out.rglob("*") if path.is_file()]
    large = [path.name for path in files if path.stat().st_size > BYTES]
    say(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {out}")
    if len(files) > FILES or large:
        say(f"MORE THAN MAY BE RETURNED: {len(files)} files, larger than {BYTES / 1e6:g} MB: {large}")


def interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packed", type=Path, default=HERE.parent / "gpu")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, interrupted)
    whole, results = 60 * options.minutes, {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (title, _, end, _) in STEPS.items():
            seconds = end * whole - (time.monotonic() - begun)
            say(f"{title}: {seconds:.0f} s")
            file = Path(scratch) / f"{name}.json"
            try:
                results[name] = run(name, options.out, options.packed, file, seconds)
            except KeyboardInterrupt:
                results[name] = {**(json.loads(file.read_text()) if file.is_file() else {}), "ended": "interrupted"}
                write(options.out, results)
                raise
            write(options.out, results)
            say(f"{title}: {results[name]['ended']}")
    check(options.out)


if __name__ == "__main__":
    main()
