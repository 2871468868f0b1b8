"""The outcome of one scan of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Outcome:
    """`name` of a scan, its status (failed: a step crashed, or was not run yet), the `reason` why it was refused or
    failed, and, where it is done, its `certificate` and the page that reports on it."""

    name: str
    status: Literal["done", "refused", "failed"]
    reason: str = ""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None
