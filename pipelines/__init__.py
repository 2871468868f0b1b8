"""Files in, files out: steps as functions on paths, Nipype interfaces of them, and workflows of these.

The steps are in `steps`, one file each, but for `training.slices.train_on_slices`, `report.subject_report`,
`report.study_report` and `workflow.write_back.write_back`. The names below are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brgm_med.pipelines.workflow.interfaces import (
        Convert,
        Evaluate,
        Preprocess,
        Reconstruct,
        Report,
        Slice,
        Train,
        WriteBack,
        WriteDicom,
    )
    from brgm_med.pipelines.workflow.workflows import (
        init_brgm_wf,
        init_preprocess_wf,
        init_reconstruct_wf,
        init_train_wf,
        init_write_back_wf,
    )

__all__ = [
    "Convert",
    "Evaluate",
    "Preprocess",
    "Reconstruct",
    "Report",
    "Slice",
    "Train",
    "WriteBack",
    "WriteDicom",
    "init_brgm_wf",
    "init_preprocess_wf",
    "init_reconstruct_wf",
    "init_train_wf",
    "init_write_back_wf",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "workflows" if name.startswith("init_") else "interfaces"
    return getattr(import_module(f"{__name__}.workflow.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
