"""Where the time of `brgm-med sr` goes: seconds of every part, its CPU seconds, and the peak memory until its end.

    python benchmarks/phases.py SCAN [--threads 2] [--prior auto]

SCAN is a thick-slice scan, such as one of 256 x 256 x 30 voxels of 1 x 1 x 5 mm. The parts are timed in the command's
own code, each without those that it calls: what they do not name is "other".
"""

from __future__ import annotations

import argparse
import importlib
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

PARTS = {
    "reading": ("steps.super_resolution", "read_scan"),
    "registration": ("reconstruct.volume", "register_to"),
    "learning from the scan": ("reconstruct.own", "learn"),
    "detail of its planes": ("reconstruct.own", "_images"),
    "search of the population prior": ("reconstruct.volume", "most_probable"),
    "both priors on the grid": ("reconstruct.volume", "generated"),
    "projection and measured map": ("reconstruct.volume", "exactly"),
    "weighing noise": ("reconstruct.consistent", "weighed"),
    "writing and reading back": ("steps.super_resolution", "publish"),
}
SEARCH = ("learning from the scan", "detail of its planes", "search of the population prior")


class Timer:
    """Wall and CPU seconds of parts that call each other, each without the others, and GB at most until its end."""

    def __init__(self) -> None:
        self.stack: list[str] = ["other"]
        self.seconds: dict[str, list[float]] = {}
        self.last = BEGAN, 0.0

    def now(self) -> None:
        """Give the time since the last call to the part that runs."""
        wall, cpu = time.perf_counter(), time.process_time()
        total = self.seconds.setdefault(self.stack[-1], [0.0, 0.0, 0.0])
        total[0] += wall - self.last[0]
        total[1] += cpu - self.last[1]
        total[2] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.last = wall, cpu

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.now()
            self.stack.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.now()
                self.stack.pop()

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prior", default="auto")
    options = parser.parse_args()
    timer = Timer()
    for name, (room, function) in PARTS.items():
        module = importlib.import_module(f"brgm_med.pipelines.{room}")
        setattr(module, function, timer.wrapped(name, getattr(module, function)))
    from brgm_med.pipelines.steps.super_resolution import super_resolve

    timer.now()
    timer.seconds["loading the code"] = timer.seconds.pop("other")
    with tempfile.TemporaryDirectory() as folder:
        super_resolve(options.scan, Path(folder) / "sr.nii.gz", prior=options.prior, threads=options.threads)
        timer.now()
    total = [sum(part[n] for part in timer.seconds.values()) for n in (0, 1)]
    print(
        f"{options.scan.name}, {options.threads} threads\n\n| part | s | of all | CPU s | GB |\n|---|---|---|---|---|"
    )
    for name, (wall, cpu, memory) in timer.seconds.items():
        print(f"| {name} | {wall:.1f} | {wall / total[0]:.0%} | {cpu:.1f} | {memory:.2f} |")
    print(f"| all | {total[0]:.1f} | | {total[1]:.1f} | |")
    search = sum(timer.seconds.get(name, [0.0])[0] for name in SEARCH)
    print(f"\nall but search and learning: {(total[0] - search) / search:.2f} of these")


if __name__ == "__main__":
    main()
