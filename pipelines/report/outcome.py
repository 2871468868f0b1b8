"""The outcome of one scan of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.report.subject import read_certificate


@dataclass(frozen=True)
class Outcome:
    """`name` of a scan, its status (failed: a step crashed, or was not run yet), the `reason` why it was refused or
    failed, and, where it is done, its `certificate` and the page that reports on it."""

    name: str
    status: Literal["done", "refused", "failed"]
    reason: str = ""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None

    @classmethod
    def done(cls, name: str, certificate: Path, report: Path | None = None) -> Outcome:
        """A scan that is done, and its certificate's file; that it cannot be read is then the reason."""
        try:
            return cls(name, "done", "", read_certificate(certificate), report)
        except InputRefusedError:
            return cls(name, "done", f"its certificate {certificate.name} cannot be read", {}, report)
