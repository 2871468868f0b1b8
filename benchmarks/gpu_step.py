"""A step of benchmarks/gpu.py: its results, written after every part, and its limit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Step:
    """Results (JSON) of a step that must end `seconds` after it has begun; `path` is replaced as a whole."""

    path: Path
    seconds: float
    results: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until the limit."""
        return self.begun + self.seconds - time.monotonic()

    def save(self) -> None:
        self.results["seconds"] = round(time.monotonic() - self.begun, 1)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.results, indent=1) + "\n")
        os.replace(partial, self.path)


def say(line: str) -> None:
    print(line, flush=True)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> dict[str, Any]:
    """Which device, driver and versions."""
    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device().type != "cuda":
        return facts | {"device": f"no GPU; {platform.machine()}, {torch.get_num_threads()} threads"}
    properties = torch.cuda.get_device_properties(0)
    return facts | {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "cuda": torch.version.cuda,
    }


def arguments(description: str | None, extra: Sequence[tuple[str, dict[str, Any]]] = ()) -> argparse.Namespace:
    """The command line of a step: where its results go, and its limit."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file for the results (JSON)")
    parser.add_argument("--seconds", type=float, required=True, help="limit")
    parser.add_argument("--since", type=float, default=time.monotonic(), help="when it began, by the system's clock")
    for name, options in extra:
        parser.add_argument(name, **options)
    return parser.parse_args()
