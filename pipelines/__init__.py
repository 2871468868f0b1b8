"""Arrays in, arrays out: reconstructions. Files in, files out: steps as functions on paths, Nipype interfaces of them,
and workflows of these.

The steps are in `steps`, one file each, but for `training.slices.train_on_slices`, `report.subject_report`,
`report.study_report` and `workflow.write_back.write_back`. The names below are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.hole import inpaint_volume
    from brgm_med.pipelines.reconstruct.measurement import Reconstruction, Scan
    from brgm_med.pipelines.reconstruct.picture import inpaint_picture, reconstruct_picture
    from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
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
    "Reconstruction",
    "Report",
    "Scan",
    "Slice",
    "Train",
    "WriteBack",
    "WriteDicom",
    "init_brgm_wf",
    "init_preprocess_wf",
    "init_reconstruct_wf",
    "init_train_wf",
    "init_write_back_wf",
    "inpaint_picture",
    "inpaint_volume",
    "reconstruct_picture",
    "reconstruct_volume",
]


_HOME = {
    "Reconstruction": "reconstruct.measurement",
    "Scan": "reconstruct.measurement",
    "inpaint_picture": "reconstruct.picture",
    "inpaint_volume": "reconstruct.hole",
    "reconstruct_picture": "reconstruct.picture",
    "reconstruct_volume": "reconstruct.volume",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME.get(name, f"workflow.{'workflows' if name.startswith('init_') else 'interfaces'}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
